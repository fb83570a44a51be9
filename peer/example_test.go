package peer_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

func ExampleParseID() {
	id, err := peer.ParseID("bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id)
	fmt.Println(id.ShortString())
	// Output:
	// QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N
	// Qm*Wjhx5N
}

func ExampleGenerateKey() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	sig, err := key.Sign([]byte("hello"))
	if err != nil {
		log.Fatal(err)
	}
	// Whoever knows the ID of an Ed25519 peer knows its key.
	public, ok := key.ID().PublicKey()
	fmt.Println(ok, public.Verify([]byte("hello"), sig), public.Verify([]byte("hullo"), sig))
	// Output: true true false
}

func ExampleLoadOrCreateKey() {
	dir, err := os.MkdirTemp("", "kith")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "identity.key")

	first, err := peer.LoadOrCreateKey(path, peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	again, err := peer.LoadOrCreateKey(path, peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(first.ID() == again.ID())
	// Output: true
}

func ExampleParseAddrInfo() {
	info, err := peer.ParseAddrInfo("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.ID)
	fmt.Println(info.Addrs[0])
	// Output:
	// 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
	// /ip4/192.0.2.1/udp/4001/quic-v1
}

func ExampleOpenRecord() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := peer.Record{
		ID:    key.ID(),
		Seq:   1,
		Addrs: []multiaddr.Addr{multiaddr.MustParse("/ip4/192.0.2.1/tcp/4001")},
	}.Seal(key)
	if err != nil {
		log.Fatal(err)
	}

	record, err := peer.OpenRecord(sealed) // as anybody may
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(record.ID == key.ID(), record.Addrs)
	// Output: true [/ip4/192.0.2.1/tcp/4001]
}
