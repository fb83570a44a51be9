package peer

import (
	"errors"
	"fmt"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
)

// MaxRecordAddrs is how many addresses of a record are read. A node on many
// networks has a few dozen; a record of MaxEnvelopeLen could hold a thousand,
// each of which somebody would dial.
const MaxRecordAddrs = 128

// A Record is what a peer says of itself and signs: where it may be reached. Of
// two records of a peer the one with the higher Seq is the newer. Seq is a time
// with many implementations, but must not be read as one, and of a stranger's
// Seq nothing but the order means anything.
//
// Spec: https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md
type Record struct {
	ID    ID
	Seq   uint64
	Addrs []multiaddr.Addr
}

// What go-libp2p and js-libp2p use, and what Seal makes.
// https://github.com/multiformats/multicodec/blob/master/table.csv
const recordDomain = "libp2p-peer-record"

var recordPayloadType = []byte{0x03, 0x01}

// What RFC 0003 names, for the time before there was a code for peer records.
// rust-libp2p's identify and rendezvous still use it.
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#signed-envelope-domain
const rfcRecordDomain = "libp2p-routing-state"

var rfcRecordPayloadType = []byte("/libp2p/routing-state-record")

// The fields of a record, and of an address in it.
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#address-record-format
const (
	recordID    = 1
	recordSeq   = 2
	recordAddr  = 3
	addressAddr = 1
)

// OpenRecord decodes a record in its signed envelope, and checks that it was
// signed by the peer that it is about. It reads both kinds of envelope in use,
// that of go-libp2p and js-libp2p and that of rust-libp2p. Addresses that are
// empty or cannot be read are left out, since other peers know protocols that we
// do not; so are those after the first MaxRecordAddrs.
//
// It says nothing of who sent the record. A record that a peer sends of itself
// has to be compared with that peer's ID; one of a third peer has to be counted
// against some limit, because any number of them can be made.
func OpenRecord(data []byte) (Record, error) {
	r, err := openRecord(data, recordDomain, recordPayloadType)
	if !errors.Is(err, errPayloadType) {
		return r, err
	}
	if r, rfcErr := openRecord(data, rfcRecordDomain, rfcRecordPayloadType); !errors.Is(rfcErr, errPayloadType) {
		return r, rfcErr
	}
	return Record{}, err
}

// Seal signs the record and returns its envelope. The key has to be that of the
// record's peer. Empty addresses are left out.
func (r Record) Seal(key PrivateKey) ([]byte, error) {
	if r.ID.IsZero() || r.ID != key.ID() {
		return nil, fmt.Errorf("peer: record: %v cannot sign a record about %v", key, r.ID)
	}
	if len(r.Addrs) > MaxRecordAddrs {
		return nil, fmt.Errorf("peer: record: %d addresses are over the limit of %d: leave some out", len(r.Addrs), MaxRecordAddrs)
	}
	return SealEnvelope(key, recordDomain, recordPayloadType, r.marshal())
}

func openRecord(data []byte, domain string, payloadType []byte) (Record, error) {
	var r Record
	_, _, err := OpenEnvelope(data, domain, payloadType, func(payload []byte) (ID, error) {
		var err error
		r, err = unmarshalRecord(payload)
		return r.ID, err
	})
	if err != nil {
		return Record{}, err
	}
	return r, nil
}

func (r Record) marshal() []byte {
	b := wire.AppendBytesField(nil, recordID, []byte(r.ID.mh))
	if r.Seq != 0 { // proto3 leaves out zeros
		b = wire.AppendVarintField(b, recordSeq, r.Seq)
	}
	for _, a := range r.Addrs {
		if a.IsZero() {
			continue // js-libp2p rejects the whole record for it
		}
		b = wire.AppendBytesField(b, recordAddr, wire.AppendBytesField(nil, addressAddr, a.Bytes()))
	}
	return b
}

func unmarshalRecord(payload []byte) (Record, error) {
	var r Record
	var id []byte
	seen := 0 // addresses, the unreadable ones too: they cost as much
	err := wire.Fields(payload, func(f wire.Field) error {
		switch f.Num {
		case recordID:
			return once(&id, f)
		case recordSeq:
			r.Seq = f.Uint // the last one counts, as everywhere: nothing else depends on it
			return f.Want(wire.TypeVarint)
		case recordAddr:
			if seen++; seen > MaxRecordAddrs {
				return nil
			}
			if err := f.Want(wire.TypeBytes); err != nil {
				return err
			}
			a, err := unmarshalAddress(f.Bytes)
			if err == nil && !a.IsZero() {
				r.Addrs = append(r.Addrs, a)
			}
			return err
		}
		return nil
	})
	if err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if id == nil {
		return Record{}, errors.New("record: it names no peer")
	}
	if r.ID, err = idFromMultihash(id); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// unmarshalAddress returns the zero Addr for an address that cannot be read.
func unmarshalAddress(msg []byte) (multiaddr.Addr, error) {
	var raw []byte
	err := wire.Fields(msg, func(f wire.Field) error {
		if f.Num != addressAddr {
			return nil // metadata that later versions may add
		}
		return once(&raw, f)
	})
	if err != nil {
		return multiaddr.Addr{}, err
	}
	a, err := multiaddr.FromBytes(raw)
	if err != nil {
		return multiaddr.Addr{}, nil
	}
	return a, nil
}
