package kith

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
)

// A disk that hangs does not keep a node from closing.
func TestCloseWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := peer.GenerateKey(peer.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		h, err := host.New(host.Config{Identity: key})
		if err != nil {
			t.Fatal(err)
		}
		hung := make(chan struct{})
		defer close(hung)
		n := &Node{
			Host:       h,
			transports: transports{close: func() error { return nil }},
			closeStore: func() error { <-hung; return nil },
		}
		begin := time.Now()
		err = n.Close()
		if took := time.Since(begin); took >= time.Second || err == nil || !strings.Contains(err.Error(), "disk does not answer") {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
