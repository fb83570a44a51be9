package rpc

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// The bytes of docs/rpc.md.
func TestVectors(t *testing.T) {
	for _, v := range []struct {
		name string
		got  []byte
		want string
	}{
		{"call", appendCall(nil, 0), "01 01"},
		{"call with 1.5 s left", appendCall(nil, 1500*time.Millisecond), "04 01 08dc0b"},
		{"call with next to nothing left", appendCall(nil, time.Microsecond), "03 01 0801"},
		{"message", appendMessage(nil, []byte(`{"A":1}`)), "08 02 7b2241223a317d"},
		{"empty message", appendMessage(nil, nil), "01 02"},
		{"end", appendEnd(nil), "01 03"},
		{"result", appendResult(nil, nil), "01 04"},
		{"not found", appendResult(nil, &Error{Code: NotFound, Text: "no", Details: []byte{9}}), "0a 04 0805 12026e6f 1a0109"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(v.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.got, want) {
			t.Errorf("%s: %x, want %x", v.name, v.got, want)
		}
	}
}

func TestTimeoutRoundTrip(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Millisecond, time.Hour, 1<<63 - 1} {
		kind, body, err := readFrame(nil, bytes.NewReader(appendCall(nil, d)), 0)
		if err != nil || kind != kindCall {
			t.Fatal(kind, err)
		}
		got, err := parseCall(body)
		if err != nil || got < min(d, maxTimeout) || got > min(d, maxTimeout)+time.Millisecond {
			t.Errorf("%v became %v, %v", d, got, err)
		}
	}
	// What no sender of ours sends.
	if got, err := parseCall([]byte("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")); got != maxTimeout || err != nil {
		t.Errorf("the largest number: %v, %v", got, err)
	}
	if _, err := parseCall([]byte("\x0a\x00")); err == nil {
		t.Error("a time that is no number is taken")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendEnd(appendMessage(appendCall(nil, time.Second), []byte("x"))))
	f.Add(appendResult(nil, &Error{Code: 200, Text: "text", Details: []byte("details")}))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for r := bytes.NewReader(data); ; {
			kind, body, err := readFrame(nil, r, 100)
			if err != nil {
				return
			}
			if kind == kindMessage && len(body) > 100 {
				t.Fatalf("a message of %d bytes", len(body))
			}
			if timeout, err := parseCall(body); err == nil && (timeout < 0 || timeout > maxTimeout) {
				t.Fatalf("a timeout of %v", timeout)
			}
			e, err := parseResult(body)
			if err != nil || e == nil {
				continue
			}
			again, err := parseResult(appendResult(nil, e)[len(appendResult(nil, e))-resultLen(e):])
			if err != nil || again.Code != e.Code || again.Text != e.Text || !bytes.Equal(again.Details, e.Details) {
				t.Fatalf("%v became %v, %v", e, again, err)
			}
		}
	})
}

// resultLen is the length of a result's body.
func resultLen(e *Error) int {
	_, body, _ := readFrame(nil, bytes.NewReader(appendResult(nil, e)), 0)
	return len(body)
}
