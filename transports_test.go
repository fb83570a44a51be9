//go:build !js

package kith_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/pnet"
	"github.com/kith-p2p/kith/upgrade"
)

var nowhere = []multiaddr.Addr{}

// startAnywhere starts a node that listens where nodes do by default.
func startAnywhere(t *testing.T, cfg kith.Config) *kith.Node {
	t.Helper()
	cfg.MDNS.Off = true
	n, err := kith.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	n.Handle("/echo/1", echo)
	return n
}

// onLoopback are the addresses of n within this machine, by what follows the port.
func onLoopback(t *testing.T, n *kith.Node) (port uint16, addrs map[string]multiaddr.Addr) {
	t.Helper()
	addrs = make(map[string]multiaddr.Addr)
	for _, a := range n.Addrs() {
		ap, _, ok := a.AddrPort()
		if !ok {
			t.Fatalf("%s has no port", a)
		}
		if port == 0 {
			port = ap.Port()
		}
		if ap.Port() != port {
			t.Errorf("%s is not on port %d as the others are", a, port)
		}
		if ap.Addr().IsLoopback() {
			name := a.String()
			name, _, _ = strings.Cut(name, "/certhash/")
			family := "ip4"
			if ap.Addr().Is6() {
				family = "ip6"
			}
			_, rest, _ := strings.Cut(name, fmt.Sprint("/", port))
			transport := "tcp"
			if a.Has(multiaddr.UDP) {
				transport = "udp"
			}
			addrs[family+" "+transport+rest] = a
		}
	}
	return port, addrs
}

func reach(t *testing.T, cfg kith.Config, p peer.ID, a multiaddr.Addr) error {
	t.Helper()
	cfg.Listen = nowhere
	from := startAnywhere(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := from.Connect(ctx, peer.AddrInfo{ID: p, Addrs: []multiaddr.Addr{a}}); err != nil {
		return err
	}
	checkEcho(t, from, p)
	return nil
}

func TestOnePortForEverything(t *testing.T) {
	n := startAnywhere(t, kith.Config{})
	_, addrs := onLoopback(t, n)
	want := []string{"udp/quic-v1", "tcp", "udp/quic-v1/webtransport", "udp/webrtc-direct", "tcp/ws"}
	families := []string{"ip4"}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		families = append(families, "ip6")
	}
	if len(addrs) != len(families)*len(want) {
		t.Errorf("listening on %v", addrs)
	}
	for _, family := range families {
		for _, name := range want {
			a, ok := addrs[family+" "+name]
			if !ok {
				t.Errorf("not listening on %s %s, only on %v", family, name, addrs)
				continue
			}
			if err := reach(t, kith.Config{}, n.ID(), a); err != nil {
				t.Error(err)
			}
		}
	}
	// Best first: what takes fewer round trips, of addresses as near.
	if first, second := n.Addrs()[0], n.Addrs()[1]; !first.Has(multiaddr.QUICV1) || second.Has(multiaddr.QUICV1) {
		t.Errorf("the first are %v and %v", first, second)
	}
}

// Who dials knows the certificates by their hashes, which must be the same after a restart.
func TestHashesSurviveRestarts(t *testing.T) {
	cfg := kith.Config{Dir: t.TempDir()}
	hashes := func() (found []string) {
		n := startAnywhere(t, cfg)
		defer n.Close()
		_, addrs := onLoopback(t, n)
		for _, name := range []string{"ip4 udp/quic-v1/webtransport", "ip4 udp/webrtc-direct"} {
			_, hash, _ := strings.Cut(addrs[name].String(), "/certhash/")
			found = append(found, hash)
		}
		return found
	}
	if before, after := hashes(), hashes(); !slices.Equal(before, after) || before[0] == "" {
		t.Errorf("before %v, after %v", before, after)
	}
}

func TestTakenPort(t *testing.T) {
	n := startAnywhere(t, kith.Config{})
	port, addrs := onLoopback(t, n)
	for name, a := range addrs {
		a, _ = peer.SplitAddr(a)
		a = multiaddr.MustParse(strings.Split(a.String(), "/certhash/")[0])
		other, err := kith.Start(t.Context(), kith.Config{Listen: []multiaddr.Addr{a}, MDNS: kith.MDNS{Off: true}})
		if err == nil {
			other.Close()
			t.Errorf("%s: listening twice", name)
			continue
		}
		if !strings.Contains(err.Error(), fmt.Sprint(port)) || !strings.Contains(err.Error(), "Config.Listen") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrivateNetwork(t *testing.T) {
	ours, others := pnet.GenerateKey(), pnet.GenerateKey()
	n := startAnywhere(t, kith.Config{PSK: &ours})
	_, addrs := onLoopback(t, n)
	for name, a := range addrs {
		if strings.Contains(name, "udp") {
			t.Errorf("listening on %s", a)
		}
		if err := reach(t, kith.Config{PSK: &ours}, n.ID(), a); err != nil {
			t.Error(err)
		}
		if err := reach(t, kith.Config{PSK: &others}, n.ID(), a); !errors.Is(err, upgrade.ErrOtherNetwork) {
			t.Errorf("with another key: %v", err)
		}
		if err := reach(t, kith.Config{}, n.ID(), a); err == nil {
			t.Error("reached without a key")
		}
	}
	_, err := kith.Start(t.Context(), kith.Config{PSK: &ours, Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/udp/0/quic-v1")}})
	if !errors.Is(err, host.ErrNoTransport) || !strings.Contains(err.Error(), "pre-shared key") {
		t.Errorf("a private node on QUIC: %v", err)
	}
	t.Setenv(pnet.ForceEnv, "1")
	if _, err := kith.Start(t.Context(), kith.Config{Listen: nowhere}); err == nil || !strings.Contains(err.Error(), pnet.ForceEnv) {
		t.Errorf("a public node where that is forbidden: %v", err)
	}
}

// writeCertificate makes a certificate for 127.0.0.1 and gives its files.
func writeCertificate(t *testing.T) (certFile, keyFile string, cert *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, cert
}

// A web server and libp2p, with TLS and without, on one port.
func TestWebOnTheSamePort(t *testing.T) {
	certFile, keyFile, cert := writeCertificate(t)
	n := startAnywhere(t, kith.Config{WebSocket: kith.WebSocket{
		CertFile: certFile, KeyFile: keyFile,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a page") }),
	}})
	port, addrs := onLoopback(t, n)
	for _, name := range []string{"tcp/tls/ws", "tcp/ws", "tcp"} {
		if _, ok := addrs["ip4 "+name]; !ok {
			t.Errorf("not listening on %s, only on %v", name, addrs)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for _, scheme := range []string{"http", "https"} {
		response, err := client.Get(fmt.Sprintf("%s://127.0.0.1:%d/", scheme, port))
		if err != nil {
			t.Error(err)
			continue
		}
		if page, err := io.ReadAll(response.Body); string(page) != "a page" || err != nil {
			t.Errorf("%s: %q, %v", scheme, page, err)
		}
		response.Body.Close()
	}
}

func TestBadCertificates(t *testing.T) {
	certFile, keyFile, _ := writeCertificate(t)
	for _, ws := range []kith.WebSocket{
		{CertFile: certFile},
		{CertFile: keyFile, KeyFile: certFile},
		{CertFile: certFile, KeyFile: keyFile, TLS: new(tls.Config)},
		{CertFile: filepath.Join(t.TempDir(), "none"), KeyFile: keyFile},
	} {
		if n, err := kith.Start(t.Context(), kith.Config{WebSocket: ws, Listen: nowhere}); err == nil {
			n.Close()
			t.Errorf("%+v was taken", ws)
		} else if !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%+v: %v", ws, err)
		}
	}
}
