package host

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
)

// A NetworkID names the network that this machine is in, as far as the machine can
// tell one from another: what worked in one says little of the next. 0: none.
type NetworkID uint64

// network is where this machine is now.
func (h *Host) network() NetworkID {
	if id := h.net.Load(); id != nil {
		return *id
	}
	return h.lookAround()
}

// lookAround finds out where this machine is.
func (h *Host) lookAround() NetworkID {
	id := networkID(attachments())
	if old := h.net.Swap(&id); old != nil && *old != id {
		h.forgetObserved()
		h.hub.emit(NetworkChanged{Network: id})
	}
	return id
}

// An attachment is a way in which this machine is part of a network.
type attachment struct {
	iface  string
	prefix netip.Prefix // of the network; masked
}

// networkID makes one name of all attachments, in any order.
func networkID(at []attachment) NetworkID {
	if len(at) == 0 {
		return 0
	}
	at = slices.Clone(at)
	slices.SortFunc(at, func(a, b attachment) int {
		return cmp.Or(cmp.Compare(a.iface, b.iface), a.prefix.Compare(b.prefix))
	})
	hash := fnv.New64a()
	for _, a := range slices.Compact(at) {
		name, _ := a.prefix.MarshalBinary()
		hash.Write(binary.BigEndian.AppendUint16(nil, uint16(len(a.iface))))
		hash.Write([]byte(a.iface))
		hash.Write([]byte{byte(len(name))})
		hash.Write(name)
	}
	return NetworkID(max(hash.Sum64(), 1))
}

// Packets to these addresses, which are for documentation and belong to nobody,
// would leave as those to the internet do. None is sent.
var (
	anywhere4 = netip.MustParseAddrPort("192.0.2.1:9")
	anywhere6 = netip.MustParseAddrPort("[2001:db8::1]:9")
)

// attachments are those over which packets leave for the internet, or else all.
func attachments() []attachment {
	var all, routed []attachment
	from := [2]netip.Addr{sourceTo(anywhere4), sourceTo(anywhere6)}
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, iface := range ifaces {
		if iface.Flags&net.FlagUp == 0 || iface.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, ok := prefixOf(a)
			if !ok || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			at := attachment{iface.Name, p.Masked()}
			all = append(all, at)
			if slices.Contains(from[:], p.Addr()) {
				routed = append(routed, at)
			}
		}
	}
	if len(routed) > 0 {
		return routed
	}
	return all
}

// prefixOf is an address of an interface with the length of its network.
func prefixOf(a net.Addr) (netip.Prefix, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	bits, of := n.Mask.Size()
	if ip = ip.Unmap(); !ok || of != ip.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(ip, bits), true
}

// sourceTo tells from which of our addresses a packet to ap would leave; the zero
// Addr: there is no way.
func sourceTo(ap netip.AddrPort) netip.Addr {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(ap)) // sends nothing
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap().WithZone("")
}
