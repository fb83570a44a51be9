package peer

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

const (
	secp256k1PublicLen  = secp256k1.PubKeyBytesLenCompressed
	secp256k1PrivateLen = secp256k1.PrivKeyBytesLen
)

// parseSecp256k1Public accepts a compressed point, the one form that peers send.
func parseSecp256k1Public(data []byte) (*secp256k1.PublicKey, error) {
	if len(data) != secp256k1PublicLen {
		return nil, fmt.Errorf("a Secp256k1 key has %d bytes, not %d", secp256k1PublicLen, len(data))
	}
	return secp256k1.ParsePubKey(data)
}

// verifySecp256k1 accepts strict DER with S in the lower half, as BIP 62 has it
// and as go-libp2p, js-libp2p and rust-libp2p sign.
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#secp256k1
func verifySecp256k1(data string, msg, sig []byte) bool {
	key, err := parseSecp256k1Public([]byte(data))
	if err != nil {
		return false
	}
	parsed, err := ecdsa.ParseDERSignature(sig)
	if err != nil {
		return false
	}
	if s := parsed.S(); s.IsOverHalfOrder() {
		return false
	}
	hash := sha256.Sum256(msg)
	return parsed.Verify(hash[:], key)
}

func generateSecp256k1() (PrivateKey, error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return PrivateKey{}, err
	}
	return newSecp256k1(key), nil
}

func parseSecp256k1Private(data []byte) (PrivateKey, error) {
	if len(data) != secp256k1PrivateLen {
		return PrivateKey{}, fmt.Errorf("a Secp256k1 private key has %d bytes, not %d", secp256k1PrivateLen, len(data))
	}
	var scalar secp256k1.ModNScalar
	if overflow := scalar.SetByteSlice(data); overflow || scalar.IsZero() {
		return PrivateKey{}, errors.New("a Secp256k1 private key is out of range")
	}
	return newSecp256k1(secp256k1.NewPrivateKey(&scalar)), nil
}

func newSecp256k1(key *secp256k1.PrivateKey) PrivateKey {
	public := key.PubKey().SerializeCompressed()
	return newPrivateKey(Secp256k1, key.Serialize(), public, func(msg []byte) ([]byte, error) {
		hash := sha256.Sum256(msg)
		return ecdsa.Sign(key, hash[:]).Serialize(), nil
	})
}
