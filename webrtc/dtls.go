package webrtc

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
)

// DTLS 1.2. https://www.rfc-editor.org/rfc/rfc6347.html#section-4.1
const (
	recordAlert       = 21
	recordHandshake   = 22
	recordApplication = 23

	recordHeaderLen = 13
	nonceLen        = 8
	tagLen          = 16
	recordOverhead  = recordHeaderLen + nonceLen + tagLen

	alertCloseNotify = 0

	// firstRecord is the number of our first record. pion has sent some with the
	// same key by then, and may repeat its last flight; it will never send as many.
	firstRecord = 1 << 20
)

// Bounds of a handshake that is under way.
const (
	// handshakeQueue is how many packets wait for pion; more are lost, and sent
	// again. The longest flight, with a certificate chain of 16 KiB, has 14.
	handshakeQueue = 32

	// earlyRecords is how many packets with data wait for the keys: they can
	// overtake the last flight.
	earlyRecords = 8

	// maxCertificate is the longest certificate of a remote that is taken, in
	// bytes. WebRTC's have 300 to 1200.
	maxCertificate = 16 << 10
)

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

// handshakeConn is the connection that pion sees while it shakes hands. It is a
// net.PacketConn.
type handshakeConn struct {
	send   func(p []byte)
	local  net.Addr
	remote net.Addr
	in     chan []byte
	proved atomic.Bool // a ClientHello had a cookie
	noSRTP atomic.Bool // a ServerHello does not speak of SRTP

	mu       sync.Mutex
	closed   bool
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes, or the connection closes
}

func newHandshakeConn(send func([]byte), local, remote net.Addr) *handshakeConn {
	return &handshakeConn{send: send, local: local, remote: remote, in: make(chan []byte, handshakeQueue), changed: make(chan struct{})}
}

// deliver gives pion a packet, unless too many wait.
func (h *handshakeConn) deliver(p []byte) {
	if !h.proved.Load() && hasCookie(p) {
		h.proved.Store(true)
	}
	if lacksSRTP(p) {
		h.noSRTP.Store(true)
	}
	select {
	case h.in <- bytes.Clone(p):
	default:
	}
}

func (h *handshakeConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		h.mu.Lock()
		closed, deadline, changed := h.closed, h.deadline, h.changed
		h.mu.Unlock()
		if closed {
			return 0, nil, net.ErrClosed
		}
		var expired <-chan time.Time
		if !deadline.IsZero() {
			wait := time.Until(deadline)
			if wait <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			expired = time.After(wait)
		}
		select {
		case p := <-h.in:
			return copy(b, p), h.remote, nil
		case <-changed:
		case <-expired:
		}
	}
}

func (h *handshakeConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	h.send(p)
	return len(p), nil
}

func (h *handshakeConn) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.changed)
	}
	return nil
}

func (h *handshakeConn) LocalAddr() net.Addr              { return h.local }
func (h *handshakeConn) SetWriteDeadline(time.Time) error { return nil }
func (h *handshakeConn) SetDeadline(t time.Time) error    { return h.SetReadDeadline(t) }

func (h *handshakeConn) SetReadDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return net.ErrClosed
	}
	h.deadline = t
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// shake runs the DTLS handshake of one side. For a listener, the pion connection
// it returns has to stay until data has come: it repeats the last flight if the
// dialer did not get it.
func shake(ctx context.Context, h *handshakeConn, cert tls.Certificate, dialer, srtp bool, verify func(der []byte) error) (*dtls.Conn, *recordLayer, []byte, error) {
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
	suites := []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	logs := &logging.DefaultLoggerFactory{Writer: discard{}, DefaultLogLevel: logging.LogLevelDisabled}
	// No media is sent; but pion's WebRTC, which go-libp2p uses, ends a connection
	// that has not agreed on how, and libdatachannel, which js-libp2p uses, never agrees.
	var profiles []dtls.SRTPProtectionProfile
	if srtp {
		profiles = srtpProfiles
	}
	var conn *dtls.Conn
	var err error
	if dialer {
		conn, err = dtls.ClientWithOptions(h, h.remote,
			dtls.WithCertificates(cert), dtls.WithCipherSuites(suites...), dtls.WithInsecureSkipVerify(true),
			dtls.WithVerifyPeerCertificate(check), dtls.WithLoggerFactory(logs), dtls.WithSRTPProtectionProfiles(profiles...),
			dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret), dtls.WithFlightInterval(flightInterval))
	} else {
		conn, err = dtls.ServerWithOptions(h, h.remote,
			dtls.WithCertificates(cert), dtls.WithCipherSuites(suites...), dtls.WithClientAuth(dtls.RequireAnyClientCert),
			dtls.WithVerifyPeerCertificate(check), dtls.WithLoggerFactory(logs), dtls.WithSRTPProtectionProfiles(profiles...),
			dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret), dtls.WithFlightInterval(flightInterval))
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("webrtc: DTLS: %w", err)
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		switch {
		case refused != nil:
			err = refused
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		h.Close()
		conn.Close()
		return nil, nil, nil, fmt.Errorf("webrtc: DTLS handshake: %w", err)
	}
	state, ok := conn.ConnectionState()
	if !ok || len(state.PeerCertificates) != 1 {
		h.Close()
		conn.Close()
		return nil, nil, nil, errors.New("webrtc: DTLS handshake: no certificate of the remote")
	}
	layer, err := newRecordLayer(&state)
	if err != nil {
		h.Close()
		conn.Close()
		return nil, nil, nil, err
	}
	return conn, layer, state.PeerCertificates[0], nil
}

// flightInterval is how long a flight of the handshake waits for an answer before
// it is sent again. pion doubles it.
const flightInterval = 500 * time.Millisecond

// srtpProfiles are all that are in use: https://www.rfc-editor.org/rfc/rfc8827.html#section-6.5
var srtpProfiles = []dtls.SRTPProtectionProfile{
	dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AES128_CM_HMAC_SHA1_32,
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A recordLayer encrypts and decrypts what follows the handshake, in place.
// pion's needs a goroutine, a copy and several allocations for each packet.
type recordLayer struct {
	seal, open     cipher.AEAD
	sealIV, openIV [4]byte
	next           uint64 // the number of the next record that is sent

	// the window of records received: bit i of seen is record highest-i
	highest uint64
	seen    [replayWindow / 64]uint64
}

// replayWindow is how far a record may come late, in records. SCTP would discard
// repetitions too.
const replayWindow = 512

// newRecordLayer derives the keys from what the handshake agreed on.
// https://www.rfc-editor.org/rfc/rfc5246.html#section-6.3 and RFC 5288
func newRecordLayer(state *dtls.State) (*recordLayer, error) {
	exported, err := state.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("webrtc: DTLS state: %w", err)
	}
	var s struct {
		LocalRandom, RemoteRandom [32]byte
		MasterSecret              []byte
		IsClient                  bool
	}
	if err := gob.NewDecoder(bytes.NewReader(exported)).Decode(&s); err != nil {
		return nil, fmt.Errorf("webrtc: DTLS state: %w", err)
	}
	client, server := s.LocalRandom, s.RemoteRandom
	if !s.IsClient {
		client, server = server, client
	}
	seed := append([]byte("key expansion"), server[:]...)
	keys := expand(s.MasterSecret, append(seed, client[:]...), 2*16+2*4)
	clientKey, serverKey, clientIV, serverIV := keys[:16], keys[16:32], keys[32:36], keys[36:40]
	r := &recordLayer{next: firstRecord}
	if s.IsClient {
		r.seal, r.open = aead(clientKey), aead(serverKey)
		r.sealIV, r.openIV = [4]byte(clientIV), [4]byte(serverIV)
	} else {
		r.seal, r.open = aead(serverKey), aead(clientKey)
		r.sealIV, r.openIV = [4]byte(serverIV), [4]byte(clientIV)
	}
	return r, nil
}

// aead is AES-128-GCM; neither call fails for a key of 16 bytes.
func aead(key []byte) cipher.AEAD {
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCM(block)
	return gcm
}

// expand is P_SHA256 of RFC 5246, section 5.
func expand(secret, seed []byte, n int) []byte {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	var out []byte
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// start appends the room that a record needs before its content.
func (r *recordLayer) start(b []byte) []byte {
	return append(b, make([]byte, recordHeaderLen+nonceLen)...)
}

// finish encrypts the record that starts at b[at:], whose content is all that follows.
func (r *recordLayer) finish(b []byte, at int, kind byte) []byte {
	b = slices.Grow(b, tagLen)
	record := b[at:]
	content := record[recordHeaderLen+nonceLen:]
	number := 1<<48 | r.next // epoch 1
	r.next++
	record[0], record[1], record[2] = kind, 0xfe, 0xfd
	binary.BigEndian.PutUint64(record[3:], number)
	binary.BigEndian.PutUint16(record[11:], uint16(nonceLen+len(content)+tagLen))
	binary.BigEndian.PutUint64(record[recordHeaderLen:], number)
	var nonce [12]byte
	copy(nonce[:], r.sealIV[:])
	binary.BigEndian.PutUint64(nonce[4:], number)
	var aad [recordHeaderLen]byte
	recordAAD(&aad, number, kind, len(content))
	sealed := r.seal.Seal(content[:0], nonce[:], content, aad[:])
	return b[:at+recordHeaderLen+nonceLen+len(sealed)]
}

func recordAAD(aad *[recordHeaderLen]byte, number uint64, kind byte, n int) {
	binary.BigEndian.PutUint64(aad[:], number)
	aad[8], aad[9], aad[10] = kind, 0xfe, 0xfd
	binary.BigEndian.PutUint16(aad[11:], uint16(n))
}

// decrypt splits the first record off p and decrypts it in place. content is nil
// if it is not authentic, was there before or belongs to the handshake.
func (r *recordLayer) decrypt(p []byte) (kind byte, content, rest []byte) {
	if len(p) < recordHeaderLen {
		return 0, nil, nil
	}
	n := int(binary.BigEndian.Uint16(p[11:]))
	if n > len(p)-recordHeaderLen {
		return 0, nil, nil
	}
	body, rest := p[recordHeaderLen:recordHeaderLen+n], p[recordHeaderLen+n:]
	kind = p[0]
	number := binary.BigEndian.Uint64(p[3:])
	if number>>48 != 1 || n < nonceLen+tagLen || p[1] != 0xfe || p[2] != 0xfd {
		return kind, nil, rest
	}
	index := number & (1<<48 - 1)
	if r.repeated(index) {
		return kind, nil, rest
	}
	var nonce [12]byte
	copy(nonce[:], r.openIV[:])
	copy(nonce[4:], body[:nonceLen])
	var aad [recordHeaderLen]byte
	recordAAD(&aad, number, kind, n-nonceLen-tagLen)
	sealed := body[nonceLen:]
	content, err := r.open.Open(sealed[:0], nonce[:], sealed, aad[:])
	if err != nil {
		return kind, nil, rest
	}
	r.mark(index)
	return kind, content, rest
}

func (r *recordLayer) repeated(n uint64) bool {
	if n > r.highest {
		return false
	}
	age := r.highest - n
	return age >= replayWindow-64 || // its word may be in use again
		r.seen[n/64%(replayWindow/64)]&(1<<(n%64)) != 0
}

// mark notes that n was received. Words of the window that n moves past are cleared.
func (r *recordLayer) mark(n uint64) {
	if n > r.highest {
		from, to := r.highest/64, n/64
		for w := from + 1; w <= to && w <= from+replayWindow/64; w++ {
			r.seen[w%(replayWindow/64)] = 0
		}
		r.highest = n
	}
	r.seen[n/64%(replayWindow/64)] |= 1 << (n % 64)
}
