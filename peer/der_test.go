package peer

import (
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/kith-p2p/kith/internal/wire"
)

func wireBytes(num int, v []byte) []byte { return wire.AppendBytesField(nil, num, v) }

// der returns one DER value.
func der(tag byte, body []byte) []byte {
	var b []byte
	switch n := len(body); {
	case n < 0x80:
		b = []byte{tag, byte(n)}
	case n < 1<<8:
		b = []byte{tag, 0x81, byte(n)}
	case n < 1<<16:
		b = []byte{tag, 0x82, byte(n >> 8), byte(n)}
	default:
		b = []byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	return append(b, body...)
}

func derInt(n *big.Int) []byte {
	b, err := asn1.Marshal(n)
	if err != nil {
		panic(err)
	}
	return b
}

func joinDER(parts ...[]byte) []byte { return der(0x30, concat(parts...)) }

// pad puts a needless zero before an integer.
func pad(integer []byte) []byte {
	return concat([]byte{2, integer[1] + 1, 0}, integer[2:])
}

func splitDER(t *testing.T, sig []byte) (r, s *big.Int) {
	t.Helper()
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &v); err != nil || len(rest) > 0 {
		t.Fatalf("% x: %v, % x left", sig, err, rest)
	}
	return v.R, v.S
}
