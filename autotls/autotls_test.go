package autotls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	// Package net makes the channel of its configuration with the first lookup, which
	// must not be in a bubble.
	none := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }}
	none.LookupTXT(t.Context(), "warm.test.")
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

// start runs m until the test ends.
func start(t *testing.T, m *Manager) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// handshake connects to a listener with m's configuration, and returns what a
// client that trusts the world's root sees.
func handshake(w *world, m *Manager, name string) (*x509.Certificate, error) {
	here, there := net.Pipe()
	server := tls.Server(there, m.TLSConfig())
	client := tls.Client(here, &tls.Config{RootCAs: w.roots, ServerName: name})
	failed := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err != nil {
			there.Close()
		}
		failed <- err
	}()
	err := client.Handshake()
	here.Close()
	if serverErr := <-failed; serverErr != nil {
		return nil, serverErr
	}
	if err != nil {
		return nil, err
	}
	return client.ConnectionState().PeerCertificates[0], nil
}

func TestObtainAndRenew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var told []Status
		m := w.manager(func(c *Config) { c.Changed = func(s Status) { told = append(told, s) } })
		name := "1-2-3-4." + m.parent
		listening := []multiaddr.Addr{multiaddr.MustParse("/ip4/1.2.3.4/tcp/443/tls/ws")}
		if got := m.Announce(listening); len(got) != 0 {
			t.Errorf("announced without a certificate: %v", got)
		}
		if _, err := handshake(w, m, name); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("handshake without a certificate: %v", err)
		}

		begin := time.Now()
		start(t, m)
		w.after(time.Minute)
		first, err := handshake(w, m, name)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"*." + m.parent}; !slices.Equal(first.DNSNames, want) {
			t.Errorf("the certificate is for %v, want %v", first.DNSNames, want)
		}
		if len(told) != 1 || told[0].Err != nil || !told[0].NotAfter.Equal(first.NotAfter) || told[0].Domain != m.parent {
			t.Errorf("told %+v", told)
		}
		if got, want := fmt.Sprint(m.Announce(listening)), "[/ip4/1.2.3.4/tcp/443/tls/sni/"+name+"/ws]"; got != want {
			t.Errorf("announced %s, want %s", got, want)
		}
		if !slices.Equal(w.told, []string{"/ip4/1.2.3.4/tcp/4001"}) {
			t.Errorf("the service was told %v", w.told)
		}

		// Renewed when about two thirds of its life are over, while the old one serves.
		w.after(55 * 24 * time.Hour)
		if again, err := handshake(w, m, name); err != nil || !again.Equal(first) {
			t.Errorf("after 55 days: another certificate, %v", err)
		}
		w.after(6 * 24 * time.Hour)
		second, err := handshake(w, m, name)
		if err != nil || second.Equal(first) || second.PublicKey.(*ecdsa.PublicKey).Equal(first.PublicKey) {
			t.Errorf("after 61 days: the old certificate, or its key, %v", err)
		}
		if len(w.orders) != 2 || w.orders[1].Sub(begin) < 55*24*time.Hour {
			t.Errorf("orders at %v", w.orders)
		}
		if len(w.accounts) != 2 { // nothing is kept without Dir
			t.Errorf("%d accounts", len(w.accounts))
		}
	})
}

// A certificate of six days, which authorities offer too, is renewed after four.
func TestShortLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.life = 6 * 24 * time.Hour
		m := w.manager(func(c *Config) { c.Dir = t.TempDir() })
		start(t, m)
		for day := range 30 {
			w.after(24 * time.Hour)
			if _, err := handshake(w, m, "1-2-3-4."+m.parent); err != nil {
				t.Fatalf("day %d: %v", day, err)
			}
		}
		if n := len(w.orders); n < 7 || n > 9 {
			t.Errorf("%d orders in 30 days", n)
		}
		if len(w.accounts) != 1 {
			t.Errorf("%d accounts", len(w.accounts))
		}
	})
}

func TestRenewBefore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager(func(c *Config) { c.RenewBefore = 24 * time.Hour })
		start(t, m)
		w.after(88 * 24 * time.Hour)
		if len(w.orders) != 1 {
			t.Errorf("%d orders two days before the end, want 1", len(w.orders))
		}
		w.after(24 * time.Hour)
		if len(w.orders) != 2 {
			t.Errorf("%d orders one day before the end, want 2", len(w.orders))
		}
	})
}

// With a clock that is weeks ahead, what is signed is old: it serves, and is not
// asked for again and again.
func TestClockAhead(t *testing.T) {
	for _, life := range []time.Duration{time.Minute, 90 * 24 * time.Hour} {
		inWorld(t, func(t *testing.T, w *world) {
			w.life, w.age = life, life*9/10
			m := w.manager(func(c *Config) { c.RenewBefore = 200 * 24 * time.Hour })
			start(t, m)
			w.after(min(life/20, time.Hour))
			if _, err := handshake(w, m, "a."+m.parent); err != nil {
				t.Error(err)
			}
			if err := m.Status().Err; err == nil || !strings.Contains(err.Error(), "clock") {
				t.Errorf("error %v", err)
			}
			w.after(24 * time.Hour)
			if n := len(w.orders); n > 10 {
				t.Errorf("%d orders in a day", n)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		dir := filepath.Join(t.TempDir(), "not", "there")
		key := newKey(t, peer.Ed25519)
		config := func(c *Config) { c.Dir, c.Key = dir, key }
		first := w.manager(config)
		start(t, first)
		w.after(time.Minute)

		kept := filepath.Join(dir, testCA)
		for _, name := range []string{accountFile, certificateFile} {
			info, err := os.Stat(filepath.Join(kept, name))
			if err != nil {
				t.Fatal(err)
			}
			if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		if files := must(os.ReadDir(kept)); len(files) != 2 {
			t.Errorf("files: %v", files)
		}

		// It serves before Run, and asks nobody.
		again := w.manager(config)
		if got, err := handshake(w, again, "1-2-3-4."+again.parent); err != nil || !got.Equal(first.held.Load().Leaf) {
			t.Errorf("after a restart: %v", err)
		}
		start(t, again)
		w.after(24 * time.Hour)
		if len(w.orders) != 1 {
			t.Errorf("%d orders, want 1", len(w.orders))
		}

		// Of no use: another peer's, another authority's, one that has ended, one that
		// others can read, one that is damaged.
		if m := w.manager(func(c *Config) { c.Dir = dir }); m.Status() != (Status{Domain: m.parent}) {
			t.Error("another peer's certificate is held")
		}
		if m := w.manager(func(c *Config) { config(c); c.Directory = "https://staging.test/dir" }); m.Status() != (Status{Domain: m.parent}) {
			t.Error("another authority's certificate is held")
		}
		file := filepath.Join(kept, certificateFile)
		data := must(os.ReadFile(file))
		for name, spoil := range map[string]func() error{
			"damaged": func() error { return os.WriteFile(file, data[:len(data)/2], 0o600) },
			"empty":   func() error { return os.WriteFile(file, nil, 0o600) },
			"reversed": func() error {
				i := bytes.Index(data, []byte("-----BEGIN CERTIFICATE"))
				return os.WriteFile(file, slices.Concat(data[i:], data[:i]), 0o600)
			},
			"too long": func() error { return os.WriteFile(file, bytes.Repeat([]byte("x"), maxFile+1), 0o600) },
			"readable": func() error { return errors.Join(os.WriteFile(file, data, 0o600), os.Chmod(file, 0o644)) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if m := w.manager(config); m.held.Load() != nil && (name != "readable" || runtime.GOOS != "windows") {
				t.Errorf("a file that is %s is used", name)
			}
		}
		third := w.manager(config) // with the file that others can read
		start(t, third)
		w.after(time.Minute)
		if info := must(os.Stat(file)); runtime.GOOS != "windows" && (info.Mode().Perm() != 0o600 || len(w.orders) != 2) {
			t.Errorf("mode %v, %d orders", info.Mode(), len(w.orders))
		}
		if len(w.accounts) != 1 {
			t.Errorf("%d accounts", len(w.accounts))
		}
		w.after(91 * 24 * time.Hour)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if m := w.manager(config); m.held.Load() != nil {
			t.Error("a certificate that has ended is used")
		}
	})
}

// What cannot be kept serves all the same.
func TestNowhereToKeep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m := w.manager(func(c *Config) { c.Dir = file })
		start(t, m)
		w.after(time.Minute)
		if _, err := handshake(w, m, "a."+m.parent); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitsForAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		addrs := []multiaddr.Addr{multiaddr.MustParse("/ip4/192.168.1.2/tcp/1"), multiaddr.MustParse("/dns4/example.com/tcp/1")}
		m := w.manager(func(c *Config) { c.Addrs = func() []multiaddr.Addr { return locked(w, &addrs) } })
		start(t, m)
		w.after(time.Hour)
		if len(w.orders) != 0 || m.Status() != (Status{Domain: m.parent}) {
			t.Fatalf("%d orders, %+v, without a public address", len(w.orders), m.Status())
		}
		addrs = append(addrs, multiaddr.MustParse("/ip6/2600::1/udp/1/quic-v1"))
		w.after(time.Minute)
		if len(w.orders) != 1 || m.Status().NotAfter.IsZero() {
			t.Errorf("%d orders, %+v", len(w.orders), m.Status())
		}
		if !slices.Equal(w.told, []string{"/ip6/2600::1/udp/1/quic-v1"}) {
			t.Errorf("told %v", w.told)
		}
	})
}

func TestServiceDown(t *testing.T) {
	for _, host := range []string{testCA, testService} {
		t.Run(host, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.setDown(host, true)
				var tries []time.Time
				m := w.manager(func(c *Config) {
					c.Changed = func(s Status) { tries = append(tries, time.Now()) }
				})
				start(t, m)
				w.after(48 * time.Hour)
				if err := m.Status().Err; err == nil || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), "outgoing HTTPS") {
					t.Errorf("the error does not tell what to do: %v", err)
				}
				if n := len(tries); n < 10 || n > 16 {
					t.Errorf("%d attempts in two days", n)
				}
				for i := 2; i < len(tries); i++ {
					if tries[i].Sub(tries[i-1]) < tries[i-1].Sub(tries[i-2]) {
						t.Errorf("attempt %d: the pauses do not grow: %v", i, tries)
					}
				}
				if _, err := handshake(w, m, "a."+m.parent); !errors.Is(err, ErrNoCertificate) || !strings.Contains(err.Error(), host) {
					t.Errorf("the handshake's error does not say why: %v", err)
				}
				w.setDown(host, false)
				w.after(8 * time.Hour)
				if _, err := handshake(w, m, "a."+m.parent); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A renewal that fails leaves the old certificate, until that ends; then nothing is
// served or announced.
func TestRenewalFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.manager(nil)
		listening := []multiaddr.Addr{multiaddr.MustParse("/ip4/1.2.3.4/tcp/443/tls/ws")}
		start(t, m)
		w.after(time.Hour)
		w.setDown(testCA, true)
		w.after(89 * 24 * time.Hour)
		if _, err := handshake(w, m, "a."+m.parent); err != nil || len(m.Announce(listening)) != 1 {
			t.Errorf("before the end: %v, announced %v", err, m.Announce(listening))
		}
		w.after(24 * time.Hour)
		if _, err := handshake(w, m, "a."+m.parent); !errors.Is(err, ErrNoCertificate) || len(m.Announce(listening)) != 0 {
			t.Errorf("after the end: %v, announced %v", err, m.Announce(listening))
		}
		w.setDown(testCA, false)
		w.after(8 * time.Hour)
		if _, err := handshake(w, m, "a."+m.parent); err != nil {
			t.Error(err)
		}
	})
}

// The new address may be the remedy.
func TestMoved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		addr := multiaddr.MustParse("/ip4/1.2.3.4/tcp/1")
		w.instead = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Host != testService || locked(w, &addr) != multiaddr.MustParse("/ip4/1.2.3.4/tcp/1") || r.ContentLength <= 0 {
				return false
			}
			http.Error(rw, "error testing addresses: \x1b[31mfailed to dial", http.StatusBadRequest)
			return true
		}
		m := w.manager(func(c *Config) { c.Addrs = func() []multiaddr.Addr { return []multiaddr.Addr{locked(w, &addr)} } })
		start(t, m)
		w.after(24 * time.Hour)
		err := m.Status().Err
		if err == nil || !strings.Contains(err.Error(), "forward the ports of /ip4/1.2.3.4/tcp/1") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("error %v", err)
		}
		if n := len(w.orders); n > 10 {
			t.Errorf("%d orders in a day", n)
		}
		addr = multiaddr.MustParse("/ip4/5.6.7.8/tcp/1")
		w.after(movedPause + time.Minute)
		if _, err := handshake(w, m, "a."+m.parent); err != nil {
			t.Error(err)
		}
	})
}

// Addresses that come and go are no reason to ask an authority that wants a pause.
func TestFlapping(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		orders := 0
		w.instead = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/new-order" {
				return false
			}
			orders++
			rw.Header().Set("Replay-Nonce", "nonce")
			rw.Header().Set("Retry-After", "86400")
			rw.WriteHeader(http.StatusTooManyRequests)
			rw.Write([]byte(`{"type":"urn:ietf:params:acme:error:rateLimited"}`))
			return true
		}
		m := w.manager(func(c *Config) {
			c.Addrs = func() []multiaddr.Addr {
				return []multiaddr.Addr{multiaddr.MustParse(fmt.Sprintf("/ip4/1.2.3.4/tcp/%d", time.Now().Unix()%10_000))}
			}
		})
		start(t, m)
		w.after(23 * time.Hour)
		if orders != 1 {
			t.Errorf("%d orders before the time that was asked for", orders)
		}
	})
}

// Whatever the others answer, an attempt ends, says what happened, and the next
// one succeeds.
func TestBadAnswers(t *testing.T) {
	at := func(host, path string, h http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Host != host || path != "" && r.URL.Path != path {
				return false
			}
			h(rw, r)
			return true
		}
	}
	endless := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Replay-Nonce", "nonce")
		for b := bytes.Repeat([]byte(" "), 10_000); ; { // JSON may begin with as many
			if _, err := rw.Write(b); err != nil {
				return
			}
		}
	}
	silent := func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // so that the server notices the end
		<-r.Context().Done()
	}
	garbage := func(rw http.ResponseWriter, r *http.Request) { rw.Write([]byte("\x00\xff <html>")) }
	status := func(code int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Replay-Nonce", "nonce")
			rw.Header().Set("Retry-After", "100000")
			rw.WriteHeader(code)
			rw.Write([]byte(body))
		}
	}
	auth := func(header string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("WWW-Authenticate", header)
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	for name, c := range map[string]struct {
		instead func(http.ResponseWriter, *http.Request) bool
		change  func(*world)
		want    string        // in the error
		within  time.Duration // the first attempt has ended
	}{
		// Of the several things that happen when the time is over, net/http tells of any.
		"directory silent":    {instead: at(testCA, "/directory", silent), want: "register an account at acme.test: ", within: requestTimeout + time.Second},
		"directory endless":   {instead: at(testCA, "/directory", endless), want: "more than 262144 bytes", within: time.Second},
		"directory garbage":   {instead: at(testCA, "/directory", garbage), want: "invalid character", within: time.Second},
		"directory fails":     {instead: at(testCA, "/directory", status(503, "later")), want: "503", within: time.Minute},
		"directory moved":     {instead: at(testCA, "/directory", status(302, "")), want: "302", within: time.Minute},
		"account endless":     {instead: at(testCA, "/account", endless), want: "more than 262144 bytes", within: time.Second},
		"order refused":       {instead: at(testCA, "/new-order", status(403, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no"}`)), want: "rejectedIdentifier", within: time.Second},
		"order rate limited":  {instead: at(testCA, "/new-order", status(429, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"no"}`)), want: "allows no more", within: time.Second},
		"order garbage":       {instead: at(testCA, "/new-order", status(201, `{"status":"pending"}`)), want: "0 authorizations", within: time.Second},
		"no challenge by DNS": {instead: at(testCA, "/authz", status(200, `{"status":"pending","challenges":[{"type":"http-01"},null]}`)), want: "none by DNS", within: time.Second},
		"authz error endless": {instead: at(testCA, "/authz", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Replay-Nonce", "n")
			rw.WriteHeader(400)
			endless(rw, r)
		}), want: "get a challenge", within: time.Second},
		"asks for haste": {instead: at(testCA, "/authz", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Replay-Nonce", "nonce")
			rw.Header().Set("Retry-After", time.Unix(0, 0).UTC().Format(http.TimeFormat))
			rw.Write([]byte(`{"status":"pending","challenges":[{"type":"dns-01","url":"https://acme.test/challenge","token":"t"}]}`))
		}), want: "more than 400 requests", within: 5 * time.Second},
		"never accepted":       {instead: at(testCA, "/challenge", status(200, `{"type":"dns-01","status":"pending","url":"https://acme.test/c"}`)), want: "takes too long", within: attemptTimeout},
		"challenge refused":    {instead: at(testCA, "/challenge", status(400, `{"type":"urn:ietf:params:acme:error:malformed"}`)), want: "have the challenge checked", within: 10 * time.Second},
		"certificate silent":   {instead: at(testCA, "/cert", silent), want: "get the certificate signed", within: 2*requestTimeout + 10*time.Second},
		"certificate garbage":  {instead: at(testCA, "/cert", garbage), want: "chain is empty", within: 10 * time.Second},
		"certificate endless":  {instead: at(testCA, "/cert", endless), want: "more than 262144 bytes", within: 10 * time.Second},
		"service silent":       {instead: at(testService, "", silent), want: "register the challenge at registration.test: ", within: requestTimeout + time.Second},
		"service endless":      {instead: at(testService, "", endless), want: "more than 262144 bytes", within: time.Second},
		"service garbage":      {instead: at(testService, "", garbage), want: "does not ask who we are", within: time.Second},
		"service knows nobody": {instead: at(testService, "", status(401, "")), want: "no header", within: time.Second},
		"service other scheme": {instead: at(testService, "", auth(`Basic realm="x"`)), want: "no header", within: time.Second},
		"service long header":  {instead: at(testService, "", auth(`libp2p-PeerID opaque="`+strings.Repeat("x", 5000)+`"`)), want: "2048", within: time.Second},
		"service no key":       {instead: at(testService, "", auth(`libp2p-PeerID challenge-client="`+testChallenge+`"`)), want: "public key", within: time.Second},
		"service bad key":      {instead: at(testService, "", auth(`libp2p-PeerID challenge-client="`+testChallenge+`", sig="AAAA", public-key="AAAA"`)), want: "public key", within: time.Second},
		"service short":        {instead: at(testService, "", auth(`libp2p-PeerID challenge-client="short", public-key="AAAA"`)), want: "challenge of 5", within: time.Second},
		"service forged":       {change: func(w *world) { w.service.forged = true }, want: "does not prove", within: time.Second},
		"service forged after": {change: func(w *world) { w.service.forged, w.begins = true, true }, want: "does not prove", within: time.Second},
		"service busy":         {instead: at(testService, "", onlyBody(status(429, "later"))), want: "too often", within: time.Second},
		"service broken":       {instead: at(testService, "", onlyBody(status(500, strings.Repeat("x", 10_000)))), want: "answers 500", within: time.Second},
		"not in DNS":           {change: func(w *world) { w.unlisted = true }, want: "not published", within: dnsTimeout + time.Minute},
		"another key":          {change: func(w *world) { w.mangle = otherKey(w, nil) }, want: "another key", within: 10 * time.Second},
		"another name":         {change: func(w *world) { w.mangle = otherName(w) }, want: "not for *.", within: 10 * time.Second},
		"long chain":           {change: func(w *world) { w.mangle = func(c [][]byte) [][]byte { return slices.Repeat(c, 100) } }, want: "too long", within: 10 * time.Second},
		"bad certificate":      {change: func(w *world) { w.mangle = func(c [][]byte) [][]byte { return [][]byte{c[0][:20]} } }, want: "certificate", within: 10 * time.Second},
		"over already":         {change: func(w *world) { w.life = -time.Second }, want: "clock", within: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.instead = c.instead
				if c.change != nil {
					c.change(w)
				}
				m := w.manager(nil)
				start(t, m)
				w.after(c.within)
				s := m.Status()
				if s.Err == nil {
					t.Fatal("no error in time")
				}
				if text := s.Err.Error(); !strings.Contains(text, c.want) || len(text) > 1500 || strings.ContainsAny(text, "\x00\n") {
					t.Errorf("error %q, want one with %q", text, c.want)
				}
				if m.held.Load() != nil || !s.Next.After(time.Now()) {
					t.Errorf("a certificate is held, or the next attempt is at %v", s.Next)
				}
				if strings.Contains(c.want, "allows no more") || strings.Contains(c.want, "too often") {
					if time.Until(s.Next) < 99_000*time.Second {
						t.Errorf("the next attempt is in %v, before the time that was asked for", time.Until(s.Next))
					}
				}
				w.instead, w.mangle, w.life, w.begins, w.unlisted, w.service.forged = nil, nil, time.Hour*24*90, false, false, false
				w.web.CloseIdleConnections()
				w.after(48 * time.Hour)
				if _, err := handshake(w, m, "a."+m.parent); err != nil {
					t.Errorf("after it is over: %v", err)
				}
			})
		})
	}
}

// onlyBody answers with h what comes with a body.
func onlyBody(h http.HandlerFunc) http.HandlerFunc {
	var s authServer
	s.key = must(peer.GenerateKey(peer.Ed25519))
	return func(rw http.ResponseWriter, r *http.Request) {
		if _, _, ok := s.authenticate(rw, r, false); ok {
			h(rw, r)
		}
	}
}

func otherKey(w *world, names []string) func([][]byte) [][]byte {
	return func(c [][]byte) [][]byte {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		return w.sign(&x509.Certificate{DNSNames: w.csr.DNSNames}, key.Public(), w.life)
	}
}

func otherName(w *world) func([][]byte) [][]byte {
	return func([][]byte) [][]byte {
		return w.sign(&x509.Certificate{DNSNames: []string{"*.example.com"}}, w.csr.PublicKey, w.life)
	}
}

// The domain's own name servers are asked first, since others may know only that
// there was nothing; but they may be out of reach.
func TestNameServers(t *testing.T) {
	for name, c := range map[string]struct {
		reachable, systemKnows bool
		asked                  string
	}{
		"theirs":  {reachable: true, asked: "ns1.libp2p.direct.:53"},
		"ours":    {systemKnows: true},
		"nobody":  {},
		"another": {reachable: true, systemKnows: true, asked: "ns1.libp2p.direct.:53"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				m := w.manager(func(c *Config) { c.Resolver = nil })
				old := &world{t: t} // a name server that learns nothing
				m.system = &net.Resolver{PreferGo: true, Dial: old.dialDNS}
				if c.systemKnows {
					m.system.Dial = w.dialDNS
				}
				var asked []string
				m.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					asked = append(asked, addr)
					if !c.reachable {
						return nil, errors.New("filtered")
					}
					return w.dialDNS(ctx, network, addr)
				}
				start(t, m)
				w.after(dnsTimeout + time.Minute)
				if held := m.held.Load() != nil; held != (c.reachable || c.systemKnows) {
					t.Errorf("a certificate is held: %v; %v", held, m.Status().Err)
				}
				slices.Sort(asked)
				if asked = slices.Compact(asked); c.asked != "" && !slices.Equal(asked, []string{c.asked}) || len(asked) == 0 || len(asked) > maxNameServers {
					t.Errorf("asked %v", asked)
				}
			})
		})
	}
}

// An answer that is lost on the way does not cost the certificate.
func TestLostAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.instead = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/finalize" {
				return false
			}
			w.authority(discard{}, r)
			rw.Header().Set("Replay-Nonce", "nonce")
			rw.Write([]byte(`{"status":"processing"}`)) // and no Location
			return true
		}
		m := w.manager(nil)
		start(t, m)
		w.after(time.Minute)
		if m.held.Load() == nil {
			t.Errorf("no certificate: %v", m.Status().Err)
		}
	})
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// Run ends at once, whatever it waits for.
func TestRunEnds(t *testing.T) {
	for _, host := range []string{testCA, testService} {
		inWorld(t, func(t *testing.T, w *world) {
			w.instead = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Host == host {
					io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				}
				return r.Host == host
			}
			m := w.manager(nil)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				m.Run(ctx)
			}()
			w.after(time.Second)
			cancel()
			begin := time.Now()
			<-done
			if d := time.Since(begin); d > 0 {
				t.Errorf("Run ended after %v", d)
			}
			if m.Status().Err != nil {
				t.Errorf("told of a failure: %v", m.Status().Err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	good := Config{Key: newKey(t, peer.Ed25519), Addrs: func() []multiaddr.Addr { return nil }}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"needs Key":              func(c *Config) { c.Key = peer.PrivateKey{} },
		"and Addrs":              func(c *Config) { c.Addrs = nil },
		"Config.Directory \"ht":  func(c *Config) { c.Directory = "http://example.com" },
		"Config.Directory: ":     func(c *Config) { c.Directory = "https://[" },
		"Config.Registration \"": func(c *Config) { c.Registration = "registration.example" },
		"Config.Domain":          func(c *Config) { c.Domain = "a\x00b" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
