// Package udp shares UDP sockets: QUIC and what is not QUIC (STUN and DTLS of
// WebRTC) use one port, and are told apart by the first byte of each packet.
//
// QUIC gives the connection that quic-go reads. On Linux it reads many packets with
// one system call, and packets of one sender that the kernel has put together
// (UDP GRO) come apart here: an upload costs the receiver a third less. Packets that
// are not QUIC are handed to whoever called Other as they are met. While there is no
// QUIC on a socket, a goroutine reads it for Other.
//
// QUIC that arrives at one socket and is for a connection of another is handed over
// to that; what belongs where package quic knows.
//
// Read in this order: udp.go (the sockets and who uses them), other.go (what is not
// QUIC), handed.go (what is for another socket), reader_linux.go (packets in batches), reader_other.go (other systems).
//
// Specification: RFC 9443 (the first byte), RFC 9000 section 17.2 (the fixed bit).
//
// Limits: see docs/limits.md. Each socket has 512 KiB of room for packets, of which
// the system provides what is used.
package udp
