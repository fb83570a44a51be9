package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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

// resolveAll replaces DNS names by addresses, except in addresses that a transport
// dials as they are: a certificate can be for the name, and a browser looks up names
// itself. What cannot be resolved is reported as failed attempts.
func (h *Host) resolveAll(ctx context.Context, p peer.ID, addrs []multiaddr.Addr) (resolved []multiaddr.Addr, failed []DialAttempt) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	r := resolving{resolver: h.resolver, peer: p, dialable: func(a multiaddr.Addr) bool {
		return slices.ContainsFunc(h.transports, func(t Transport) bool { return t.CanDial(a) })
	}}
	for _, a := range addrs {
		start := time.Now()
		if err := r.resolve(ctx, a, 0); err != nil {
			failed = append(failed, DialAttempt{Addr: a, Elapsed: time.Since(start), Err: err})
		}
	}
	return r.found, failed
}

// resolving is one run of resolveAll.
type resolving struct {
	resolver Resolver
	peer     peer.ID
	dialable func(multiaddr.Addr) bool // by a transport, with its name
	found    []multiaddr.Addr
	lookups  int
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
	if network != "" && r.dialable(a) {
		r.found = append(r.found, a)
		return nil
	}
	if r.lookups++; r.lookups > maxLookups {
		return fmt.Errorf("host: more than %d names to look up for one peer", maxLookups)
	}
	if network == "" {
		return r.resolveDNSAddr(ctx, first.Value(), rest, depth)
	}
	ips, err := r.resolver.LookupNetIP(ctx, network, first.Value())
	if err != nil {
		return fmt.Errorf("host: looking up %s: %w", first.Value(), err)
	}
	for _, ip := range ips {
		ip = ip.Unmap()
		c, err := multiaddr.NewComponent(ipCode(ip), ip.WithZone("").String())
		if err == nil && len(r.found) < maxResolved {
			r.found = append(r.found, multiaddr.Join(c.Addr(), rest))
		}
	}
	return nil
}

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
		if err := r.resolve(ctx, transport, depth+1); err != nil {
			failed = err
		}
	}
	return failed
}

func hasSuffix(a, suffix multiaddr.Addr) bool {
	return strings.HasSuffix(string(a.Bytes()), string(suffix.Bytes()))
}
