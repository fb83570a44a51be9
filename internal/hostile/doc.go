// Package hostile is the hostile peer: a set of attacks on a whole host, each with
// an outcome that is defined and tested. There is no code in it that a program could use.
//
// The victim is a host with everything that a node serves, over TCP on the loopback
// interface (where it sees the attackers under addresses that are not loopback, since
// loopback is exempt from limits by address) or over a network in memory, inside a
// testing/synctest bubble, where the minutes that timeouts take pass in no time. The
// attackers say by hand what honest peers never say; for the honest part of a
// connection they use Kith's own packages. Where the victim's CPU or memory is
// measured, they run as a process of their own.
//
// Whatever an attack is, afterwards nothing is left of it: no goroutine, no
// connection, no place in a room of limited size, no heap. Nothing panics, and honest
// peers are served.
//
// # The attacks
//
//   - halfopen_test.go, flood_linux_test.go: connections that stop at each stage of their
//     set-up; thousands of them; from one address, from many, from that of honest peers;
//     all places of connections taken.
//   - streams_test.go: streams that are never negotiated, opened and reset, more than
//     one peer may have.
//   - violations_test.go: broken rules of the muxer, and coming again.
//   - negotiation_test.go: negotiations without end; bytes that are missing, wrong or too many.
//   - identity_test.go: handshakes of peers who are not who they say, in both roles.
//   - identify_test.go: lies and floods of peers about themselves.
//   - unread_test.go: peers who do not read.
//   - listener_test.go: the same from the other side, against the one who dials.
//   - words_test.go: where others say that peers are: addresses that nobody may be sent
//     to, one victim's, names that lead astray.
//   - attack_linux_test.go with onslaught_linux_test.go: what honest peers notice of each kind of
//     attack, over TCP and over QUIC, in a network namespace without a loopback exemption.
//
// Read in this order: attacker.go, frames.go, rogue.go (what attackers can say),
// stages.go, network.go with pipe.go (the network in memory), victim_test.go,
// gang_linux_test.go (attackers as a process).
//
// # Running it
//
//	go test ./internal/hostile
//
// takes some twenty seconds and judges by counts and bytes alone. With full force
// (10,000 half-open connections at each stage, a thousand sessions of rapid reset) and
// judged by the clock too:
//
//	go test ./internal/hostile -timeout 1h -v -hostile.full
//	go test ./internal/hostile -timeout 1h -v -hostile.full -run TestFloodAtEachStage
//
//	go test ./internal/hostile -timeout 1h -v -hostile.full -run TestAttacks -hostile.table attacks.md
//
// That wants a machine with nothing else to do, and 20,000 open files for a process. The
// figures are printed; docs/limits.md and docs/attacks.md have those of the last time.
//
// Poisoned answers of mDNS are tested in package mdns.
package hostile
