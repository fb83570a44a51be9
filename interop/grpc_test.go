package interop

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// TestGRPC runs an unchanged gRPC server and client over streams: calls, and a stream of answers.
func TestGRPC(t *testing.T) {
	start := func() *kith.Node {
		n, err := kith.Start(t.Context(), kith.Config{
			Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")},
			MDNS:   kith.MDNS{Off: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	a, b := start(), start()

	state := health.NewServer()
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state)
	served := make(chan error, 1)
	go func() { served <- server.Serve(b.Listener("/grpc/1")) }()

	a.AddAddrs(peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}, time.Minute)
	conn, err := grpc.NewClient("passthrough:///"+b.ID().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the stream is encrypted and authenticated already
		grpc.WithContextDialer(func(ctx context.Context, id string) (net.Conn, error) {
			p, err := peer.ParseID(id)
			if err != nil {
				return nil, err
			}
			return a.NewStream(ctx, p, "/grpc/1")
		}))
	if err != nil {
		t.Fatal(err)
	}
	client := healthpb.NewHealthClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 10 {
		got, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || got.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("check: %v, %v", got, err)
		}
	}
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		got, err := watch.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("watch: %v, %v; want %v", got, err, want)
		}
		state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	}
	server.Stop()
	if _, err := watch.Recv(); err == nil || err == io.EOF {
		t.Errorf("watch after the server stopped: %v", err)
	}
	conn.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve ended with %v", err)
	}
}
