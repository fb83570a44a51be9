// Package identify tells connected peers who we are and learns who they are:
// the addresses at which a peer can be dialed, the protocols that it speaks, the
// program that it runs, and our own address as the peer sees it.
//
//	identify.Start(h, identify.Config{AgentVersion: "example/1.0"})
//
// From then on every new connection is identified, and each answer becomes a
// host.PeerIdentified event and part of host.PeerInfo. When our own addresses or
// protocols change, the peers are told.
//
// Specification: https://github.com/libp2p/specs/blob/master/identify/README.md
// (r1, 2021-08-09). What it leaves open follows go-libp2p, rust-libp2p and js-libp2p:
// the signed peer record (field 8), several messages in one stream, and their sizes.
//
// Read in this order: message.go (what is sent), identify.go (asking, answering,
// believing), push.go (telling of changes), limit.go.
//
// # What is believed
//
// The connection has proved who the peer is. A message with another public key ends
// the exchange with an error, and nothing of it is used. A signed record that is
// the peer's own replaces the unsigned addresses. One that is broken, or of a kind
// that we cannot read, counts as absent. One that is in order but another peer's
// (of which anybody can collect any number) means that no address of the message is
// used: the addresses of a peer that hands on others' are not to be trusted
// either, and records of third peers are kept nowhere.
//
// Addresses of one machine are sent only over connections within it, and those that
// reach less far than the connection itself are not taken: a peer on the internet
// cannot make us dial into our own network. Agent and protocol versions have
// nothing in them that could steer a terminal. Apart from that everything here is
// a claim: a peer can say that it speaks what it does not, and can be dialed
// where it cannot.
//
// # The observed address
//
// PeerInfo.ObservedAddr is where the peer sees our end of the connection. It tells
// of address translation: when it is none of ours, something between us and the peer
// rewrites addresses. When we were dialed, or dialed from the port that we listen
// on, it is what others could dial too, if the translator maps all connections from one
// port alike; several peers in different networks who see the same address make that
// likely. It is no proof: a peer can say what it likes, and even a true address can
// be closed to others. So what one peer says is never announced: the host announces
// an address that enough peers who have nothing to do with each other see; see
// host/addrs.go.
//
// # Limits
//
// Of a peer 128 addresses and 1024 protocols are read, and at most 64 KiB kept; an
// exchange takes 5 s. A peer may push news once in 5 s with a burst of 10, and the
// peers of one IPv4 /24 or IPv6 /48 once a second with a burst of 50; what is more
// is reset unread, and a connection on which that goes on is closed. All bounds are
// constants in message.go, identify.go, push.go and limit.go.
//
// # Not implemented
//
// Partial pushes are read but not sent: a push says everything, as go-libp2p's.
// The sequence number of a signed record is not compared: the connection already
// shows that the record is what the peer says now.
package identify
