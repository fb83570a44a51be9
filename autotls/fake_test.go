package autotls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// A world is a network without sockets, with an ACME authority, a registration
// service that checks who asks, and a name server, so that a node can be watched in
// the virtual time of a bubble. Everything is called from one test.
type world struct {
	t     *testing.T
	web   *http.Transport
	roots *x509.CertPool
	root  *x509.Certificate
	key   *ecdsa.PrivateKey

	// set by tests, before or while nobody asks
	down     map[string]bool                                   // hosts that do not answer
	life     time.Duration                                     // of certificates
	age      time.Duration                                     // that they have when signed
	instead  func(w http.ResponseWriter, r *http.Request) bool // answers in place of what would
	begins   bool                                              // the service begins the handshake itself
	unlisted bool                                              // the name server knows nothing
	mangle   func(chain [][]byte) [][]byte                     // what is handed out

	mu       sync.Mutex
	steps    int // of the test
	hosts    map[string]chan net.Conn
	records  map[string]string // what the name server knows
	csr      *x509.CertificateRequest
	token    int // of the order that is open
	accepted bool
	orders   []time.Time
	accounts map[string]int // by key: how often registered
	told     []string       // the addresses that the service was told last
	bearers  int            // requests that needed no handshake
	service  authServer
}

const (
	testCA      = "acme.test"
	testService = "registration.test"
)

// newWorld must be called in the bubble. It ends with the test.
func newWorld(t *testing.T) *world {
	w := &world{
		t:        t,
		roots:    x509.NewCertPool(),
		life:     90 * 24 * time.Hour,
		down:     make(map[string]bool),
		hosts:    make(map[string]chan net.Conn),
		records:  make(map[string]string),
		accounts: make(map[string]int),
	}
	w.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.root = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	w.root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, w.root, w.root, w.key.Public(), w.key))))
	w.roots.AddCert(w.root)
	w.service = authServer{key: newKey(t, peer.Ed25519)}
	w.web = &http.Transport{DialContext: w.dial, TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	w.serve(testCA, http.HandlerFunc(w.authority))
	w.serve(testService, http.HandlerFunc(w.registration))
	return w
}

// manager returns one that lives in the world.
func (w *world) manager(change func(*Config)) *Manager {
	w.t.Helper()
	cfg := w.config()
	if change != nil {
		change(&cfg)
	}
	return must(New(cfg))
}

func (w *world) config() Config {
	return Config{
		Key:          newKey(w.t, peer.Ed25519),
		Addrs:        func() []multiaddr.Addr { return []multiaddr.Addr{multiaddr.MustParse("/ip4/1.2.3.4/tcp/4001")} },
		Directory:    "https://" + testCA + "/directory",
		Registration: "https://" + testService,
		HTTP:         &http.Client{Transport: w.web},
		Resolver:     &net.Resolver{PreferGo: true, Dial: w.dialDNS},
	}
}

func (w *world) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	w.mu.Lock()
	down := w.down[host]
	w.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("no route to %s", host)}
	}
	here, there := net.Pipe()
	select {
	case w.hosts[host] <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// after sleeps, and waits until what happens then has happened. What the test did
// before is seen by whoever locks the world then.
func (w *world) after(d time.Duration) {
	w.mu.Lock()
	w.steps++
	w.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
}

// locked reads what the test changes.
func locked[T any](w *world, v *T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *v
}

func (w *world) setDown(host string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[host] = down
	w.web.CloseIdleConnections()
}

func (w *world) serve(host string, h http.Handler) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := tls.Certificate{Certificate: w.sign(&x509.Certificate{DNSNames: []string{host}}, key.Public(), 20*365*24*time.Hour), PrivateKey: key}
	conns := make(chan net.Conn)
	w.hosts[host] = conns
	l := tls.NewListener(&pipeListener{conns: conns, done: make(chan struct{})}, &tls.Config{Certificates: []tls.Certificate{cert}})
	s := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if instead := locked(w, &w.instead); instead == nil || !instead(rw, r) {
				h.ServeHTTP(rw, r)
			}
		}),
	}
	go s.Serve(l)
	w.t.Cleanup(func() {
		w.web.CloseIdleConnections()
		s.Close()
	})
}

// sign returns the chain for a template.
func (w *world) sign(c *x509.Certificate, key any, life time.Duration) [][]byte {
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now()
	}
	c.NotAfter = c.NotBefore.Add(life)
	return [][]byte{must(x509.CreateCertificate(rand.Reader, c, w.root, key, w.key))}
}

// authority is what of ACME this node uses. It checks that the steps come in order
// and that the record is published; signatures are for the real authority, in the
// interop module.
func (w *world) authority(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	base := "https://" + testCA
	rw.Header().Set("Replay-Nonce", "nonce")
	var jws struct{ Protected, Payload string }
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
	}
	payload := must(base64.RawURLEncoding.DecodeString(jws.Payload))
	say := func(status int, v any) {
		rw.WriteHeader(status)
		json.NewEncoder(rw).Encode(v)
	}
	order := func() map[string]any {
		o := map[string]any{"status": "pending", "authorizations": []string{base + "/authz"}, "finalize": base + "/finalize"}
		if w.accepted {
			o["status"] = "ready"
		}
		if w.csr != nil {
			o["status"], o["certificate"] = "valid", base+"/cert"
		}
		rw.Header().Set("Location", base+"/order")
		return o
	}
	switch r.URL.Path {
	case "/directory":
		say(200, map[string]any{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/new-order",
			"meta": map[string]any{"termsOfService": base + "/terms"}})
	case "/nonce":
	case "/account":
		var protected struct{ JWK json.RawMessage }
		if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(jws.Protected)), &protected); err != nil {
			w.t.Error(err)
		}
		rw.Header().Set("Location", base+"/account/1")
		w.accounts[string(protected.JWK)]++
		if w.accounts[string(protected.JWK)] > 1 {
			say(200, map[string]any{"status": "valid"})
		} else {
			say(201, map[string]any{"status": "valid"})
		}
	case "/new-order":
		w.token++
		w.accepted, w.csr = false, nil
		w.orders = append(w.orders, time.Now())
		say(201, order())
	case "/order":
		say(200, order())
	case "/authz":
		status := "pending"
		if w.accepted {
			status = "valid"
		}
		say(200, map[string]any{"status": status, "challenges": []map[string]any{
			{"type": "http-01", "url": base + "/other", "token": "x", "status": "pending"},
			{"type": "dns-01", "url": base + "/challenge", "token": fmt.Sprint("token", w.token), "status": status},
		}})
	case "/challenge":
		w.accepted = len(w.records) > 0
		say(200, map[string]any{"type": "dns-01", "status": "processing", "url": base + "/challenge", "token": "t"})
	case "/finalize":
		var req struct{ CSR string }
		if err := json.Unmarshal(payload, &req); err != nil || !w.accepted {
			w.t.Errorf("finalize: %v, accepted %v", err, w.accepted)
		}
		w.csr = must(x509.ParseCertificateRequest(must(base64.RawURLEncoding.DecodeString(req.CSR))))
		say(200, order())
	case "/cert":
		chain := w.sign(&x509.Certificate{DNSNames: w.csr.DNSNames, NotBefore: time.Now().Add(-w.age)}, w.csr.PublicKey, w.life)
		if w.mangle != nil {
			chain = w.mangle(chain)
		}
		rw.WriteHeader(200)
		for _, der := range chain {
			pem.Encode(rw, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	default:
		w.t.Errorf("the authority is asked for %s", r.URL)
		http.NotFound(rw, r)
	}
}

// registration publishes challenges for those who prove who they are.
func (w *world) registration(rw http.ResponseWriter, r *http.Request) {
	body := must(io.ReadAll(r.Body))
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path != challengePath || r.Method != http.MethodPost {
		w.t.Errorf("the service is asked to %s %s", r.Method, r.URL)
	}
	id, fresh, ok := w.service.authenticate(rw, r, w.begins)
	if !ok {
		if len(body) > 0 && !strings.Contains(r.Header.Get("Authorization"), "bearer") {
			w.t.Error("the challenge was sent before the service had shown its key")
		}
		return
	}
	if !fresh {
		w.bearers++
	}
	var req struct {
		Value     string
		Addresses []string
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	if value, err := base64.RawURLEncoding.DecodeString(req.Value); err != nil || len(value) != 32 {
		w.t.Errorf("the challenge's value is %q", req.Value)
	}
	w.told = req.Addresses
	w.records["_acme-challenge."+label(id)+"."+DefaultDomain+"."] = req.Value
}

// dialDNS connects to the name server, over TCP.
func (w *world) dialDNS(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		var size [2]byte
		for {
			if _, err := io.ReadFull(there, size[:]); err != nil {
				return
			}
			packet := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(there, packet); err != nil {
				return
			}
			var msg dnsmessage.Message
			if err := msg.Unpack(packet); err != nil {
				w.t.Error(err)
				return
			}
			w.mu.Lock()
			value, ok := w.records[msg.Questions[0].Name.String()]
			ok = ok && !w.unlisted
			w.mu.Unlock()
			msg.Response, msg.Authoritative, msg.Additionals = true, true, nil
			head := dnsmessage.ResourceHeader{Name: msg.Questions[0].Name, Type: msg.Questions[0].Type, Class: dnsmessage.ClassINET}
			switch {
			case head.Type == dnsmessage.TypeNS:
				for i := range 10 {
					msg.Answers = append(msg.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.NSResource{
						NS: dnsmessage.MustNewName(fmt.Sprintf("ns%d.%s.", i, DefaultDomain)),
					}})
				}
			case ok:
				msg.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{value}}}}
			default:
				msg.RCode = dnsmessage.RCodeNameError
			}
			packet = must(msg.Pack())
			if _, err := there.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)); err != nil {
				return
			}
		}
	}()
	return here, nil
}

// An authServer is the other side of an authClient, without its bounds.
type authServer struct {
	key     peer.PrivateKey
	expired bool // no token is accepted
	forged  bool // signatures are wrong

	clients map[string]string // by challenge: the client's key; or, by token: the client's ID
}

const testChallenge = "0123456789abcdef0123456789abcdef"

// authenticate answers, unless ok. fresh tells that a handshake was needed.
func (s *authServer) authenticate(rw http.ResponseWriter, r *http.Request, begins bool) (id peer.ID, fresh, ok bool) {
	if s.clients == nil {
		s.clients = make(map[string]string)
	}
	p, err := parseAuth(r.Header.Values("Authorization"))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return id, false, false
	}
	us := s.key.Public().Marshal()
	host := r.TLS.ServerName
	sign := func(challenge, client string) string {
		if s.forged {
			challenge += "x"
		}
		return encode64(must(s.key.Sign(signed("challenge-server", challenge, "client-public-key", client, "hostname", host))))
	}
	token := func(key peer.PublicKey) string {
		t := newChallenge()
		s.clients[t] = key.ID().String()
		return t
	}
	switch {
	case p.bearer != "":
		if who, ok := s.clients[p.bearer]; ok && !s.expired {
			return must(peer.ParseID(who)), false, true
		}
		begins = true
		fallthrough
	case p.sig == "" && (begins || p.challengeServer == ""):
		rw.Header().Set("WWW-Authenticate", authHeader("challenge-client", testChallenge, "public-key", encode64(us), "opaque", `a "state" \ of ours`))
	case p.sig == "":
		key := string(must(decode64(p.publicKey)))
		opaque := newChallenge()
		s.clients[opaque] = key
		rw.Header().Add("WWW-Authenticate", `Basic realm="others, too"`)
		rw.Header().Add("WWW-Authenticate", authHeader("challenge-client", testChallenge, "public-key", encode64(us), "opaque", opaque, "sig", sign(p.challengeServer, key)))
	default:
		client, first := s.clients[p.opaque]
		if !first {
			client = string(must(decode64(p.publicKey)))
			if p.opaque != `a "state" \ of ours` {
				http.Error(rw, "opaque is "+p.opaque, http.StatusBadRequest)
				return id, false, false
			}
		}
		key := must(peer.UnmarshalPublicKey([]byte(client)))
		if !key.Verify(signed("challenge-client", testChallenge, "hostname", host, "server-public-key", string(us)), must(decode64(p.sig))) {
			break
		}
		if first {
			rw.Header().Set("Authentication-Info", authHeader("bearer", token(key)))
		} else {
			rw.Header().Set("Authentication-Info", authHeader("bearer", token(key), "sig", sign(p.challengeServer, client)))
		}
		return key.ID(), true, true
	}
	rw.WriteHeader(http.StatusUnauthorized)
	return id, false, false
}

// A pipeListener accepts what is sent on conns.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func newKey(t testing.TB, typ peer.KeyType) peer.PrivateKey {
	t.Helper()
	key, err := peer.GenerateKey(typ)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// must is for what cannot fail in a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
