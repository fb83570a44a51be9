// Package kith is libp2p for Go: peers that talk to each other with no server
// between them. [Start] gives a whole node from one [Config]; a zero Config works.
//
//	n, err := kith.Start(ctx, kith.Config{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer n.Close()
//	n.Handle("/echo/1", func(ctx context.Context, s *host.Stream) error {
//		_, err := io.Copy(s, s)
//		return err
//	})
//
// Another node reaches it by its ID, once it has found its addresses or was given one:
//
//	s, err := other.NewStream(ctx, n.ID(), "/echo/1")
//
// A node speaks the protocols of libp2p and so works with go-libp2p, js-libp2p and
// rust-libp2p.
//
// Read in this order: kith.go (how a node is put together), config.go; then package
// host, on which everything stands, and ARCHITECTURE.md.
//
// Not implemented: transports other than TCP, the DHT, relays and hole
// punching, pubsub. CHANGELOG.md tells what is.
package kith
