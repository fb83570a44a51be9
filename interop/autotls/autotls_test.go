package autotls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	httppeeridauth "github.com/libp2p/go-libp2p/p2p/http/auth"
	gows "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	kithtls "github.com/kith-p2p/kith/autotls"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/tcp"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

const (
	domain      = "libp2p.direct"
	caName      = "acme.test"
	serviceName = "registration.test"
	// tokenTTL is so short that a renewal finds its token expired.
	tokenTTL = 3 * time.Second
	// patience is how long the parts have to answer each other.
	patience = 30 * time.Second
)

// A world is an authority, a registration service and a name server.
type world struct {
	web   http.RoundTripper // to the authority and the service
	root  *x509.CertPool    // of the certificates that the authority signs
	names string            // where the name server listens
	renew time.Duration     // how long before the end nodes renew; zero: as they do by default

	mu     sync.Mutex
	values map[string]string // challenges by name
	dialed []string          // peers that the service has connected to
}

// newWorld makes one whose certificates live that long.
func newWorld(t *testing.T, life time.Duration) *world {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	w := &world{values: make(map[string]string), root: x509.NewCertPool()}
	w.names = w.nameServer(t)

	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 2, map[string]ca.Profile{"default": {ValidityPeriod: uint64(life / time.Second)}})
	w.root.AddCert(authority.GetRootCert(0).Cert)
	checker := va.New(quiet, 80, 443, true, w.names, store)
	front := wfe.New(quiet, store, checker, authority, []string{"pebble.test"}, true, false, 1, 1)

	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	check(t, err)
	service := http.NewServeMux()
	service.Handle("POST /v1/_acme-challenge", &httppeeridauth.ServerPeerIDAuth{PrivKey: key, TokenTTL: tokenTTL, Next: w.register})

	roots := x509.NewCertPool()
	at := map[string]string{
		caName + ":443":      serve(t, caName, roots, front.Handler()),
		serviceName + ":443": serve(t, serviceName, roots, service),
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, at[addr])
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	w.web = transport
	return w
}

// serve runs a server with a certificate of its own, which is added to roots.
func serve(t *testing.T, name string, roots *x509.CertPool, h http.Handler) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	roots.AddCert(cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	check(t, err)
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// register is what the real service does for a peer that has proved who it is:
// https://github.com/ipshipyard/p2p-forge, acme/writer.go.
func (w *world) register(id gopeer.ID, rw http.ResponseWriter, r *http.Request) {
	refuse := func(err error) { http.Error(rw, err.Error(), http.StatusBadRequest) }
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(err)
		return
	}
	var req struct {
		Value     string   `json:"value"`
		Addresses []string `json:"addresses"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		refuse(err)
		return
	}
	if value, err := base64.RawURLEncoding.DecodeString(req.Value); err != nil || len(value) != 32 {
		refuse(fmt.Errorf("%q is no SHA-256 digest: %v", req.Value, err))
		return
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	if err != nil {
		refuse(err)
		return
	}
	defer h.Close()
	to := gopeer.AddrInfo{ID: id}
	for _, s := range req.Addresses {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			refuse(err)
			return
		}
		to.Addrs = append(to.Addrs, a)
	}
	if err := h.Connect(r.Context(), to); err != nil {
		refuse(fmt.Errorf("error testing addresses: %w", err))
		return
	}
	name, err := gopeer.ToCid(id).StringOfBase('k')
	if err != nil {
		refuse(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialed = append(w.dialed, id.String())
	w.values["_acme-challenge."+name+"."+domain+"."] = req.Value
}

// nameServer answers for the domain: challenges, and addresses as they are written
// in names.
func (w *world) nameServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(q)
		reply.Authoritative = true
		name, head := strings.ToLower(q.Question[0].Name), dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 1}
		switch q.Question[0].Qtype {
		case dns.TypeTXT:
			w.mu.Lock()
			value, ok := w.values[name]
			w.mu.Unlock()
			if ok {
				reply.Answer = []dns.RR{&dns.TXT{Hdr: head, Txt: []string{value}}}
			}
		case dns.TypeA:
			first, _, _ := strings.Cut(name, ".")
			if ip, err := netip.ParseAddr(strings.ReplaceAll(first, "-", ".")); err == nil {
				reply.Answer = []dns.RR{&dns.A{Hdr: head, A: ip.AsSlice()}}
			}
		}
		rw.WriteMsg(reply)
	})}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	return l.Addr().String()
}

// resolver asks the world's name server.
func (w *world) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", w.names)
	}}
}

// A node is a Kith host that go-libp2p can dial, with a Manager that is not
// running.
type node struct {
	*kithtls.Manager
	host   *host.Host
	id     peer.ID
	events chan kithtls.Status
}

func (w *world) newNode(t *testing.T, dir string, key peer.PrivateKey) *node {
	n := &node{id: key.ID(), events: make(chan kithtls.Status, 100)}
	var err error
	n.Manager, err = kithtls.New(kithtls.Config{
		Key:          key,
		Addrs:        func() []multiaddr.Addr { return n.host.Addrs() },
		Dir:          dir,
		Directory:    "https://" + caName + "/dir",
		Registration: "https://" + serviceName,
		Email:        "node@kith.test",
		RenewBefore:  w.renew,
		AnyAddr:      true,
		HTTP:         &http.Client{Transport: w.web},
		Resolver:     w.resolver(),
		Changed:      func(s kithtls.Status) { n.events <- s },
	})
	check(t, err)
	n.host = newHost(t, key, websocket.Config{TLS: n.TLSConfig()}, n.Announce)
	check(t, n.host.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0")))
	check(t, n.host.Listen(multiaddr.MustParse("/ip4/127.0.0.1/tcp/0/tls/ws")))
	return n
}

// newHost makes one that has TCP and WebSocket.
func newHost(t *testing.T, key peer.PrivateKey, ws websocket.Config, announce func([]multiaddr.Addr) []multiaddr.Addr) *host.Host {
	noise, err := upgrade.Noise(key)
	check(t, err)
	upgrader, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}})
	check(t, err)
	plain, err := tcp.New(tcp.Config{Upgrader: upgrader})
	check(t, err)
	ws.Upgrader = upgrader
	secure, err := websocket.New(ws)
	check(t, err)
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{plain, secure}, Announce: announce})
	check(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

// run runs the manager until the test, or stop, ends it.
func (n *node) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// obtained waits for a certificate.
func (n *node) obtained(t *testing.T) kithtls.Status {
	t.Helper()
	select {
	case s := <-n.events:
		check(t, s.Err)
		return s
	case <-time.After(patience):
		t.Fatalf("no certificate: %+v", n.Status())
	}
	panic("unreachable")
}

// Peers of each key type get certificates, whose whole chain a client that knows
// nothing but the authority's root accepts, at the name that leads to the node.
func TestCertificate(t *testing.T) {
	w := newWorld(t, 24*time.Hour)
	for _, typ := range []peer.KeyType{peer.Ed25519, peer.Secp256k1, peer.ECDSA, peer.RSA} {
		t.Run(typ.String(), func(t *testing.T) {
			n := w.newNode(t, t.TempDir(), newKey(t, typ))
			if addrs := n.host.Addrs(); len(addrs) != 1 || addrs[0].Has(multiaddr.TLS) {
				t.Errorf("announced before there is a certificate: %v", addrs)
			}
			n.run(t)
			status := n.obtained(t)
			if !slices.Contains(w.dialed, n.id.String()) {
				t.Errorf("the service has dialed %v", w.dialed)
			}

			var secure []multiaddr.Addr
			for _, a := range n.host.Addrs() {
				if a.Has(multiaddr.TLS) {
					secure = append(secure, a)
				}
			}
			if len(secure) != 1 {
				t.Fatalf("announced %v", secure)
			}
			ap, _, _ := secure[0].AddrPort()
			name := "127-0-0-1." + status.Domain
			if want := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/tls/sni/%s/ws", ap.Port(), name); secure[0].String() != want {
				t.Fatalf("announced %v, want %s", secure[0], want)
			}

			// What a browser does: it asks for the name's address.
			conn, err := (&tls.Dialer{
				NetDialer: &net.Dialer{Resolver: w.resolver()},
				Config:    &tls.Config{RootCAs: w.root},
			}).DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", name, ap.Port()))
			check(t, err)
			leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
			conn.Close()
			if !leaf.NotAfter.Equal(status.NotAfter) || !slices.Equal(leaf.DNSNames, []string{"*." + status.Domain}) {
				t.Errorf("certificate for %v until %v", leaf.DNSNames, leaf.NotAfter)
			}

			// Kith and go-libp2p, which trust nothing but the authority's root.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c := newHost(t, newKey(t, peer.Ed25519), websocket.Config{ClientTLS: &tls.Config{RootCAs: w.root}}, nil)
			_, err = c.Connect(ctx, peer.AddrInfo{ID: n.id, Addrs: secure})
			check(t, err)
			g, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Transport(gows.New, gows.WithTLSClientConfig(&tls.Config{RootCAs: w.root})))
			check(t, err)
			defer g.Close()
			to, err := gopeer.AddrInfoFromString(secure[0].String() + "/p2p/" + n.id.String())
			check(t, err)
			check(t, g.Connect(ctx, *to))

			stranger := newHost(t, newKey(t, peer.Ed25519), websocket.Config{ClientTLS: &tls.Config{RootCAs: x509.NewCertPool()}}, nil)
			if _, err := stranger.Connect(ctx, peer.AddrInfo{ID: n.id, Addrs: secure}); err == nil {
				t.Error("somebody who does not know the authority has connected")
			}
		})
	}
}

// A certificate is renewed before it ends, and the last one is there after a
// restart.
func TestRenewAndRestart(t *testing.T) {
	w := newWorld(t, 12*time.Second)
	w.renew = 6 * time.Second
	dir, key := t.TempDir(), newKey(t, peer.Ed25519)
	n := w.newNode(t, dir, key)
	stop := n.run(t)
	first := n.obtained(t)
	last := n.obtained(t)
	if !last.NotAfter.After(first.NotAfter) {
		t.Errorf("renewed until %v, after %v", last.NotAfter, first.NotAfter)
	}
	stop()
	for len(n.events) > 0 {
		last = n.obtained(t)
	}
	if got := w.newNode(t, dir, key).Status().NotAfter; !got.Equal(last.NotAfter) {
		t.Errorf("after a restart a certificate until %v is held, want %v", got, last.NotAfter)
	}
}

// The service refuses a node that it cannot dial, and the error tells what to do.
func TestNotReachable(t *testing.T) {
	w := newWorld(t, time.Hour)
	n, other := w.newNode(t, "", newKey(t, peer.Ed25519)), w.newNode(t, "", newKey(t, peer.Ed25519))
	n.host = other.host // another peer answers
	n.run(t)
	select {
	case s := <-n.events:
		if s.Err == nil || !strings.Contains(s.Err.Error(), "error testing addresses") || !strings.Contains(s.Err.Error(), "forward the ports") || !s.Next.After(time.Now()) {
			t.Errorf("%+v", s)
		}
	case <-time.After(patience):
		t.Error("the attempt does not end")
	}
}

func newKey(t *testing.T, typ peer.KeyType) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(typ)
	check(t, err)
	return key
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
