// Package mdns finds the libp2p peers on the local networks, and is found by
// them: by multicast DNS, without configuration or servers.
//
// It implements the libp2p specification "mDNS"
// (https://github.com/libp2p/specs/blob/master/discovery/mdns.md, r2,
// 2021-10-12) over RFC 6762, and has been tried against go-libp2p's zeroconf
// 2.2.0, @libp2p/mdns 12.0 and rust-libp2p 0.56.
//
// # How it goes
//
//	up ──▶ query ──1 s──▶ query ──2 s──▶ query ──4 s──▶ … ──▶ query every 60 to 72 s
//	         │                                                 (later, if others ask)
//	         ▼
//	whoever hears it, the one who asked included, answers after 20 to 120 ms,
//	once a second at most:
//
//	_p2p._udp.local.            PTR   <random>._p2p._udp.local.
//	<random>._p2p._udp.local.   TXT   dnsaddr=/ip4/192.168.1.7/tcp/4001/p2p/12D3KooW… (and more)
//	                            SRV   <random>.p2p.local.
//	<random>.p2p.local.         A     192.168.1.7
//
// A peer that is new or has a new address is told of at once (Discovered), and
// again each minute in which it answers. It is forgotten (Expired) when it says
// goodbye, or has not been heard for four minutes.
//
// # What is believed
//
// Nothing here is authenticated: anybody on the network can send any answer. So
// an answer is read only if it comes from the network of the interface it came in
// on, and of its addresses only those are kept that lie in that network, with
// loopback for the loopback interface alone. DNS names are not followed, and
// relayed addresses are not taken. Who the peer is shows in the handshake.
//
// # Limits
//
// Packets of 9000 bytes, of which 128 records and 64 strings are read; 1000
// packets a second on an interface; 1024 peers, 32 addresses of each; 100 peers
// told of as new or changed in any minute; one multicast answer a second and ten
// unicast replies a second on an interface; 16 interfaces.
//
// # What others do differently
//
// rust-libp2p sends from a port of its own and hears only the group; it uses a new
// name for every answer, outside the service. go-libp2p reads one TXT record of
// one packet, and only beside an SRV and an A or AAAA record. js-libp2p puts TXT
// records among the answers. All of this is taken into account: peers are told
// apart by their IDs, answers count whatever port they come from (against RFC 6762
// §11), and a query from another port is answered to the group as well.
//
// # Not implemented
//
// Probing for names in use (they are random), suppression of known answers,
// reading the lifetimes of records (only 0 counts), and A records of others:
// addresses come from TXT strings alone. An address that a peer has given up is
// forgotten after four minutes. On Linux the port is shared with programs that
// set SO_REUSEADDR, as nearly all do.
//
// Read in this order: mdns.go (what programs use, and the I/O), core.go (the
// state machine), records.go (packets), sockets.go.
package mdns
