package webrtc

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/transporttest"
	"github.com/kith-p2p/kith/peer"
)

// A socket that is shared with other protocols sends and receives packet by packet.
func TestSharedSocket(t *testing.T) {
	transporttest.Run(t, transporttest.Case{
		New: func(t testing.TB, key peer.PrivateKey) host.Transport {
			transport, err := New(Config{Key: key, Version: 2, Timeout: 3 * time.Second, ListenPacket: func(ap netip.AddrPort) (net.PacketConn, error) {
				conn, err := listenUDP(ap)
				return struct{ net.PacketConn }{conn}, err
			}})
			if err != nil {
				t.Fatal(err)
			}
			return transport
		},
		Listen:  transporttest.Addrs("/ip4/127.0.0.1/udp/0/webrtc-direct"),
		Bulk:    8 << 20,
		Streams: 200,
		Conns:   20,
		Silence: 3 * time.Second,
	})
}
