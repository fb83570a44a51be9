package feed

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// A word has a subject if it begins with one: "addr 1".
func newWords(buffer int) *Feed[string] {
	return New(Config[string]{
		Buffer: buffer,
		Lost:   func(n int) string { return fmt.Sprintf("lost %d", n) },
		Key: func(s string) any {
			if s[0] == 'a' {
				return s[:4]
			}
			return nil
		},
	})
}

// read takes what there is, once everything else waits.
func read(f *Feed[string]) (got []string) {
	for {
		synctest.Wait()
		select {
		case v, ok := <-f.Values():
			if !ok {
				return append(got, "closed")
			}
			got = append(got, v)
		default:
			return got
		}
	}
}

func tell(f *Feed[string], words ...string) {
	for _, w := range words {
		f.Tell(w)
		synctest.Wait()
	}
}

func TestOrderAndLoss(t *testing.T) {
	for _, c := range []struct {
		name   string
		buffer int
		tell   []string
		want   []string
	}{
		{"keeps up", 4, []string{"1", "2"}, []string{"1", "2"}},
		// Two in the channel, one in the goroutine's hands, two in the ring.
		{"full", 4, []string{"1", "2", "3", "4", "5"}, []string{"1", "2", "3", "4", "5"}},
		{"lost", 4, []string{"1", "2", "3", "4", "5", "6", "7"}, []string{"1", "2", "3", "4", "5", "lost 2"}},
		{"replaced", 4, []string{"1", "2", "3", "addr 1", "5", "addr 2", "addr 3"}, []string{"1", "2", "3", "addr 3", "5"}},
		{"replaced while all else is lost", 4, []string{"1", "2", "3", "addr 1", "5", "6", "addr 2", "addr 3"}, []string{"1", "2", "3", "addr 3", "5", "lost 1"}},
		{"another subject", 6, []string{"1", "2", "3", "4", "addr 1", "arp. 1", "addr 2", "arp. 2"}, []string{"1", "2", "3", "4", "addr 2", "arp. 2"}},
		{"smallest", 0, []string{"1", "2", "3", "4"}, []string{"1", "2", "3", "lost 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newWords(c.buffer)
				tell(f, c.tell...)
				if got := read(f); !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				f.Close()
				if got := read(f); !slices.Equal(got, []string{"closed"}) {
					t.Errorf("after Close: %q", got)
				}
			})
		})
	}
}

// The mark of a loss stands where the loss was, and what comes after it arrives.
func TestAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newWords(4)
		defer f.Close()
		tell(f, "1", "2", "3", "4", "5", "6", "7")
		if v := <-f.Values(); v != "1" {
			t.Fatal(v)
		}
		tell(f, "8") // one place is free, which the mark would take
		if v := <-f.Values(); v != "2" {
			t.Fatal(v)
		}
		synctest.Wait()
		tell(f, "9")
		want := []string{"3", "4", "5", "lost 3", "9"}
		if got := read(f); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if f.Lost() != 3 {
			t.Errorf("%d lost in all", f.Lost())
		}
		// It has caught up: no goroutine any more, and the channel alone again.
		tell(f, "10")
		if got := read(f); !slices.Equal(got, []string{"10"}) {
			t.Errorf("got %q", got)
		}
		if f.pumped != nil {
			t.Error("the goroutine still runs")
		}
	})
}

// Close returns while nobody reads, leaves no goroutine (synctest sees to that), and
// may be called again and while others tell.
func TestCloseWhileNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newWords(2)
		var tellers sync.WaitGroup
		for range 4 {
			tellers.Go(func() {
				for range 100 {
					f.Tell("x")
				}
			})
		}
		f.Close()
		f.Close()
		tellers.Wait()
		f.Tell("y")
	})
}

// What is read is in order, and what is missing is told, whatever the reader does.
func TestManyTellers(t *testing.T) {
	const tellers, each = 8, 5000
	f := New(Config[[2]int]{Buffer: 64, Lost: func(n int) [2]int { return [2]int{-1, n} }})
	var wg sync.WaitGroup
	for id := range tellers {
		wg.Go(func() {
			for i := range each {
				f.Tell([2]int{id, i})
			}
		})
	}
	go func() {
		wg.Wait()
		f.Tell([2]int{tellers, 0}) // the last one
	}()
	last := make([]int, tellers)
	for i := range last {
		last[i] = -1
	}
	seen, lost := 0, 0
	for v := range f.Values() {
		if v[0] == -1 {
			lost += v[1]
			if v[1] < 1 {
				t.Fatalf("a loss of %d", v[1])
			}
		} else if v[0] < tellers {
			seen++
			if v[1] <= last[v[0]] {
				t.Fatalf("%v came after %d", v, last[v[0]])
			}
			last[v[0]] = v[1]
		} else {
			seen++
		}
		if seen+lost == tellers*each+1 {
			break
		}
	}
	if uint64(lost) != f.Lost() {
		t.Errorf("told of %d lost, were %d", lost, f.Lost())
	}
	f.Close()
}

func BenchmarkTell(b *testing.B) {
	b.Run("reader=nobody", func(b *testing.B) {
		f := newWords(64)
		defer f.Close()
		b.ReportAllocs()
		for b.Loop() {
			f.Tell("x")
		}
	})
	b.Run("reader=keeps-up", func(b *testing.B) {
		f := newWords(64)
		defer f.Close()
		b.ReportAllocs()
		for b.Loop() {
			f.Tell("x")
			<-f.Values()
		}
	})
}
