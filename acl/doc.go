// Package acl says who may connect with a node: lists of peers, addresses and
// networks that are blocked or allowed, which people edit and which survive a restart.
//
//	list, err := acl.Open("acl.txt")
//	…
//	h, err := host.New(host.Config{Gate: list.Gate(), …})
//	…
//	h.Go(func(ctx context.Context) { list.Run(ctx, h) })
//
// kith.Start does this with the file in its Dir; Node.ACL is the list, and kith acl
// edits it.
//
// Read in this order: acl.go, table.go (how a list decides, and its file's form), file.go.
//
// # How a list decides
//
// A connection needs both, the peer and its address, not to be blocked. What no entry
// is about may connect.
//
//   - Of several networks with the address the smallest decides: block 203.0.113.0/24
//     and allow 203.0.113.7 lets that one machine in.
//   - A blocked IPv4 address is blocked in its IPv6 forms, too: NAT64, 6to4, Teredo and
//     others (host.EmbeddedIPv4). An entry for such a form does not allow it.
//   - A peer's own entry decides before that of everyone: block everyone and allow
//     some peers makes a closed group.
//   - An allowed network does one thing more: its addresses may be dialed when
//     strangers name them, even if they are private and this machine has no interface
//     in that network. Loopback, link-local and metadata addresses never are: see
//     host.Gate.AllowPrivate.
//
// An entry may end at a time. Connections that a change of the list does not allow any
// more are ended, with host.ConnCodeGated.
//
// # The file
//
// It has a line for each entry, which people may edit as well:
//
//	block 203.0.113.0/24 until 2030-12-31T23:59:59Z # floods us
//	allow 12D3KooW…
//
// It is not part of the node's database, which no other program can open while the
// node runs: one wants to block most when it does. A change is a new file in the place
// of the old one, and waits for the changes of others; a running node reads it within
// two seconds. A file with a mistake is never overwritten: a node does not start with
// it, and one that runs keeps the list that it had.
//
// # Limits
//
// MaxEntries entries and 16 MiB of file. A peer is looked up in one step, an address in
// as many as there are different lengths of networks, at most 33 or 129; no lock is taken.
//
// # Not implemented
//
// A network that is reached by a name which a transport looks up itself, as
// /dns4/…/tls/ws given by the user, is noticed only when the connection stands.
package acl
