package kith

import (
	"log/slog"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/upgrade"
)

// Config describes a node. The zero value gives one that works; it must not be
// changed after Start.
type Config struct {
	// Identity is who the node is. Zero: the key in Dir, which is made if it is not
	// there, or without Dir a new Ed25519 key.
	Identity peer.PrivateKey

	// Dir keeps what must survive a restart: the key in the file identity.key, and
	// what is known of other peers in kith.db. One node at a time uses a directory: a
	// second gets store.ErrInUse. Empty: nothing survives.
	Dir string

	// Store, when set, is used instead of kith.db. It must stay open until the node is
	// closed.
	Store host.Store

	// Listen is where the node takes connections in. Nil: on one free port of all
	// interfaces, IPv4 and IPv6, over QUIC, TCP, WebTransport, WebRTC-direct and
	// WebSocket. Empty but not nil: nowhere. It can dial over all of them in any case.
	Listen []multiaddr.Addr

	// Bootstrap are peers that the node connects to at the start, and again
	// whenever it has lost them.
	Bootstrap []peer.AddrInfo

	// Security are the secure channels spoken, the preferred first: upgrade.Noise,
	// upgrade.TLS. Nil: both, the one first that is faster on this hardware.
	Security []func(peer.PrivateKey) (upgrade.Security, error)

	// PSK makes the node one of a private network, whose peers all have this key.
	// It then goes over TCP, WebSocket and Unix sockets alone, since the other
	// transports cannot keep a network private. Nil: the public network.
	PSK *pnet.Key

	// Agent is the program's name and version as it tells other peers. Empty: "kith/" and the version.
	Agent string

	// ServePerf lets anybody measure how fast bytes go to this node, which is work
	// and traffic for it.
	ServePerf bool

	WebSocket WebSocket
	MDNS      MDNS
	Limits    host.Limits
	Migrate   host.Migrate // how connections are replaced by better ones

	// Gate decides who may connect, beside the list in Node.ACL. The zero value lets
	// everybody.
	Gate host.Gate

	// Logger gets what an operator should know. Nil: nothing is logged.
	Logger *slog.Logger

	// Trace gets every event; see host.Config.
	Trace func(host.Event)
}

// MDNS describes how the node finds its neighbours on the local network.
type MDNS struct {
	// Off keeps the node from asking and from answering.
	Off bool

	// Interfaces are the names of those to use. Nil: all that can, but not loopback.
	Interfaces []string

	// Service is what neighbours must ask for. Empty: "_p2p._udp", which all of
	// libp2p shares.
	Service string

	// NoConnect keeps the node from connecting to the neighbours that it finds; they
	// are known and announced as events all the same.
	NoConnect bool
}
