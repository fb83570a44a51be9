package autotls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// DefaultDirectory is Let's Encrypt. Using it means to agree to its terms.
	DefaultDirectory = "https://acme-v02.api.letsencrypt.org/directory"
	// DefaultRegistration is the registration service of libp2p.direct.
	DefaultRegistration = "https://registration.libp2p.direct"
	// DefaultDomain is the domain below which each peer ID has its names.
	DefaultDomain = "libp2p.direct"
)

const (
	// attemptTimeout bounds one attempt: the two waits of three minutes that the
	// specification allows, and a dozen requests.
	attemptTimeout = 10 * time.Minute

	// The pause after a failure grows from firstPause to maxPause. Let's Encrypt
	// allows five failed validations of a name an hour, and not much more in all.
	firstPause = time.Minute
	maxPause   = 6 * time.Hour
	// maxRetryAfter bounds the pause that an authority asks for.
	maxRetryAfter = 7 * 24 * time.Hour
	// movedPause is the least pause after the service could not reach the node, when
	// the addresses are others now.
	movedPause = 5 * time.Minute

	// While a certificate is wanted the addresses are looked at every dueInterval;
	// otherwise the clock, which may jump, every heldInterval.
	dueInterval  = 10 * time.Second
	heldInterval = time.Minute
)

// ErrNoCertificate is the error of TLS handshakes while no valid certificate is
// held.
var ErrNoCertificate = errors.New("autotls: no certificate is held")

// errUnreachable is what the registration service says of a node that it dialed in vain.
var errUnreachable = errors.New("could not reach this node, or does not accept its addresses")

// Config says for whom certificates are obtained, and where. Key and Addrs are
// required.
type Config struct {
	Key peer.PrivateKey // of the node
	// Addrs returns the addresses at which the node can be reached from the internet,
	// best first, whatever their transport: the service dials them. Those that are
	// not public are left out. It is called often, and must not block.
	Addrs func() []multiaddr.Addr
	// Dir is where the certificate and the keys are kept, readable by their owner
	// alone. Empty: nowhere, so each start asks for a new certificate, of which an
	// authority allows few in a week.
	Dir string

	Directory    string // URL of the ACME directory; "": DefaultDirectory
	Registration string // URL of the registration service; "": DefaultRegistration
	Domain       string // "": DefaultDomain
	Email        string // told to the ACME authority; "": none
	UserAgent    string // "": "kith"

	// RenewBefore is how long before its end a certificate is renewed, at most half
	// of its life. Zero: a third.
	RenewBefore time.Duration
	// AnyAddr has addresses that are not public told and announced too, for tests
	// and for networks with an authority and a service of their own.
	AnyAddr bool

	// HTTP sends the requests. Nil: a client that trusts the system's roots. Its
	// redirects are not followed, and its Timeout is at most 65 seconds.
	HTTP *http.Client
	// Resolver is asked whether the challenge is published. Nil: the name servers of
	// Domain, and the system's if those say nothing.
	Resolver *net.Resolver

	// Changed, if not nil, is told when a certificate is obtained or an attempt has
	// failed. It must not block.
	Changed func(Status)
	Logger  *slog.Logger // nil: silent
}

// A Status is how things stand.
type Status struct {
	Domain   string    // names are directly below it
	NotAfter time.Time // end of the certificate that is held; zero: none is
	Err      error     // why the last attempt failed, and what to do; nil: it did not
	Next     time.Time // no attempt before; zero: as soon as one is due
}

// A Manager holds the certificate of one node. Its methods may be called from
// several goroutines.
type Manager struct {
	// config
	cfg          Config
	log          *slog.Logger
	parent       string // <peer ID>.<domain>
	directory    *url.URL
	registration *url.URL
	store        store
	jitter       float64 // 0 to 1: spreads the renewals of many nodes
	// what finds and asks the domain's name servers, which tests replace
	system *net.Resolver
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)

	// owned by Run
	auth authClient

	held atomic.Pointer[tls.Certificate] // nil: none

	mu     sync.Mutex
	status Status
}

// New returns a Manager that holds the certificate that Config.Dir has, if it has
// one that is valid. Errors are those of the configuration.
func New(cfg Config) (*Manager, error) {
	if cfg.Key.IsZero() || cfg.Addrs == nil {
		return nil, errors.New("autotls: Config needs Key and Addrs")
	}
	if cfg.Directory == "" {
		cfg.Directory = DefaultDirectory
	}
	if cfg.Registration == "" {
		cfg.Registration = DefaultRegistration
	}
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "kith"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		cfg:    cfg,
		log:    cfg.Logger,
		parent: label(cfg.Key.ID()) + "." + cfg.Domain,
		jitter: rand.Float64(),
		system: net.DefaultResolver,
		dial:   new(net.Dialer).DialContext,
	}
	var err error
	if _, err = multiaddr.NewComponent(multiaddr.SNI, m.parent); err != nil {
		return nil, fmt.Errorf("autotls: Config.Domain %q: %w", cfg.Domain, err)
	}
	if m.directory, err = parseURL("Directory", cfg.Directory); err != nil {
		return nil, err
	}
	if m.registration, err = parseURL("Registration", cfg.Registration); err != nil {
		return nil, err
	}
	m.store = newStore(cfg.Dir, m.directory)
	m.auth = authClient{key: cfg.Key, agent: cfg.UserAgent}
	m.status.Domain = m.parent
	m.load()
	return m, nil
}

// TLSConfig returns the configuration for the listener. Handshakes fail with
// ErrNoCertificate while none is held; a renewed certificate is used at once.
func (m *Manager) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := m.valid(time.Now()); cert != nil {
				return cert, nil
			}
			if err := m.Status().Err; err != nil {
				return nil, fmt.Errorf("%w: %w", ErrNoCertificate, err)
			}
			return nil, fmt.Errorf("%w yet for *.%s", ErrNoCertificate, m.parent)
		},
	}
}

// Announce puts in place of each address at which TLS WebSocket is served without a
// name (…/tcp/P/tls/ws) the one with the name that the certificate is for, and
// leaves it out if it is not public or no certificate is held: nobody could check
// the certificate there. Other addresses stay as they are. It does not block.
func (m *Manager) Announce(listening []multiaddr.Addr) []multiaddr.Addr {
	held := m.valid(time.Now()) != nil
	announced := make([]multiaddr.Addr, 0, len(listening))
	for _, a := range listening {
		with, ip, ok := named(a, m.parent)
		switch {
		case !ok:
			announced = append(announced, a)
		case held && (m.cfg.AnyAddr && !ip.IsUnspecified() || public(ip)):
			announced = append(announced, with)
		}
	}
	return announced
}

// Status tells how things stand.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	if cert := m.valid(time.Now()); cert != nil {
		s.NotAfter = cert.Leaf.NotAfter
	}
	return s
}

// Run obtains a certificate when there is a public address, and renews it, until
// ctx ends. It is called once; its form suits host.Host.Go.
func (m *Manager) Run(ctx context.Context) {
	var (
		failures    int
		last        time.Time        // of the last failure
		told        []multiaddr.Addr // in the attempt that failed
		unreachable bool             // because the service could not reach any
		silent      bool             // the log tells that there is no address
	)
	for {
		now := time.Now()
		wait := heldInterval
		if due := m.renewal(); now.Before(due) {
			wait = min(wait, due.Sub(now))
		} else {
			wait = dueInterval
			addrs := tellable(m.cfg.Addrs(), m.cfg.AnyAddr)
			next := m.Status().Next
			if unreachable && now.Sub(last) >= movedPause && !sameAddrs(addrs, told) {
				next = time.Time{}
			}
			if len(addrs) == 0 {
				if !silent {
					m.log.Info("autotls: no certificate is asked for until there is a public address: forward a port of your router, or use a machine with an address of its own")
				}
				silent = true
			} else if silent = false; now.Before(next) {
				wait = min(wait, next.Sub(now))
			} else if err := m.attempt(ctx, addrs); err != nil {
				if ctx.Err() != nil {
					return
				}
				failures++
				last, told, unreachable = time.Now(), addrs, errors.Is(err, errUnreachable)
				m.failed(err, last.Add(m.pause(failures, err)))
			} else {
				failures, unreachable, wait = 0, false, 0
			}
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// attempt obtains a certificate and holds it. It fails also if the certificate
// would be renewed at once, so that there is a pause.
func (m *Manager) attempt(ctx context.Context, addrs []multiaddr.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cert, err := m.obtain(ctx, addrs)
	if err != nil {
		return err
	}
	if err := m.store.saveCertificate(cert); err != nil {
		m.log.Warn(err.Error())
	}
	m.held.Store(cert)
	if due := m.renewal(); !time.Now().Before(due) {
		return fmt.Errorf("autotls: the certificate that was just signed should have been renewed on %s: set this machine's clock", due)
	}
	m.mu.Lock()
	m.status.Err, m.status.Next = nil, time.Time{}
	m.mu.Unlock()
	m.log.Info("autotls: certificate obtained", "name", "*."+m.parent, "until", cert.Leaf.NotAfter)
	m.changed()
	return nil
}

func (m *Manager) failed(err error, next time.Time) {
	m.mu.Lock()
	m.status.Err, m.status.Next = err, next
	m.mu.Unlock()
	m.log.Warn("autotls: no certificate was obtained", "name", "*."+m.parent, "err", err, "again", next)
	m.changed()
}

func (m *Manager) changed() {
	if m.cfg.Changed != nil {
		m.cfg.Changed(m.Status())
	}
}

// pause returns how long to wait after that many failures in a row, the last err.
func (m *Manager) pause(failures int, err error) time.Duration {
	pause := maxPause
	if failures < 7 { // 3⁶ minutes are more than maxPause
		pause = firstPause
		for range failures - 1 {
			pause *= 3
		}
	}
	pause = min(pause, maxPause)
	pause += time.Duration(m.jitter * float64(pause) / 4)
	return max(pause, retryAfter(err))
}

// renewal returns when a new certificate is due: the zero time if none is held.
func (m *Manager) renewal() time.Time {
	cert := m.held.Load()
	if cert == nil {
		return time.Time{}
	}
	life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
	before := min(m.cfg.RenewBefore, life/2)
	if before <= 0 {
		before = life / 3
	}
	return cert.Leaf.NotAfter.Add(-before - time.Duration(m.jitter*float64(before)/8))
}

// valid returns the certificate that is held, nil if there is none or it has ended.
func (m *Manager) valid(now time.Time) *tls.Certificate {
	if cert := m.held.Load(); cert != nil && now.Before(cert.Leaf.NotAfter) {
		return cert
	}
	return nil
}

// load holds what the store has, if it is of use.
func (m *Manager) load() {
	cert, err := m.store.certificate()
	if err == nil {
		err = m.check(cert)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("autotls: the certificate that is kept cannot be used: another will be obtained", "err", err)
		}
		return
	}
	m.held.Store(cert)
}

// check reports whether cert is for our names, and now.
func (m *Manager) check(cert *tls.Certificate) error {
	if err := cert.Leaf.VerifyHostname("a." + m.parent); err != nil {
		return fmt.Errorf("autotls: the certificate is not for *.%s: %w", m.parent, err)
	}
	if now := time.Now(); !now.Before(cert.Leaf.NotAfter) {
		return fmt.Errorf("autotls: the certificate has ended on %s: if that is not past, set this machine's clock", cert.Leaf.NotAfter)
	}
	return nil
}

// sameAddrs reports whether a and b have the same addresses, in any order.
func sameAddrs(a, b []multiaddr.Addr) bool {
	return slices.Equal(slices.SortedFunc(slices.Values(a), multiaddr.Addr.Compare), slices.SortedFunc(slices.Values(b), multiaddr.Addr.Compare))
}

// parseURL reads the URL in a field of Config. What proves that we talk to whom we
// mean to is TLS.
func parseURL(field, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("autotls: Config.%s: %w", field, err)
	}
	if u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("autotls: Config.%s %q is no https URL", field, s)
	}
	return u, nil
}

// sleep waits for d, and reports false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
