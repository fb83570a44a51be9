package peer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kith-p2p/kith/internal/wire"
)

// A KeyType is a signature scheme for identities. Its numbers are those of the
// wire. https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys
type KeyType uint8

// The key types. Ed25519 is the one to choose: every implementation has it, its
// keys are short enough to be part of the peer ID, and it is the fastest.
const (
	RSA       KeyType = 0 // 2048 to 8192 bits; signatures are PKCS #1 v1.5 over SHA-256
	Ed25519   KeyType = 1 // signatures are over the message itself
	Secp256k1 KeyType = 2 // signatures are DER over SHA-256
	ECDSA     KeyType = 3 // curve P-256 only; signatures are DER over SHA-256
)

// String returns "RSA", "Ed25519", "Secp256k1" or "ECDSA".
func (t KeyType) String() string {
	switch t {
	case RSA:
		return "RSA"
	case Ed25519:
		return "Ed25519"
	case Secp256k1:
		return "Secp256k1"
	case ECDSA:
		return "ECDSA"
	}
	return fmt.Sprintf("KeyType(%d)", uint8(t))
}

// ParseKeyType reads the name of a key type, in any case.
func ParseKeyType(s string) (KeyType, error) {
	for t := RSA; t <= ECDSA; t++ {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("peer: no key type %q: choose Ed25519, Secp256k1, ECDSA or RSA", clip(s))
}

// A PublicKey verifies the signatures of one peer. It is an immutable value and
// comparable: two keys are equal exactly if they are ==. The zero PublicKey is
// none, and verifies nothing.
type PublicKey struct {
	proto string // canonical encoding; empty for the zero PublicKey
}

// UnmarshalPublicKey decodes the protobuf of a public key. Only the one
// canonical encoding of a usable key is accepted, so that a key has one peer ID:
// no other order, unknown field, longer varint or byte too many, no second form
// of the key itself, no Ed25519 point of small order, no RSA key that is slow or
// weak, no curve but P-256. Oversized keys are refused by their length alone.
func UnmarshalPublicKey(b []byte) (PublicKey, error) {
	key, err := unmarshalPublicKey(b)
	if err != nil {
		return PublicKey{}, fmt.Errorf("peer: %w", err)
	}
	return key, nil
}

// Verify reports whether sig is this key's signature of msg.
//
// Which forms of a signature are accepted: the only one that exists for Ed25519
// and RSA; strict DER with the lower of the two values of S for secp256k1, as
// all implementations sign and most insist on; strict DER with either S for
// ECDSA, since implementations sign with either. So a second valid signature can
// be derived from an ECDSA one: never take signature bytes for an identifier.
func (k PublicKey) Verify(msg, sig []byte) bool {
	if k.IsZero() {
		return false
	}
	switch data := k.data(); k.Type() {
	case RSA:
		return verifyRSA(data, msg, sig)
	case Ed25519:
		return verifyEd25519(data, msg, sig)
	case Secp256k1:
		return verifySecp256k1(data, msg, sig)
	case ECDSA:
		return verifyECDSA(data, msg, sig)
	}
	return false
}

// ID returns the peer ID of the key, the zero ID for the zero PublicKey.
func (k PublicKey) ID() ID {
	if k.IsZero() {
		return ID{}
	}
	return idFromKey(k.proto)
}

// Type returns the type of the key. That of the zero PublicKey has no meaning.
func (k PublicKey) Type() KeyType {
	if k.IsZero() {
		return 0
	}
	return KeyType(k.proto[1])
}

// Raw returns the key as its type encodes it: 32 bytes for Ed25519, a compressed
// point for secp256k1, a PKIX structure in DER for RSA and ECDSA.
func (k PublicKey) Raw() []byte {
	if k.IsZero() {
		return nil
	}
	return []byte(k.data())
}

// Marshal returns the protobuf of the key, nil for the zero PublicKey.
func (k PublicKey) Marshal() []byte {
	if k.IsZero() {
		return nil
	}
	return []byte(k.proto)
}

// Equal reports whether both keys are the same, as == does.
func (k PublicKey) Equal(other PublicKey) bool { return k == other }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k.proto == "" }

// String returns the type and the peer ID, for logs.
func (k PublicKey) String() string {
	if k.IsZero() {
		return "no public key"
	}
	return fmt.Sprintf("%v public key of %v", k.Type(), k.ID())
}

// data returns what Raw returns, without a copy. The length before it takes one
// byte or, from 128 on, two: no key is as long as to need three.
func (k PublicKey) data() string {
	if k.proto[3] < 0x80 {
		return k.proto[4:]
	}
	return k.proto[5:]
}

// A PrivateKey signs for one peer. It is an immutable value; the zero PrivateKey
// is none. It never shows the key when printed.
type PrivateKey struct {
	key *privateKey
}

// A privateKey has the secret only in functions: what fmt prints of a struct
// with an unexported PrivateKey in it does not go through String, and follows
// pointers, but never functions.
type privateKey struct {
	public  PublicKey
	id      ID
	marshal func() []byte
	sign    func(msg []byte) ([]byte, error)
}

// GenerateKey makes a new key of type t. RSA keys get 2048 bits, which takes
// tenths of a second; ECDSA keys are on the curve P-256.
func GenerateKey(t KeyType) (PrivateKey, error) {
	var key PrivateKey
	var err error
	switch t {
	case RSA:
		key, err = generateRSA()
	case Ed25519:
		key, err = generateEd25519()
	case Secp256k1:
		key, err = generateSecp256k1()
	case ECDSA:
		key, err = generateECDSA()
	default:
		err = fmt.Errorf("type %d is not known", t)
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: generate a key: %w", err)
	}
	return key, nil
}

// UnmarshalPrivateKey decodes the protobuf of a private key, as Marshal and the
// other implementations write it. Ed25519 keys of 96 bytes, as old versions of
// libp2p wrote them, are accepted and marshalled as 64. What a key holds of its
// public half has to be right. Errors never quote the key.
func UnmarshalPrivateKey(b []byte) (PrivateKey, error) {
	key, err := unmarshalPrivateKey(b)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("peer: %w", err)
	}
	return key, nil
}

// Sign signs msg.
func (k PrivateKey) Sign(msg []byte) ([]byte, error) {
	if k.IsZero() {
		return nil, errors.New("peer: sign: no private key")
	}
	sig, err := k.key.sign(msg)
	if err != nil {
		return nil, fmt.Errorf("peer: sign: %w", err)
	}
	return sig, nil
}

// Public returns the public half, the zero PublicKey for the zero PrivateKey.
func (k PrivateKey) Public() PublicKey {
	if k.IsZero() {
		return PublicKey{}
	}
	return k.key.public
}

// ID returns the peer ID of the key, the zero ID for the zero PrivateKey.
func (k PrivateKey) ID() ID {
	if k.IsZero() {
		return ID{}
	}
	return k.key.id
}

// Type returns the type of the key. That of the zero PrivateKey has no meaning.
func (k PrivateKey) Type() KeyType { return k.Public().Type() }

// Marshal returns the protobuf of the key, nil for the zero PrivateKey. It is
// the secret itself: it belongs into a file that nobody else can read.
func (k PrivateKey) Marshal() []byte {
	if k.IsZero() {
		return nil
	}
	return k.key.marshal()
}

// Equal reports whether both keys sign for the same peer.
func (k PrivateKey) Equal(other PrivateKey) bool { return k.Public() == other.Public() }

// IsZero reports whether k is no key.
func (k PrivateKey) IsZero() bool { return k.key == nil }

// String returns the type and the peer ID, and nothing of the secret.
func (k PrivateKey) String() string {
	if k.IsZero() {
		return "no private key"
	}
	return fmt.Sprintf("%v private key of %v", k.Type(), k.ID())
}

// GoString returns what String returns, for %#v.
func (k PrivateKey) GoString() string { return k.String() }

func unmarshalPublicKey(b []byte) (PublicKey, error) {
	typ, data, err := splitKey(b)
	if err == nil {
		switch typ {
		case RSA:
			_, err = parseRSAPublic(data)
		case Ed25519:
			err = checkEd25519Public(data)
		case Secp256k1:
			_, err = parseSecp256k1Public(data)
		case ECDSA:
			_, err = parseECDSAPublic(data)
		}
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	return PublicKey{string(b)}, nil
}

func unmarshalPrivateKey(b []byte) (key PrivateKey, err error) {
	typ, data, err := splitKey(b)
	if err == nil {
		switch typ {
		case RSA:
			key, err = parseRSAPrivate(data)
		case Ed25519:
			key, err = parseEd25519Private(data)
		case Secp256k1:
			key, err = parseSecp256k1Private(data)
		case ECDSA:
			key, err = parseECDSAPrivate(data)
		}
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	return key, nil
}

// newPrivateKey binds a private key's parts, each in its type's raw encoding,
// which it keeps.
func newPrivateKey(t KeyType, private, public []byte, sign func([]byte) ([]byte, error)) PrivateKey {
	pub := PublicKey{string(joinKey(t, public))}
	return PrivateKey{&privateKey{
		public:  pub,
		id:      pub.ID(),
		marshal: func() []byte { return joinKey(t, private) },
		sign:    sign,
	}}
}

// The protobuf that public and private keys share: field 1 the type and field 2
// the data, both required.
const (
	keyTypeTag = 1<<3 | wire.TypeVarint
	keyDataTag = 2<<3 | wire.TypeBytes
)

func joinKey(t KeyType, data []byte) []byte {
	b := wire.AppendVarintField(nil, 1, uint64(t))
	return wire.AppendBytesField(b, 2, data)
}

// splitKey is the inverse of joinKey, and accepts nothing but what joinKey
// returns for a known type. The data is a part of b.
func splitKey(b []byte) (KeyType, []byte, error) {
	if len(b) < 4 || b[0] != keyTypeTag || b[2] != keyDataTag {
		return 0, nil, errors.New("not the fields type and data in canonical protobuf")
	}
	if b[1] > byte(ECDSA) {
		return 0, nil, fmt.Errorf("type %d is not known", b[1])
	}
	size, n, err := wire.Uvarint(b[3:])
	if err != nil {
		return 0, nil, err
	}
	data := b[3+n:]
	if size != uint64(len(data)) {
		return 0, nil, fmt.Errorf("data of %d bytes claims to have %d", len(data), size)
	}
	return KeyType(b[1]), data, nil
}
