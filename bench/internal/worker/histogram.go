package worker

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations to within 1 %, up to a minute, without allocating.
// It may be used by several goroutines.
type histogram struct {
	// Each power of two is divided into 128.
	buckets [(maxBits-8)*128 + 256]atomic.Uint64
}

const maxBits = 36 // 2^36 ns are 69 s

func (h *histogram) add(d time.Duration) { h.buckets[bucketOf(d)].Add(1) }

func bucketOf(d time.Duration) int {
	v := uint64(min(max(d, 0), 1<<maxBits-1))
	shift := max(bits.Len64(v)-8, 0)
	return shift*128 + int(v>>shift)
}

// middle is the middle of a bucket.
func middle(bucket int) time.Duration {
	shift := max(bucket/128-1, 0)
	low := uint64(bucket-shift*128) << shift
	return time.Duration(low + 1<<shift/2)
}

func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// quantile gives the duration than which the share q of all is not longer; 0 for none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count())))
	var seen uint64
	for i := range h.buckets {
		if seen += h.buckets[i].Load(); seen >= rank && seen > 0 {
			return middle(i)
		}
	}
	return 0
}
