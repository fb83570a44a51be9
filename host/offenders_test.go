package host

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// ended is why a session of a muxer ended.
type ended struct {
	code   uint32
	remote bool
}

func (e ended) Error() string     { return fmt.Sprint("ended with ", e.code) }
func (e ended) ErrorCode() uint32 { return e.code }
func (e ended) IsRemote() bool    { return e.remote }
func (e ended) Unwrap() error     { return net.ErrClosed }

func TestOffenders(t *testing.T) {
	var o offenders
	bad, other := netip.MustParsePrefix("44.0.0.1/32"), netip.MustParsePrefix("44.0.0.2/32")
	now := time.Now()
	for _, err := range []error{io.EOF, ended{code: muxProtocolError, remote: true}, ended{code: ConnCodeShutdown}, ended{}} {
		for range maxOffences {
			o.note(other, err, now)
		}
	}
	for range maxOffences {
		if wait := o.wait(bad, now); wait != 0 {
			t.Fatalf("waits %v before it has offended often", wait)
		}
		o.note(bad, fmt.Errorf("serving: %w", ended{code: muxProtocolError}), now)
	}
	now = now.Add(3 * time.Second)
	if wait := o.wait(bad, now); wait != offenceSpan-3*time.Second {
		t.Errorf("waits %v", wait)
	}
	if wait := o.wait(other, now); wait != 0 {
		t.Errorf("an address that did nothing waits %v", wait)
	}
	now = now.Add(offenceSpan)
	if wait := o.wait(bad, now); wait != 0 {
		t.Errorf("waits %v when it is over", wait)
	}
	loopback := netip.MustParsePrefix("127.0.0.1/32")
	for i := range 5000 {
		o.note(loopback, ended{code: ConnCodeRateLimited}, now)
		o.note(netip.PrefixFrom(netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}), 32), ended{code: ConnCodeRateLimited}, now)
	}
	if len(o.by) != maxOffenders || o.wait(loopback, now) != 0 {
		t.Errorf("%d addresses are remembered; loopback waits %v", len(o.by), o.wait(loopback, now))
	}
}
