package autotls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/crypto/acme"

	"github.com/kith-p2p/kith/multiaddr"
)

const (
	// challengePath is where the service takes challenges.
	// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#sending-challenge-to-autotls-broker
	challengePath = "/v1/_acme-challenge"

	// dnsTimeout and acmeTimeout bound the waits for the record and for the authority.
	// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#parameters
	dnsTimeout  = 3 * time.Minute
	acmeTimeout = 3 * time.Minute
	// The name servers are asked first after dnsPause, which doubles up to
	// maxDNSPause. One question to one of them has lookupTimeout.
	dnsPause      = time.Second
	maxDNSPause   = 16 * time.Second
	lookupTimeout = 10 * time.Second
	// maxNameServers bounds those that are asked.
	maxNameServers = 4

	// requestTimeout bounds one request. The service dials the node before it
	// answers, for which go-libp2p takes up to a minute.
	requestTimeout = time.Minute + 5*time.Second
	// maxAnswer bounds the body of an answer, in bytes: a certificate chain has ten
	// thousand.
	maxAnswer = 256 << 10
	// maxAnswerHeader bounds its header, in bytes.
	maxAnswerHeader = 64 << 10
	// maxForeignText is how much of the text of an error that somebody else wrote is
	// shown, in bytes.
	maxForeignText = 500
	// maxRequests bounds the requests of an attempt: one a second for as long as
	// it waits for the authority twice, and a few more.
	maxRequests = 400
	// maxRetries is how often a request is repeated that the authority refused for
	// now. After that it is up to the pauses of Run.
	maxRetries = 4
)

// obtain asks for a certificate. An error says what failed, and what to do if that
// can be known.
func (m *Manager) obtain(ctx context.Context, addrs []multiaddr.Addr) (*tls.Certificate, error) {
	account, kept, err := m.store.account()
	if err != nil {
		return nil, err
	}
	if kept != nil {
		m.log.Warn("autotls: the account's key is new", "err", kept)
	}
	web := m.client()
	defer web.CloseIdleConnections()
	ca := &acme.Client{
		Key:          account,
		HTTPClient:   web,
		DirectoryURL: m.directory.String(),
		RetryBackoff: retryPause,
		UserAgent:    m.cfg.UserAgent,
	}
	var contact []string
	if m.cfg.Email != "" {
		contact = []string{"mailto:" + m.cfg.Email}
	}
	if _, err := ca.Register(ctx, &acme.Account{Contact: contact}, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, m.authorityError("register an account", err)
	}
	wildcard := "*." + m.parent
	order, err := ca.AuthorizeOrder(ctx, acme.DomainIDs(wildcard))
	if err != nil {
		return nil, m.authorityError("order a certificate", err)
	}
	if len(order.AuthzURLs) != 1 {
		return nil, m.authorityError("order a certificate", fmt.Errorf("an order with %d authorizations for one name", len(order.AuthzURLs)))
	}
	if err := m.authorize(ctx, ca, web, order.AuthzURLs[0], addrs); err != nil {
		return nil, err
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("autotls: generate a key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{wildcard}}, key)
	if err != nil {
		return nil, fmt.Errorf("autotls: certificate request: %w", err)
	}
	chain, err := m.finalize(ctx, ca, order, request)
	if err != nil {
		return nil, m.authorityError("get the certificate signed", err)
	}
	cert, err := newCertificate(key, chain)
	if err == nil {
		err = m.check(cert)
	}
	if err != nil {
		return nil, m.authorityError("get the certificate signed", err)
	}
	return cert, nil
}

// authorize shows the authority that our names are ours, if it does not know.
func (m *Manager) authorize(ctx context.Context, ca *acme.Client, web *http.Client, authzURL string, addrs []multiaddr.Addr) error {
	authz, err := ca.GetAuthorization(ctx, authzURL)
	if err != nil {
		return m.authorityError("get a challenge", err)
	}
	if authz.Status == acme.StatusValid {
		return nil
	}
	i := slices.IndexFunc(authz.Challenges, func(c *acme.Challenge) bool { return c.Type == "dns-01" })
	if i < 0 {
		return m.authorityError("get a challenge", errors.New("it offers none by DNS: use another one as Config.Directory"))
	}
	challenge := authz.Challenges[i]
	value, err := ca.DNS01ChallengeRecord(challenge.Token)
	if err != nil {
		return m.authorityError("get a challenge", err)
	}
	if err := m.register(ctx, web, value, addrs); err != nil {
		return err
	}
	if err := m.awaitRecord(ctx, value); err != nil {
		return err
	}
	if _, err := ca.Accept(ctx, challenge); err != nil {
		return m.authorityError("have the challenge checked", err)
	}
	ctx, cancel := context.WithTimeout(ctx, acmeTimeout)
	defer cancel()
	if _, err := ca.WaitAuthorization(ctx, authzURL); err != nil {
		return m.authorityError("have the challenge checked", err)
	}
	return nil
}

// finalize returns the signed chain.
func (m *Manager) finalize(ctx context.Context, ca *acme.Client, order *acme.Order, request []byte) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, acmeTimeout)
	defer cancel()
	ready, err := ca.WaitOrder(ctx, order.URI)
	if err != nil {
		return nil, err
	}
	chain, _, err := ca.CreateOrderCert(ctx, ready.FinalizeURL, request, true)
	if err == nil {
		return chain, nil
	}
	// The answer was lost, or does not say where the order is, which RFC 8555 lets
	// it leave out: the order knows whether it was accepted.
	if now, waitErr := ca.WaitOrder(ctx, order.URI); waitErr == nil && now.Status == acme.StatusValid {
		return ca.FetchCert(ctx, now.CertURL, true)
	}
	return nil, err
}

// register has the service publish the challenge's value.
func (m *Manager) register(ctx context.Context, web *http.Client, value string, addrs []multiaddr.Addr) error {
	body, err := json.Marshal(struct {
		Value     string           `json:"value"`
		Addresses []multiaddr.Addr `json:"addresses"`
	}{value, addrs})
	if err != nil {
		return fmt.Errorf("autotls: %w", err)
	}
	m.auth.http = web
	a, err := m.auth.post(ctx, m.registration.JoinPath(challengePath), body)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("autotls: register the challenge at %s: it takes too long: if that stays, check Config.Registration: %w", m.registration.Host, foreign(err))
	} else if err != nil {
		return fmt.Errorf("autotls: register the challenge at %s: %w%s", m.registration.Host, foreign(err), hint(err))
	}
	switch {
	case a.status == http.StatusOK:
		return nil
	case a.status == http.StatusBadRequest:
		return fmt.Errorf("autotls: the registration service at %s %w: open or forward the ports of %s: it says %.500q",
			m.registration.Host, errUnreachable, list(addrs), a.body)
	case a.status == http.StatusTooManyRequests:
		return &delayError{parseSeconds(a.header.Get("Retry-After")), fmt.Errorf("autotls: the registration service at %s was asked too often, which goes by: it says %.500q", m.registration.Host, a.body)}
	}
	return fmt.Errorf("autotls: the registration service at %s answers %d %.500q: if that stays, check Config.Registration", m.registration.Host, a.status, a.body)
}

// awaitRecord waits until the value is published.
func (m *Manager) awaitRecord(ctx context.Context, value string) error {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	name := "_acme-challenge." + m.parent + "."
	last := errors.New("nothing was found")
	for pause := dnsPause; sleep(ctx, pause); pause = min(2*pause, maxDNSPause) {
		err := m.lookUp(ctx, name, value)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
	}
	return fmt.Errorf("autotls: the challenge is not published as %s within %s: check that this machine can ask name servers: %w", name, dnsTimeout, last)
}

// lookUp looks for a TXT record with the value. The name servers of the domain are
// asked first: others would keep the answer that there is none.
func (m *Manager) lookUp(ctx context.Context, name, value string) error {
	if m.cfg.Resolver != nil {
		return lookUpAt(ctx, m.cfg.Resolver, name, value)
	}
	if at := m.nameServers(ctx); at != nil && lookUpAt(ctx, at, name, value) == nil {
		return nil
	}
	return lookUpAt(ctx, m.system, name, value)
}

func lookUpAt(ctx context.Context, at *net.Resolver, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	records, err := at.LookupTXT(ctx, name)
	if err != nil {
		return err
	}
	if !slices.Contains(records, value) {
		return errors.New("another challenge is published")
	}
	return nil
}

// nameServers returns a resolver that asks the name servers of the domain, nil if
// they are not found.
func (m *Manager) nameServers(ctx context.Context) *net.Resolver {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	servers, err := m.system.LookupNS(ctx, m.cfg.Domain+".")
	if err != nil || len(servers) == 0 {
		return nil
	}
	servers = servers[:min(len(servers), maxNameServers)]
	var turn atomic.Uint32
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			server := servers[int(turn.Add(1))%len(servers)]
			return m.dial(ctx, network, net.JoinHostPort(server.Host, "53"))
		},
	}
}

// client returns the client for one attempt.
func (m *Manager) client() *http.Client {
	var c http.Client
	if m.cfg.HTTP != nil {
		c = *m.cfg.HTTP
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: maxAnswerHeader,
		}
	}
	c.Transport = &bounded{next: c.Transport, left: maxRequests}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Timeout <= 0 || c.Timeout > requestTimeout {
		c.Timeout = requestTimeout
	}
	return &c
}

// bounded bounds how many requests are sent, and the size of the answers' bodies.
// It is used by one goroutine.
type bounded struct {
	next http.RoundTripper
	left int
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.left--; b.left < 0 {
		return nil, fmt.Errorf("autotls: more than %d requests for one certificate", maxRequests)
	}
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{resp.Body, maxAnswer}
	return resp, nil
}

// CloseIdleConnections is called by http.Client's.
func (b *bounded) CloseIdleConnections() {
	(&http.Client{Transport: b.next}).CloseIdleConnections()
}

// A boundedBody is a body of which at most left bytes can be read.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if n > b.left {
		return b.left, fmt.Errorf("autotls: an answer of more than %d bytes", maxAnswer)
	}
	b.left -= n
	return n, err
}

// authorityError says which step at the ACME authority failed, and what to do.
func (m *Manager) authorityError(step string, err error) error {
	host := m.directory.Host
	var refused *acme.Error
	switch {
	case errors.As(err, &refused) && strings.HasSuffix(refused.ProblemType, ":rateLimited"):
		pause, _ := acme.RateLimit(refused)
		return &delayError{pause, fmt.Errorf("autotls: %s at %s: it allows no more for now: keep Config.Dir over restarts, so that fewer are needed: %w", step, host, foreign(err))}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("autotls: %s at %s: it takes too long: if that stays, look at the authority's status page: %w", step, host, foreign(err))
	}
	return fmt.Errorf("autotls: %s at %s: %w%s", step, host, foreign(err), hint(err))
}

// hint says what to do about an error of the network.
func hint(err error) string {
	var network *net.OpError
	var name *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return ": its certificate is not trusted: check this machine's clock and roots, or give Config.HTTP those of a private authority"
	case errors.As(err, &network), errors.As(err, &name), errors.Is(err, io.EOF):
		return ": check that this machine can open outgoing HTTPS connections"
	}
	return ""
}

// A delayError is an error with the pause that was asked for.
type delayError struct {
	pause time.Duration
	error
}

func (e *delayError) Unwrap() error { return e.error }

// retryAfter returns the pause that somebody asked for in err, zero if none.
func retryAfter(err error) time.Duration {
	var delay *delayError
	if errors.As(err, &delay) {
		return min(max(delay.pause, 0), maxRetryAfter)
	}
	return 0
}

// retryPause is called before the n-th repetition of a request to the authority.
// A negative pause means to give up.
func retryPause(n int, _ *http.Request, resp *http.Response) time.Duration {
	if n > maxRetries || resp.StatusCode == http.StatusTooManyRequests {
		return -1
	}
	return time.Second << (n - 1)
}

// foreign makes an error with text of somebody else fit to be shown.
func foreign(err error) error { return &foreignError{err} }

type foreignError struct{ err error }

func (e *foreignError) Unwrap() error { return e.err }

func (e *foreignError) Error() string {
	text := e.err.Error()
	if len(text) > maxForeignText {
		text = text[:maxForeignText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// parseSeconds reads a Retry-After header in seconds, zero if it is none.
func parseSeconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// list writes the first of the addresses.
func list(addrs []multiaddr.Addr) string {
	const most = 3
	var texts []string
	for _, a := range addrs[:min(len(addrs), most)] {
		texts = append(texts, a.String())
	}
	if len(addrs) > most {
		texts = append(texts, "…")
	}
	return strings.Join(texts, ", ")
}
