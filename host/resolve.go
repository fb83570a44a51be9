package host

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Answers of the DNS are a stranger's words.
const (
	// maxResolved is how many addresses of one peer are kept.
	maxResolved = 32
	// maxResolveDepth is how often a dnsaddr may lead to another.
	maxResolveDepth = 4
	// maxLookups bounds the questions that one dial asks.
	maxLookups = 16
	// resolveTimeout bounds all lookups of one dial.
	resolveTimeout = 2 * time.Second
)

// Resolver answers questions to the DNS. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// A resolution is what became of the names among a peer's addresses.
type resolution struct {
	steps   []*step
	failed  []DialAttempt
	elapsed time.Duration
}

// mustResolve tells whether a dial replaces the name in an address. It does not where
// a transport dials it as it is: a certificate can be for the name, and a browser
// looks up names itself. But where others told of the name, what it stands for has to
// be looked at first, except in a browser, which cannot.
func (h *Host) mustResolve(k KnownAddr) bool {
	return isName(k.Addr) && (h.transport(k.Addr) == nil || runtime.GOOS != "js" && k.Source != SourceUser)
}

func isName(a multiaddr.Addr) bool {
	first, _ := a.First()
	switch first.Code() {
	case multiaddr.DNS, multiaddr.DNS4, multiaddr.DNS6, multiaddr.DNSAddr:
		return true
	}
	return false
}

// resolveAll looks up the names in addresses of p, all at the same time. What cannot
// be resolved is reported as failed attempts.
func (h *Host) resolveAll(ctx context.Context, p peer.ID, names []KnownAddr) resolution {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	budget := &lookups{left: maxLookups}
	found := make([]resolving, len(names))
	var running sync.WaitGroup
	for i, k := range names {
		r := &found[i]
		*r = resolving{resolver: h.resolver, peer: p, lookups: budget, asItIs: func(a multiaddr.Addr) bool {
			k.Addr = a
			return !h.mustResolve(k)
		}}
		running.Go(func() { r.err = r.resolve(ctx, k.Addr, 0) })
	}
	running.Wait()
	var all resolution
	for i, k := range names {
		r := &found[i]
		if r.err != nil {
			all.failed = append(all.failed, DialAttempt{Addr: k.Addr, Err: r.err})
		}
		for _, a := range r.found[:min(len(r.found), maxResolved-len(all.steps))] {
			of := k
			of.Addr = a
			all.steps = append(all.steps, newStep(of, k.Addr))
		}
	}
	return all
}

// lookups bounds how many questions a dial asks.
type lookups struct {
	mu   sync.Mutex
	left int
}

func (l *lookups) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left--
	return l.left >= 0
}

// resolving is the resolution of one address.
type resolving struct {
	resolver Resolver
	peer     peer.ID
	lookups  *lookups
	asItIs   func(multiaddr.Addr) bool // a transport dials it with its name
	found    []multiaddr.Addr
	err      error
}

func (r *resolving) resolve(ctx context.Context, a multiaddr.Addr, depth int) error {
	if len(r.found) >= maxResolved {
		return nil
	}
	first, rest := a.SplitFirst()
	network := ""
	switch first.Code() {
	case multiaddr.DNS:
		network = "ip"
	case multiaddr.DNS4:
		network = "ip4"
	case multiaddr.DNS6:
		network = "ip6"
	case multiaddr.DNSAddr:
	default:
		r.found = append(r.found, a)
		return nil
	}
	if network != "" && r.asItIs(a) {
		r.found = append(r.found, a)
		return nil
	}
	if !r.lookups.take() {
		return fmt.Errorf("host: more than %d names to look up for one peer", maxLookups)
	}
	if network == "" {
		return r.resolveDNSAddr(ctx, first.Value(), rest, depth)
	}
	ips, err := r.resolver.LookupNetIP(ctx, network, first.Value())
	if err != nil {
		return fmt.Errorf("host: looking up %s: %w", first.Value(), err)
	}
	rest = named(rest, first.Value())
	for _, ip := range ips {
		ip = ip.Unmap()
		c, err := multiaddr.NewComponent(ipCode(ip), ip.WithZone("").String())
		if err == nil && len(r.found) < maxResolved {
			r.found = append(r.found, multiaddr.Join(c.Addr(), rest))
		}
	}
	return nil
}

// named puts the name that a certificate is for into what follows it in an address,
// since there will be an IP in its place: /tcp/443/wss becomes /tcp/443/tls/sni/NAME/ws.
// https://github.com/libp2p/specs/blob/master/websockets/README.md#addressing
func named(rest multiaddr.Addr, name string) multiaddr.Addr {
	sni, err := multiaddr.NewComponent(multiaddr.SNI, name)
	if err != nil || rest.Has(multiaddr.SNI) {
		return rest
	}
	var out []multiaddr.Addr
	for c := range rest.Components() {
		switch c.Code() {
		case multiaddr.WSS:
			if !rest.Has(multiaddr.TLS) {
				out = append(out, tlsPart)
				out = append(out, sni.Addr())
			}
			out = append(out, wsPart)
		case multiaddr.TLS:
			out = append(out, c.Addr(), sni.Addr())
		default:
			out = append(out, c.Addr())
		}
	}
	return multiaddr.Join(out...)
}

var tlsPart, wsPart = multiaddr.MustParse("/tls"), multiaddr.MustParse("/ws")

// resolveDNSAddr follows /dnsaddr/NAME: TXT records of _dnsaddr.NAME hold whole
// addresses; those that end in what followed the name are meant.
// https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md
func (r *resolving) resolveDNSAddr(ctx context.Context, name string, rest multiaddr.Addr, depth int) error {
	if depth >= maxResolveDepth {
		return fmt.Errorf("host: dnsaddr %s: more than %d names lead to one another", name, maxResolveDepth)
	}
	records, err := r.resolver.LookupTXT(ctx, "_dnsaddr."+name)
	if err != nil {
		return fmt.Errorf("host: looking up _dnsaddr.%s: %w", name, err)
	}
	meant := false
	var failed error
	for _, txt := range records {
		text, ok := strings.CutPrefix(txt, "dnsaddr=")
		if !ok {
			continue
		}
		a, err := multiaddr.Parse(text)
		if err != nil {
			continue
		}
		transport, id := peer.SplitAddr(a)
		if transport.IsZero() || (!id.IsZero() && id != r.peer) || !hasSuffix(transport, rest) {
			continue
		}
		meant = true
		if err := r.resolve(ctx, transport, depth+1); err != nil {
			failed = err
		}
	}
	if !meant {
		return fmt.Errorf("host: dnsaddr %s: no TXT record of _dnsaddr.%s holds an address of the peer", name, name)
	}
	return failed
}

func hasSuffix(a, suffix multiaddr.Addr) bool {
	return strings.HasSuffix(string(a.Bytes()), string(suffix.Bytes()))
}
