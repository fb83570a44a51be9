// Package websocket carries connections over WebSockets, as they are what a web
// page can open, and pass where only web traffic does.
//
// Addresses are /ws on plain TCP, and /tls/ws or /wss, which mean the same, with
// TLS; /tls/sni/NAME/ws names whose certificate is expected where IP addresses
// come before it. Before these stand /ip4, /ip6, /dns, /dns4 or /dns6 and /tcp,
// without which ports 80 and 443 are meant; behind them can stand /http-path when
// dialing. A listener's address is written with /tls/ws.
//
// Inside the WebSocket the connection is secured and muxed as everywhere else, also
// where TLS is around it: the certificate of TLS says nothing of the peer's ID.
//
// A listener takes WebSockets at any path and from pages of any origin: a page has
// no more rights with us than any other stranger, there are no cookies or
// addresses by which we would trust it, and peers of the web come from everywhere.
// All other requests are for Config.Handler.
//
// In a browser (GOOS=js), the package dials through the browser's own WebSocket,
// and cannot listen.
//
// Read in this order: address.go, transport.go, dial.go, listen.go, conn.go,
// socket.go, socket_unix.go; for the browser browser_js.go.
//
// Specification: https://github.com/libp2p/specs/blob/master/websockets/README.md, r0, 2024-10-23.
//
// Not implemented: WebSockets over HTTP/2 and HTTP/3, and compression, which has
// nothing to gain from encrypted data.
package websocket
