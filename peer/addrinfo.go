package peer

import (
	"errors"
	"fmt"

	"github.com/kith-p2p/kith/multiaddr"
)

// An AddrInfo says who a peer is and where it may be reached. The addresses do
// not name the peer: "/ip4/192.0.2.1/tcp/4001", without "/p2p/12D3KooW…" at the
// end.
type AddrInfo struct {
	ID    ID
	Addrs []multiaddr.Addr
}

// ParseAddrInfo reads an address that ends in the peer's ID, such as
// "/dns4/example.com/tcp/4001/p2p/12D3KooW…", or "/p2p/12D3KooW…" alone.
func ParseAddrInfo(s string) (AddrInfo, error) {
	a, err := multiaddr.Parse(s)
	if err != nil {
		return AddrInfo{}, fmt.Errorf("peer: address: %w", err)
	}
	return AddrInfoFromAddr(a)
}

// AddrInfoFromAddr splits an address that ends in a peer's ID. The ID is that of
// the last component: in "…/p2p/A/p2p-circuit/p2p/B" the peer is B, and A is the
// relay that its address leads through.
func AddrInfoFromAddr(a multiaddr.Addr) (AddrInfo, error) {
	transport, last := a.SplitLast()
	if last.Code() != multiaddr.P2P {
		return AddrInfo{}, fmt.Errorf("peer: address %q does not end in the peer it leads to: add /p2p/ and its ID", clip(a.String()))
	}
	id, err := IDFromBytes(last.Bytes())
	if err != nil {
		return AddrInfo{}, err
	}
	if transport.IsZero() {
		return AddrInfo{ID: id}, nil
	}
	return AddrInfo{ID: id, Addrs: []multiaddr.Addr{transport}}, nil
}

// SplitAddr cuts the peer's ID off the end of an address. Where there is none,
// or none that a key can have, it returns the address as it is and the zero ID.
func SplitAddr(a multiaddr.Addr) (transport multiaddr.Addr, id ID) {
	transport, last := a.SplitLast()
	if last.Code() != multiaddr.P2P {
		return a, ID{}
	}
	id, err := IDFromBytes(last.Bytes())
	if err != nil {
		return a, ID{}
	}
	return transport, id
}

// P2PAddrs returns each address with the peer's ID at the end, for people to
// hand on. Without addresses it returns "/p2p/ID" alone. Left out are addresses
// that nothing can follow, as a Unix path; for the zero ID it returns none.
func (ai AddrInfo) P2PAddrs() []multiaddr.Addr {
	suffix, err := ai.suffix()
	if err != nil {
		return nil
	}
	if len(ai.Addrs) == 0 {
		return []multiaddr.Addr{suffix}
	}
	addrs := make([]multiaddr.Addr, 0, len(ai.Addrs))
	for _, a := range ai.Addrs {
		if _, id := SplitAddr(a); id != ai.ID { // as some peers announce theirs
			a = a.Encapsulate(suffix)
		}
		if !a.IsZero() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// String returns the ID and the addresses, for logs.
func (ai AddrInfo) String() string {
	return fmt.Sprintf("%v %v", ai.ID, ai.Addrs)
}

func (ai AddrInfo) suffix() (multiaddr.Addr, error) {
	if ai.ID.IsZero() {
		return multiaddr.Addr{}, errors.New("no ID")
	}
	c, err := multiaddr.NewComponent(multiaddr.P2P, ai.ID.String())
	return c.Addr(), err
}
