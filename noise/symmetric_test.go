package noise

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

type vectorMessage struct{ payload, ciphertext []byte }

type vector struct {
	name                                string
	prologue                            []byte
	initiatorStatic, initiatorEphemeral *ecdh.PrivateKey
	responderStatic, responderEphemeral *ecdh.PrivateKey
	messages                            []vectorMessage
	hash                                []byte // nil: not given
}

func loadVectors(t *testing.T) (vs []vector) {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/noise.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Prologue     string
			InitiatorStatic    string `json:"initiator_static"`
			InitiatorEphemeral string `json:"initiator_ephemeral"`
			ResponderStatic    string `json:"responder_static"`
			ResponderEphemeral string `json:"responder_ephemeral"`
			Messages           []struct{ Payload, Ciphertext string }
			Hash               string `json:"handshake_hash"`
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, f := range file.Vectors {
		v := vector{
			name:               f.Name,
			prologue:           fromHex(t, f.Prologue),
			initiatorStatic:    privateKey(t, f.InitiatorStatic),
			initiatorEphemeral: privateKey(t, f.InitiatorEphemeral),
			responderStatic:    privateKey(t, f.ResponderStatic),
			responderEphemeral: privateKey(t, f.ResponderEphemeral),
			hash:               fromHex(t, f.Hash),
		}
		for _, m := range f.Messages {
			v.messages = append(v.messages, vectorMessage{fromHex(t, m.Payload), fromHex(t, m.Ciphertext)})
		}
		vs = append(vs, v)
	}
	if len(vs) == 0 {
		t.Fatal("no vectors")
	}
	return vs
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func privateKey(t *testing.T, s string) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().NewPrivateKey(fromHex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.name, func(t *testing.T) { checkVector(t, v) })
	}
}

// checkVector writes every message as one side, compares it, and reads it as
// the other.
func checkVector(t *testing.T, v vector) {
	i := newXX(true, v.prologue, v.initiatorStatic, v.initiatorEphemeral)
	r := newXX(false, v.prologue, v.responderStatic, v.responderEphemeral)
	for n, step := range []struct {
		write func(b, payload []byte) ([]byte, error)
		read  func([]byte) ([]byte, error)
	}{{i.write1, r.read1}, {r.write2, i.read2}, {i.write3, r.read3}} {
		m := v.messages[n]
		got, err := step.write(nil, m.payload)
		if err != nil || !bytes.Equal(got, m.ciphertext) {
			t.Fatalf("message %d is %x, %v; want %x", n+1, got, err, m.ciphertext)
		}
		if got, err := step.read(m.ciphertext); err != nil || !bytes.Equal(got, m.payload) {
			t.Fatalf("message %d reads as %x, %v; want %x", n+1, got, err, m.payload)
		}
	}
	if v.hash != nil && (!bytes.Equal(i.hash[:], v.hash) || !bytes.Equal(r.hash[:], v.hash)) {
		t.Errorf("hash is %x and %x, want %x", i.hash, r.hash, v.hash)
	}
	iSend, iReceive, err := i.split()
	if err != nil {
		t.Fatal(err)
	}
	rSend, rReceive, err := r.split()
	if err != nil {
		t.Fatal(err)
	}
	for n, m := range v.messages[3:] {
		send, receive := &iSend, &rReceive
		if n%2 == 1 {
			send, receive = &rSend, &iReceive
		}
		got, err := send.seal(nil, m.payload, nil)
		if err != nil || !bytes.Equal(got, m.ciphertext) {
			t.Fatalf("transport message %d is %x, %v; want %x", n, got, err, m.ciphertext)
		}
		if got, err := receive.open(nil, m.ciphertext, nil); err != nil || !bytes.Equal(got, m.payload) {
			t.Fatalf("transport message %d reads as %x, %v; want %x", n, got, err, m.payload)
		}
	}
}

// A ladderCounter counts scalar multiplications, which are nearly all of a
// handshake's cost.
type ladderCounter struct {
	*ecdh.PrivateKey
	ladders *int
}

func (c ladderCounter) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	*c.ladders++
	return c.PrivateKey.ECDH(remote)
}

// With the one that makes the ephemeral key it is four a side.
func TestThreeLaddersAfterEphemeral(t *testing.T) {
	var ladders [2]int
	i := newXX(true, nil, ladderCounter{fixedKey("is"), &ladders[0]}, ladderCounter{fixedKey("ie"), &ladders[0]})
	r := newXX(false, nil, ladderCounter{fixedKey("rs"), &ladders[1]}, ladderCounter{fixedKey("re"), &ladders[1]})
	m1, err1 := i.write1(nil, nil)
	_, err2 := r.read1(m1)
	m2, err3 := r.write2(nil, nil)
	_, err4 := i.read2(m2)
	m3, err5 := i.write3(nil, nil)
	_, err6 := r.read3(m3)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	if ladders != [2]int{3, 3} {
		t.Errorf("%d key exchanges, want 3 a side", ladders)
	}
}

func TestShortMessages(t *testing.T) {
	msg := pattern(2*keyLen + 2*tagLen)
	for n := range keyLen {
		if _, err := newXX(false, nil, fixedKey("rs"), fixedKey("re")).read1(msg[:n:n]); err != errShort {
			t.Errorf("message 1 of %d bytes: %v", n, err)
		}
	}
	for n := range 2*keyLen + tagLen {
		x := newXX(true, nil, fixedKey("is"), fixedKey("ie"))
		if _, err := x.read2(msg[:n:n]); err != errShort {
			t.Errorf("message 2 of %d bytes: %v", n, err)
		}
	}
	for n := range keyLen + tagLen {
		x := newXX(false, nil, fixedKey("rs"), fixedKey("re"))
		x.read1(fixedKey("ie").PublicKey().Bytes())
		if _, err := x.write2(nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := x.read3(msg[:n:n]); err != errShort {
			t.Errorf("message 3 of %d bytes: %v", n, err)
		}
	}
	// Messages that end before the tag of their payload.
	i, r := newXX(true, nil, fixedKey("is"), fixedKey("ie")), newXX(false, nil, fixedKey("rs"), fixedKey("re"))
	m1, _ := i.write1(nil, nil)
	r.read1(m1)
	m2, _ := r.write2(nil, nil)
	for n := 2*keyLen + tagLen; n < len(m2); n++ {
		i := newXX(true, nil, fixedKey("is"), fixedKey("ie"))
		i.write1(nil, nil)
		if _, err := i.read2(m2[:n:n]); err != errDecrypt {
			t.Errorf("message 2 of %d bytes: %v", n, err)
		}
	}
}

// smallOrder are the X25519 points that lead to zero, in canonical form and
// with the top bit set, which X25519 ignores. From RFC 7748, section 6.1, and
// its erratum's source: https://cr.yp.to/ecdh.html#validate
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestSmallOrderKeys(t *testing.T) {
	for _, point := range smallOrder {
		bad := fromHex(t, point)
		// As the initiator's ephemeral key.
		r := newXX(false, nil, fixedKey("rs"), fixedKey("re"))
		if _, err := r.read1(bad); err != nil {
			t.Errorf("%s: message 1: %v", point, err)
		} else if _, err := r.write2(nil, nil); err == nil {
			t.Errorf("%s: accepted as the initiator's ephemeral key", point)
		}
		// As the responder's.
		i := newXX(true, nil, fixedKey("is"), fixedKey("ie"))
		i.write1(nil, nil)
		if _, err := i.read2(append(bad, make([]byte, 64)...)); err == nil || errors.Is(err, errDecrypt) {
			t.Errorf("%s: as the responder's ephemeral key: %v", point, err)
		}
		// As the static key of each, which comes encrypted.
		public, err := ecdh.X25519().NewPublicKey(bad)
		if err != nil {
			t.Fatal(err)
		}
		weak := publicOnly{fixedKey("weak"), public}
		for _, initiator := range []bool{true, false} {
			_, err := rogue{static: weak, payload: nil}.meet(alice(t), initiator, Config{})
			if err == nil || errors.Is(err, errDecrypt) || isEOF(err) {
				t.Errorf("%s: as a static key, initiator %t: %v", point, initiator, err)
			}
		}
	}
}

// publicOnly shows a public key that is not that of its private one.
type publicOnly struct {
	*ecdh.PrivateKey
	public *ecdh.PublicKey
}

func (k publicOnly) PublicKey() *ecdh.PublicKey { return k.public }

func TestNonceLimit(t *testing.T) {
	c := knownCipher()
	c.n = maxMessages - 1
	if _, err := c.seal(nil, []byte("last"), nil); err != nil {
		t.Errorf("the last message: %v", err)
	}
	if _, err := c.seal(nil, []byte("one more"), nil); err != errExhausted {
		t.Errorf("one more: %v, want %v", err, errExhausted)
	}
	c = knownCipher()
	c.n = maxMessages
	if _, err := c.open(nil, make([]byte, 100), nil); err != errExhausted {
		t.Errorf("opening one more: %v, want %v", err, errExhausted)
	}
	// In a Conn it is the end of the connection.
	s := &script{in: bytes.NewReader(nil)}
	conn := established(s)
	conn.sealer.n = maxMessages - 1
	if n, err := conn.Write(make([]byte, maxPlaintext+1)); n != 0 || err != errExhausted || !s.closed || s.writes != 0 {
		t.Errorf("Write beyond the limit: %d, %v, closed %t", n, err, s.closed)
	}
	if _, err := conn.Write([]byte("x")); err != errExhausted {
		t.Errorf("Write after that: %v", err)
	}
}
