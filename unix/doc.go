// Package unix carries connections over Unix domain sockets, within one machine:
// addresses of the form /unix/PATH. Connections are secured and muxed as everywhere
// else, so peers know each other's IDs, and a pre-shared key works too.
//
// PATH is absolute: /unix/run/kith.sock is the file /run/kith.sock, and on Windows,
// /unix/C:/kith.sock is C:\kith.sock. A path extends to the end of its address,
// so nothing can follow it, not even /p2p/ID: the peer is named beside the address,
// in a peer.AddrInfo.
//
// # Who may connect
//
// Who may connect is who may write to the socket's file, on the systems that look
// at its mode (Linux, macOS), and who may enter its directory, on all. By default the
// umask decides; with the usual one that is the owner alone. Config.Mode changes it.
//
// # The file
//
// Listen makes the file and Close removes it, unless another has taken its place. A
// process that was killed leaves its file behind, to which nobody listens any more:
// Listen removes such a file, but none that is not a socket, or that answers. While it
// does, it holds a lock of the directory, so that of several one wins.
//
// # Limits
//
// A path has at most 107 bytes (103 on macOS and the BSDs), which is the system's
// limit. The listening queue is the system's.
//
// The dialing end of a connection has no address: both sides know it by that of the
// listener.
//
// Read in this order: unix.go, file.go, lock_*.go.
//
// Specification: https://github.com/multiformats/multiaddr/blob/master/protocols/unix.md
// names the address; libp2p has no more about it.
//
// Not implemented: Linux's abstract sockets, which an address cannot name.
package unix
