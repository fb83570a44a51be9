// Package transporttest is one test body for all transports: what host.Transport
// promises, checked on a transport alone and under a host. A transport's own test
// calls it once for each configuration that matters:
//
//	func TestTransport(t *testing.T) {
//		transporttest.Run(t, transporttest.Case{
//			New: func(t testing.TB, key peer.PrivateKey) host.Transport {
//				transport, err := quic.New(quic.Config{…})
//				if err != nil {
//					t.Fatal(err)
//				}
//				t.Cleanup(func() { transport.Close() }) // what is open beside listeners and connections
//				return transport
//			},
//			Listen:  transporttest.Addrs("/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"),
//			Silence: 5 * time.Second, // the shortest idle timeout that New can be given
//		})
//	}
//
// Several cases of one transport are subtests: t.Run("noise", func(t *testing.T) {
// transporttest.Run(t, …) }). Whatever a transport cannot do is a field of its Case,
// so that it is read where the transport is tested.
//
// Run starts the test binary again, as the other side that is killed or stopped: it
// is the same test that then calls Run with the same Case, and Run does not return
// there. So nothing may stand before Run that another process must not do, and the
// name of a test must not depend on chance.
//
// Each part ends with all goroutines gone that it has started. Nothing is slept for:
// what must happen is waited for, up to a time that only a failure takes. The two
// times that are promised, a second for CloseWithCode and Case.Silence, are measured.
// On a machine on which what should take no time takes more than 20 s, set
// KITH_TRANSPORTTEST_PATIENCE=1m.
//
// Read in this order: transporttest.go (what a Case says; the parts), conn.go (two
// ends of a connection), connect.go, streams.go, deadlines.go, ending.go, process.go
// (the other side as a process), host.go.
package transporttest
