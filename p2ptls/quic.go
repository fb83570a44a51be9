package p2ptls

import (
	"crypto/tls"
	"errors"

	"github.com/kith-p2p/kith/peer"
)

// QUICConfig returns the configuration for a QUIC connection, in either role: the
// same certificates and checks as here, the application protocol "libp2p" and no
// muxer, since QUIC has streams. remote is who must answer, zero for anyone; a
// listener is for anyone. RemoteKey tells who has.
// https://github.com/libp2p/specs/blob/master/quic/README.md
func (t *Transport) QUICConfig(remote peer.ID) *tls.Config {
	return t.config(func(state tls.ConnectionState) error {
		// Not the handshake of one connection: a listener has one configuration for all.
		return (&handshake{remote: remote}).verify(state)
	}, []string{alpn})
}

// RemoteKey returns the key of the peer at the other end of a connection that was
// made with QUICConfig. It reads the key from the certificate that the handshake
// has verified, and does not verify it again.
func RemoteKey(state tls.ConnectionState) (peer.PublicKey, error) {
	if !state.HandshakeComplete || len(state.PeerCertificates) != 1 {
		return peer.PublicKey{}, errors.New("p2ptls: RemoteKey needs the state of a finished handshake")
	}
	key, _, err := certificateKey(state.PeerCertificates[0])
	return key, err
}
