package trace

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

// Why words what became of one address of a dial, and what there is to do about it;
// "" when there is nothing to do. The full error is a.Err.
func Why(a host.DialAttempt) (reason, remedy string) {
	err := a.Err
	if err == nil {
		return "", ""
	}
	var (
		gate  *host.GateError
		limit *host.LimitError
		dns   *net.DNSError
		skip  *host.SkipError

		mismatch *peer.MismatchError
	)
	if errors.As(err, &skip) {
		reason, remedy = notTried(skip.Reason)
		return reason, cmp.Or(skip.Detail, remedy)
	}
	switch {
	case errors.As(err, &gate):
		return "this node's own gate refused: " + gate.Err.Error(), "if the peer is to be let in: kith acl shows and changes the list, a program its Config.Gate"
	case errors.As(err, &limit):
		return err.Error(), "close connections that are not needed, or raise the limit: see kith node --limits"
	case errors.As(err, &dns):
		return explainDNS(dns)
	case errors.Is(err, host.ErrDialSelf), isSelf(err):
		return "the address leads to this node itself", "drop it from the addresses of the peer"
	}
	if errors.Is(err, host.ErrNoAddrs) {
		return "no address of the peer is known", "give one, or let a discovery find the peer: is it running, and on this network?"
	}
	if reason, remedy = notTried(err); reason != "" {
		return reason, remedy
	}
	switch {
	case has(err, "holds an address of the peer"):
		return err.Error(), "is the peer ID right? The name is there, but stands for other peers"
	case has(err, "names lead to one another", "names to look up"):
		return err.Error(), "whoever keeps the names has to mend them; use an address with an IP until then"
	case errors.Is(err, context.Canceled), isTimeout(err): // the dial was given up while it waited
		return explainTimeout(a)
	case errors.Is(err, syscall.ECONNREFUSED), has(err, "connection refused", "actively refused"):
		return "connection refused: the machine is there, and nothing listens on this port", "start the peer, or ask it for its address now: kith node prints it"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL),
		has(err, "network is unreachable", "no route to host", "unreachable network", "unreachable host"):
		if ip, ok := a.Addr.IP(); ok && ip.Is6() && !ip.Is4In6() {
			return "this machine has no way to IPv6 addresses like this one", "nothing, if the peer has IPv4 addresses too; else this network must offer IPv6"
		}
		return "this machine has no route to the address", "look at the network connection; a private address is reached from its own network alone"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the operating system forbade it", "look at this machine's firewall and at what the process may do"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "this process has no file descriptors left", "raise ulimit -n, or lower Limits.Conns"
	case errors.As(err, &mismatch):
		return "another peer has answered: " + mismatch.Got.String(), "the address is another peer's now: ask for a new one, or dial the ID that answered if it is the one wanted"
	case has(err, "other private network", "another private network"):
		return err.Error(), "give both ends the same --psk file, or none"
	case has(err, "takes no connections now", "does not say why", "gated", "made way for others", "shutting down", "resource limit exceeded", "rate limited"):
		return "the peer turned us away: " + err.Error(), "the peer decides: it is full, or does not let us in; try later, or ask who runs it"
	case has(err, "not supported"):
		return "no common protocol for " + what(a.Stage) + ": " + err.Error(), "leave --security away on both ends; a peer this old or this new may need another transport"
	case errors.Is(err, syscall.ECONNRESET), has(err, "connection reset", "EOF", "broken pipe"):
		return "the other end hung up during " + a.Stage.String(), "is it a libp2p peer that listens on this port? It may also be full, or in a private network (--psk)"
	}
	return err.Error(), "see the log of both ends: kith node --verbose"
}

// notTried words why an address was not tried.
func notTried(err error) (reason, remedy string) {
	switch {
	case errors.Is(err, host.ErrNotNeeded):
		return "another address was faster", ""
	case errors.Is(err, host.ErrBackoff):
		return "it failed lately, and a dial in the background does not insist", "an explicit dial tries it at once"
	case errors.Is(err, host.ErrBlackHole):
		return "in this network nothing of its kind has got through", "nothing, if the peer has other addresses; else ask who runs this network to let it through (UDP, or IPv6)"
	case errors.Is(err, host.ErrPaced):
		return "its IP was dialed too often on the word of others", "wait a minute, or give the address yourself"
	case errors.Is(err, host.ErrInFlight):
		return "another dial to the same port is under way", ""
	case errors.Is(err, host.ErrTooManyAddrs):
		return "the peer has more addresses than one dial tries", "give the address that is wanted yourself"
	case errors.Is(err, host.ErrForbidden):
		return strings.TrimPrefix(err.Error(), "host: "), "if you trust the address, give it yourself"
	case errors.Is(err, host.ErrNoTransport):
		return "this node speaks no transport of this kind", "add one to the node; in a private network (--psk) there are TCP, WebSocket and Unix sockets alone"
	}
	return "", ""
}

func explainDNS(err *net.DNSError) (reason, remedy string) {
	switch {
	case err.IsNotFound && strings.HasPrefix(err.Name, "_dnsaddr."):
		return "there is no name " + err.Name + " in the DNS", "look for a typing error; /dnsaddr needs TXT records of this name, each with dnsaddr=/… in it"
	case err.IsNotFound:
		return "there is no name " + err.Name + " in the DNS", "look for a typing error; /dns4 needs an A record, /dns6 an AAAA record"
	case err.IsTimeout:
		return "the DNS did not answer for " + err.Name, "look at this machine's resolver, or use an address with an IP"
	}
	return "the DNS failed for " + err.Name + ": " + err.Err, "look at this machine's resolver, or use an address with an IP"
}

func explainTimeout(a host.DialAttempt) (reason, remedy string) {
	if a.Stage > host.StageStart {
		return "no answer in time during " + a.Stage.String(), "something listens there: is it a libp2p peer, and not overloaded? A proxy or an inspecting firewall can do this too"
	}
	if _, code, ok := a.Addr.AddrPort(); ok && code == multiaddr.UDP {
		return "no answer in time", "is the peer running, is its UDP port open, and does this network let UDP through? TCP often works where UDP does not"
	}
	return "no answer in time", "is the peer running, and is its port reachable from here? A firewall or NAT that drops packets looks like this"
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func isSelf(err error) bool { return has(err, "connect to itself") }

// has looks for words where an error has no type that this package knows: those of
// other operating systems, and those of packages above host.
func has(err error, words ...string) bool {
	text := err.Error()
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// what names the step that a dial was at.
func what(s host.Stage) string {
	if s >= host.StageSecured {
		return "the muxer"
	}
	return "the secure channel"
}
