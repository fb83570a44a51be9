// Package autotls gets certificates that browsers trust for a node without a name
// of its own: for its WebSocket listener, by the libp2p.direct protocol.
//
// A node with the peer ID P owns, by its key, the names *.<P>.libp2p.direct, where
// P is written in base36. The name 192-0-2-1.<P>.libp2p.direct has the address
// 192.0.2.1, so a browser dials /ip4/192.0.2.1/tcp/443/tls/sni/<name>/ws and checks
// the certificate of that name. The certificate comes from an ACME authority,
// which wants to see a DNS record below the name; the registration service
// publishes it for whoever proves with its key to be P, and can be dialed.
//
//	m, err := autotls.New(autotls.Config{Key: key, Dir: dir, Addrs: public})
//	h.Go(m.Run)            // obtains and renews, as long as the node lives
//	m.TLSConfig()          // for the listener
//	m.Announce(listening)  // for host.Config.Announce
//
// Nothing here can stop a node: without a certificate TLS handshakes are refused,
// and no address is announced that would need one.
//
// Read in this order: autotls.go (the life of a certificate), obtain.go (how one is
// obtained), auth.go (how we prove who we are), names.go, store.go.
//
//	                    no public address
//	                   ┌──────────────────┐
//	New ── none ─────► │      waiting     │ ◄── failed: 1 min, 3 min, 9 min … 6 h
//	 │                 └────────┬─────────┘          ▲
//	 │ on disk          address │                    │
//	 │                          ▼                    │
//	 │    account → order → challenge → registered → in DNS → accepted → signed
//	 ▼                                                                     │
//	held ◄──────────────────────────────────────────────────────────────────┘
//	 │ two thirds of its life are over: again, while the old one serves
//
// # Specifications
//
//   - tls/autotls-client.md, revision r1 of 2025-05-21
//   - http/peer-id-auth.md, revision r1 of 2025-05-28, the client's side, where
//     either side begins
//
// both in https://github.com/libp2p/specs at 7740c076, and RFC 8555 (ACME) by
// golang.org/x/crypto/acme.
//
// # Limits
//
// One attempt at a time, of at most attemptTimeout and maxRequests requests; an
// answer has at most maxAnswer bytes, a header of authentication maxAuthHeader,
// and maxAddrs addresses are told.
//
// # Not implemented
//
// ACME renewal information (RFC 9773), external account binding, certificate
// revocation. The record of the address (A, AAAA) is not looked up: the certificate
// does not depend on it.
package autotls
