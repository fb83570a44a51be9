package webrtc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
)

// DTLS 1.2. https://www.rfc-editor.org/rfc/rfc6347.html#section-4.1
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22

	recordHeaderLen = 13
)

// maxCertificate is the longest certificate of a remote that is taken, in bytes.
// WebRTC's have 300 to 1200.
const maxCertificate = 16 << 10

// flightInterval is how long a flight of the handshake waits for an answer before
// it is sent again. pion doubles it.
const flightInterval = 500 * time.Millisecond

func isDTLS(p []byte) bool { return len(p) >= recordHeaderLen && p[0] >= 20 && p[0] <= 63 }

// isClientHello tells whether p starts a DTLS handshake.
func isClientHello(p []byte) bool {
	return len(p) > recordHeaderLen && p[0] == recordHandshake && p[1] == 0xfe && p[3] == 0 && p[4] == 0 && p[recordHeaderLen] == 1
}

// hasCookie tells whether a ClientHello has a cookie. https://www.rfc-editor.org/rfc/rfc6347.html#section-4.2.1
func hasCookie(p []byte) bool {
	const session = recordHeaderLen + 12 + 2 + 32
	if !isClientHello(p) || len(p) <= session {
		return false
	}
	cookie := session + 1 + int(p[session])
	return len(p) > cookie && p[cookie] > 0
}

// lacksSRTP tells whether p starts with a ServerHello without the extension use_srtp.
// https://www.rfc-editor.org/rfc/rfc5764.html#section-4.1.1
func lacksSRTP(p []byte) bool {
	const session = recordHeaderLen + 12 + 2 + 32
	if len(p) <= session || p[0] != recordHandshake || p[recordHeaderLen] != 2 || p[3] != 0 || p[4] != 0 {
		return false
	}
	end := recordHeaderLen + int(binary.BigEndian.Uint16(p[11:]))
	at := session + 1 + int(p[session]) + 2 + 1 + 2 // cipher suite, compression, length of the extensions
	if end > len(p) || at > end+2 {
		return false
	}
	for at+4 <= end {
		if binary.BigEndian.Uint16(p[at:]) == 14 {
			return false
		}
		at += 4 + int(binary.BigEndian.Uint16(p[at+2:]))
	}
	return true
}

// srtpProfiles are all that are in use: https://www.rfc-editor.org/rfc/rfc8827.html#section-6.5
var srtpProfiles = []dtls.SRTPProtectionProfile{
	dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AES128_CM_HMAC_SHA1_32,
}

// quiet is where pion writes its logs: an error is returned, or passes.
var quiet = &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}

// handshake makes the DTLS connection of one side. It ends when ctx does.
func (c *conn) handshake(ctx context.Context, cert tls.Certificate, srtp bool, verify func(der []byte) error) (der []byte, err error) {
	var refused error // why we do not take the remote's certificate; pion may return the alert that follows
	check := func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) != 1 {
			return fmt.Errorf("webrtc: the remote sent %d certificates instead of one", len(raw))
		}
		if len(raw[0]) > maxCertificate {
			return fmt.Errorf("webrtc: the remote's certificate has %d bytes, more than the %d that are taken", len(raw[0]), maxCertificate)
		}
		refused = verify(raw[0])
		return refused
	}
	// No media is sent; but pion's WebRTC, which go-libp2p uses, ends a connection
	// that has not agreed on how, and libdatachannel, which js-libp2p uses, never agrees.
	var profiles []dtls.SRTPProtectionProfile
	if srtp {
		profiles = srtpProfiles
	}
	suites := []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	options := []dtls.Option{
		dtls.WithCertificates(cert), dtls.WithCipherSuites(suites...), dtls.WithInsecureSkipVerify(true),
		dtls.WithVerifyPeerCertificate(check), dtls.WithLoggerFactory(quiet), dtls.WithSRTPProtectionProfiles(profiles...),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret), dtls.WithFlightInterval(flightInterval),
		dtls.WithReplayProtectionWindow(replayWindow),
	}
	var d *dtls.Conn
	if c.dialer {
		var client []dtls.ClientOption
		for _, o := range options {
			client = append(client, o)
		}
		d, err = dtls.ClientWithOptions(c.link, c.link.addr, client...)
	} else {
		server := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for _, o := range options {
			server = append(server, o)
		}
		d, err = dtls.ServerWithOptions(c.link, c.link.addr, server...)
	}
	if err != nil {
		return nil, fmt.Errorf("webrtc: DTLS: %w", err)
	}
	if err := d.HandshakeContext(ctx); err != nil {
		switch {
		case refused != nil:
			err = refused
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		d.Close()
		return nil, fmt.Errorf("webrtc: DTLS handshake: %w", err)
	}
	c.link.secured.Store(true)
	state, ok := d.ConnectionState()
	if !ok || len(state.PeerCertificates) != 1 {
		d.Close()
		return nil, errors.New("webrtc: DTLS handshake: no certificate of the remote")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		d.Close()
		return nil, c.err
	}
	c.dtls = d
	return state.PeerCertificates[0], nil
}

// replayWindow is how far a record may come late, in records.
const replayWindow = 512
