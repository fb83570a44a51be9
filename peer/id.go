package peer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/kith-p2p/kith/internal/multibase"
)

// An ID names a peer: it is the hash of the peer's public key, or the key
// itself where that is short. The zero ID names nobody.
//
// IDs are comparable, and one key has exactly one ID. They print and marshal as
// base58 text, and as the bytes of a multihash. The order of Compare is that of
// the bytes.
//
// Spec: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#peer-ids
type ID struct {
	mh string // multihash; valid, or empty for the zero ID
}

const (
	multihashIdentity = 0x00
	multihashSHA256   = 0x12

	// maxInlineKey is the longest encoded public key that its ID holds as it is,
	// in bytes. Longer ones are hashed.
	// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#peer-ids
	maxInlineKey = 42

	// maxIDText is the longest text that ParseID looks at, in bytes: the longest
	// ID takes 83, as a CID in hexadecimal. Conversion takes quadratic time.
	maxIDText = 96
)

// The bytes before the multihash in a CID: version 1, codec libp2p-key.
// https://github.com/multiformats/multicodec/blob/master/table.csv
const cidPrefix = "\x01\x72"

var errTooLong = errors.New("too long")

// ParseID reads the text of an ID: base58 ("12D3KooW…", "Qm…"), or a CIDv1 with
// the codec libp2p-key in base 16, 32, 36, 58 or 64 ("bafz…", "k51…").
func ParseID(s string) (ID, error) {
	id, err := parseID(s)
	if err != nil {
		return ID{}, fmt.Errorf("peer: %q is not a peer ID: %w", clip(s), err)
	}
	return id, nil
}

// IDFromBytes reads the multihash of an ID. It accepts what libp2p makes and
// nothing else: a SHA-256 hash, or a whole Ed25519 or secp256k1 public key.
func IDFromBytes(b []byte) (ID, error) {
	if err := checkMultihash(b); err != nil {
		return ID{}, fmt.Errorf("peer: % x is not a peer ID: %w", clip(b), err)
	}
	return ID{string(b)}, nil
}

// Bytes returns a copy of the multihash, nil for the zero ID.
func (id ID) Bytes() []byte {
	if id.IsZero() {
		return nil
	}
	return []byte(id.mh)
}

// String returns the base58 text, "" for the zero ID. It takes part of a
// microsecond and one allocation: keep IDs, not their texts.
func (id ID) String() string {
	var buf [64]byte
	return string(multibase.AppendBase58(buf[:0], id.mh))
}

// ShortString returns the two first and the six last characters of the base58
// text, as go-libp2p's logs do. It is for people: it does not identify a peer.
func (id ID) ShortString() string {
	var buf [64]byte
	text := multibase.AppendBase58(buf[:0], id.mh)
	if len(text) <= 10 {
		return string(text)
	}
	return string(text[:2]) + "*" + string(text[len(text)-6:])
}

// CID returns the text of the ID as a CIDv1 in base32 ("bafz…"), as DNS names
// and IPNS paths need it, "" for the zero ID.
func (id ID) CID() string {
	if id.IsZero() {
		return ""
	}
	var buf [80]byte
	return string(multibase.Base32.AppendEncode(append(buf[:0], 'b'), cidPrefix+id.mh))
}

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id.mh == "" }

// Compare returns -1, 0 or +1 by the order of the bytes.
func (id ID) Compare(other ID) int { return strings.Compare(id.mh, other.mh) }

// PublicKey returns the public key that the ID holds. It is false where the ID
// is a hash, as with RSA and ECDSA, and where what it holds is no usable key.
func (id ID) PublicKey() (PublicKey, bool) {
	if id.IsZero() || id.mh[0] != multihashIdentity {
		return PublicKey{}, false
	}
	key, err := UnmarshalPublicKey([]byte(id.mh[2:]))
	return key, err == nil
}

// MarshalText returns the base58 text, empty for the zero ID.
func (id ID) MarshalText() ([]byte, error) {
	return multibase.AppendBase58(nil, id.mh), nil
}

// UnmarshalText reads what ParseID reads, and empty text as the zero ID.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	if len(text) > maxIDText {
		text = text[:maxIDText+1] // still too long, without a copy of it all
	}
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// MarshalBinary returns the multihash, empty for the zero ID.
func (id ID) MarshalBinary() ([]byte, error) { return id.Bytes(), nil }

// UnmarshalBinary reads what IDFromBytes reads, and no bytes as the zero ID.
func (id *ID) UnmarshalBinary(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := IDFromBytes(b)
	if err == nil {
		*id = parsed
	}
	return err
}

// idFromKey derives the ID of an encoded public key.
func idFromKey(key string) ID {
	if len(key) <= maxInlineKey {
		return ID{string([]byte{multihashIdentity, byte(len(key))}) + key}
	}
	hash := sha256.Sum256([]byte(key))
	return ID{string([]byte{multihashSHA256, sha256.Size}) + string(hash[:])}
}

func parseID(s string) (ID, error) {
	var buf [64]byte
	switch {
	case s == "":
		return ID{}, errors.New("it is empty")
	case len(s) > maxIDText:
		return ID{}, errTooLong
	case s[0] == '1' || strings.HasPrefix(s, "Qm"):
		mh, err := multibase.AppendDecodeBase58(buf[:0], s)
		if err != nil {
			return ID{}, err
		}
		return idFromMultihash(mh)
	}
	cid, err := multibase.AppendDecode(buf[:0], s)
	if err != nil {
		return ID{}, err
	}
	if !bytes.HasPrefix(cid, []byte(cidPrefix)) {
		return ID{}, errors.New("it is not a CIDv1 with the codec libp2p-key")
	}
	return idFromMultihash(cid[len(cidPrefix):])
}

func idFromMultihash(mh []byte) (ID, error) {
	if err := checkMultihash(mh); err != nil {
		return ID{}, err
	}
	return ID{string(mh)}, nil
}

// checkMultihash accepts the multihashes that idFromKey makes. It looks at the
// form of an inlined key but does no arithmetic, since IDs come by the hundred.
func checkMultihash(mh []byte) error {
	if len(mh) < 2 || int(mh[1]) != len(mh)-2 {
		return fmt.Errorf("a multihash of %d bytes has another length", len(mh))
	}
	switch mh[0] {
	case multihashSHA256:
		if len(mh) != 2+sha256.Size {
			return fmt.Errorf("a SHA-256 hash has %d bytes, not %d", sha256.Size, len(mh)-2)
		}
		return nil
	case multihashIdentity:
		typ, data, err := splitKey(mh[2:])
		switch {
		case err != nil:
			return err
		case typ == Ed25519 && len(data) == ed25519PublicLen:
			return nil
		case typ == Secp256k1 && len(data) == secp256k1PublicLen:
			return nil
		}
		return fmt.Errorf("%v keys of %d bytes are never inlined", typ, len(data))
	}
	return fmt.Errorf("multihash %#x is neither SHA-256 nor identity", mh[0])
}

// clip shortens a remote's input for an error's text.
func clip[T ~string | ~[]byte](in T) T {
	return in[:min(len(in), maxIDText)]
}
