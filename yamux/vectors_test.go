package yamux

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vectors are ../testdata/vectors/yamux.json, which names its sources.
type vectors struct {
	Frames []struct {
		Name     string
		Type     uint8
		Flags    uint16
		ID       uint32
		Length   uint32
		Payload  hexBytes
		Hex      hexBytes
		Recorded bool
	}
	Refused []struct {
		Name string
		Hex  hexBytes
	}
	Conversation struct {
		Client hexBytes
		Reads  string
		Reset  uint32
		GoAway uint32
	}
}

func loadVectors(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/yamux.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFrameVectors(t *testing.T) {
	v := loadVectors(t)
	for _, f := range v.Frames {
		want := header{typ: f.Type, flags: f.Flags, id: f.ID, length: f.Length}
		if got := parseHeader(f.Hex); got != want {
			t.Errorf("%s: parsed %+v, want %+v", f.Name, got, want)
		}
		if err := parseHeader(f.Hex).check(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if got := frame(f.Type, f.Flags, f.ID, f.Length, f.Payload...); !bytes.Equal(got, f.Hex) {
			t.Errorf("%s: encoded %x, want %x", f.Name, got, f.Hex)
		}
	}
	for _, f := range v.Refused {
		if parseHeader(f.Hex).check() == nil {
			t.Errorf("%s is not refused", f.Name)
		}
	}
}

// TestConversation has our server listen to what a client of go-yamux said.
func TestConversation(t *testing.T) {
	v := loadVectors(t).Conversation
	p := newRawPeer(t, false, Config{})
	own := mustOpen(t, p.session)
	mustWrite(t, own, "x")
	p.expect(data(flagSYN, 2, "x"))
	p.send(v.Client)
	if got, err := io.ReadAll(<-p.accepted); string(got) != v.Reads || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	p.expectError(v.GoAway, true, "goaway")
	var reset *StreamError
	if _, err := own.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != v.Reset || !reset.Remote {
		t.Errorf("Read = %v", err)
	}
}
