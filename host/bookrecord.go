//kith:pure

package host

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
)

// What is stored of a peer is a protobuf message, of which later versions may have
// more fields:
//
//	message Peer    { repeated Address address = 1; bool connected = 2; }
//	message Address { bytes addr = 1; uint64 source = 2; bool told = 3; bool certified = 4;
//	                  uint64 expires = 5; repeated Path path = 6; }
//	message Path    { uint64 network = 1; uint64 success = 2; uint64 failure = 3;
//	                  uint64 microseconds = 4; uint64 failures = 5; }
//
// Times are in seconds since 1970; an address without one does not expire while the
// program runs.
const (
	peerAddress, peerConnected = 1, 2

	addressAddr, addressSource, addressTold, addressCertified, addressExpires, addressPath = 1, 2, 3, 4, 5, 6

	pathNetwork, pathSuccess, pathFailure, pathMicroseconds, pathFailures = 1, 2, 3, 4, 5
)

// maxTook is the longest time a dial is believed to have taken.
const maxTook = time.Minute

// appendRecord encodes what is stored of a peer; nothing when there is nothing.
func (e *bookEntry) appendRecord(b []byte) []byte {
	begin := len(b)
	room := maxIdleAddrs
	var one, path []byte
	for i := range e.addrs {
		k := &e.addrs[i]
		if k.source != SourceUser && k.addr.Len() > room {
			continue
		}
		room -= k.addr.Len()
		one = wire.AppendBytesField(one[:0], addressAddr, k.addr.Bytes())
		one = wire.AppendVarintField(one, addressSource, uint64(k.source))
		one = appendFlag(one, addressTold, k.told)
		one = appendFlag(one, addressCertified, k.certified)
		if k.expires != forever {
			one = wire.AppendVarintField(one, addressExpires, seconds(k.expires))
		}
		for _, p := range k.paths {
			path = wire.AppendVarintField(path[:0], pathNetwork, uint64(p.network))
			path = wire.AppendVarintField(path, pathSuccess, seconds(p.success))
			path = wire.AppendVarintField(path, pathFailure, seconds(p.failure))
			path = wire.AppendVarintField(path, pathMicroseconds, uint64(p.took.Microseconds()))
			path = wire.AppendVarintField(path, pathFailures, uint64(p.failures))
			one = wire.AppendBytesField(one, addressPath, path)
		}
		b = wire.AppendBytesField(b, peerAddress, one)
	}
	if len(b) > begin {
		b = appendFlag(b, peerConnected, e.connected)
	}
	return b
}

func appendFlag(b []byte, field int, yes bool) []byte {
	if yes {
		b = wire.AppendVarintField(b, field, 1)
	}
	return b
}

// seconds rounds up, so that what was not never is not afterwards.
func seconds(ns int64) uint64 {
	return uint64((max(ns, 0) + int64(time.Second) - 1) / int64(time.Second))
}

// decodeRecord reads what was stored of a peer, at a time that can be long after, or
// before when the clock was set. It trusts nothing: no time is in the future, no
// address lives longer than one that has just worked, and there are no more of
// anything than the book keeps.
func decodeRecord(record []byte, now int64) (addrs []bookAddr, err error) {
	connected := false
	err = wire.Fields(record, func(f wire.Field) error {
		switch f.Num {
		case peerAddress:
			if err := f.Want(wire.TypeBytes); err != nil {
				return err
			}
			a, err := decodeAddress(f.Bytes, now)
			if err != nil {
				return err
			}
			if len(addrs) < maxAddrsPerPeer && !slices.ContainsFunc(addrs, func(k bookAddr) bool { return k.addr == a.addr }) {
				addrs = append(addrs, a)
			}
		case peerConnected:
			connected = f.Uint != 0
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("host: a peer in the store: %w", err)
	}
	// While there was a connection the times of the addresses were not extended.
	for i := range addrs {
		if k := &addrs[i]; connected {
			k.expires = max(k.expires, now+int64(TTLTold))
		}
	}
	return slices.Clip(slices.DeleteFunc(addrs, func(k bookAddr) bool { return k.expires < now })), nil
}

func decodeAddress(b []byte, now int64) (a bookAddr, err error) {
	a.expires = forever
	err = wire.Fields(b, func(f wire.Field) (err error) {
		want := wire.TypeVarint
		if f.Num == addressAddr || f.Num == addressPath {
			want = wire.TypeBytes
		}
		if f.Num >= addressAddr && f.Num <= addressPath {
			if err := f.Want(want); err != nil {
				return err
			}
		}
		switch f.Num {
		case addressAddr:
			a.addr, err = multiaddr.FromBytes(f.Bytes)
		case addressSource:
			if f.Uint <= uint64(SourceUser) {
				a.source = Source(f.Uint)
			}
			if a.source == SourcePresent { // it was; who has that IP now?
				a.source = SourcePeer
			}
		case addressTold:
			a.told = f.Uint != 0
		case addressCertified:
			a.certified = f.Uint != 0
		case addressExpires:
			a.expires = nanoseconds(f.Uint)
		case addressPath:
			if len(a.paths) == maxPaths {
				return nil
			}
			p, err := decodePath(f.Bytes, now)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(a.paths, func(k bookPath) bool { return k.network == p.network }) {
				a.paths = append(a.paths[:len(a.paths):len(a.paths)], p)
			}
		}
		return err
	})
	if err == nil && a.addr.IsZero() {
		err = fmt.Errorf("an address is missing")
	}
	// That something is configured the configuration says, not the store.
	a.expires = min(a.expires, now+int64(TTLWorked))
	return a, err
}

func decodePath(b []byte, now int64) (p bookPath, err error) {
	err = wire.Fields(b, func(f wire.Field) error {
		if f.Num >= pathNetwork && f.Num <= pathFailures {
			if err := f.Want(wire.TypeVarint); err != nil {
				return err
			}
		}
		switch f.Num {
		case pathNetwork:
			p.network = NetworkID(f.Uint)
		case pathSuccess:
			p.success = min(nanoseconds(f.Uint), now)
		case pathFailure:
			p.failure = min(nanoseconds(f.Uint), now)
		case pathMicroseconds:
			p.took = time.Duration(min(f.Uint, uint64(maxTook.Microseconds()))) * time.Microsecond
		case pathFailures:
			p.failures = uint8(min(f.Uint, math.MaxUint8))
		}
		return nil
	})
	return p, err
}

func nanoseconds(s uint64) int64 {
	return int64(min(s, math.MaxInt64/uint64(time.Second))) * int64(time.Second)
}
