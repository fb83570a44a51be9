package host_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/memory"
)

// Whom a host has no room for hears of it by a code, but not each of a flood; and who
// must not be kept out is not.
func TestNoRoomIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memory.Network)
		b := testkit.Host(t, network, host.Config{Limits: host.Limits{Conns: 1}})
		testkit.Connect(t, testkit.Host(t, network, host.Config{}), b)
		// come dials b and tells whether it had to hear of the limit.
		come := func() bool {
			a := testkit.Host(t, network, host.Config{})
			c, err := a.Connect(t.Context(), testkit.Info(b))
			if err == nil {
				<-c.Done()
				_, err = c.NewStream(t.Context(), "/echo/1") // tells why there is no connection
			}
			var coded *host.ConnError
			if !errors.As(err, &coded) {
				return false
			}
			if coded.Code != host.ConnCodeResourceLimit || !coded.Remote {
				t.Fatalf("turned away with %v", err)
			}
			return true
		}
		count := func() (told int) {
			for range 20 {
				if come() {
					told++
				}
			}
			return told
		}
		if n := count(); n != 16 {
			t.Errorf("%d of 20 at once were told, want 16", n)
		}
		time.Sleep(300 * time.Millisecond)
		if n := count(); n != 3 {
			t.Errorf("%d were told 300 ms later, want 3", n)
		}
		time.Sleep(time.Hour)
		if n := count(); n != 16 {
			t.Errorf("%d were told an hour later, want 16", n)
		}
		time.Sleep(time.Second)
		friend := testkit.Host(t, network, host.Config{})
		b.Protect(friend.ID(), "friend")
		testkit.Connect(t, friend, b)
		synctest.Wait()
		if conns := b.Conns(); len(conns) != 1 || conns[0].RemotePeer() != friend.ID() {
			t.Errorf("%v stay, not the protected peer alone", conns)
		}
	})
}
