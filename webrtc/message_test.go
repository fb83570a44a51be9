package webrtc

import (
	"bytes"
	"testing"
)

// parse gives a parser b in pieces of n bytes.
func parse(b []byte, n int) (data []byte, messages []control, err error) {
	var p parser
	for len(b) > 0 {
		piece := b[:min(n, len(b))]
		b = b[len(piece):]
		for {
			run, rest, done, err := p.next(piece)
			if err != nil {
				return data, messages, err
			}
			if done {
				messages = append(messages, p.control)
			} else if run == nil {
				break
			}
			data, piece = append(data, run...), rest
		}
	}
	return data, messages, nil
}

func TestMessages(t *testing.T) {
	payload := bytes.Repeat([]byte("kith"), 4000)
	var b []byte
	b = appendData(b, payload)
	b = appendData(b, []byte("x"))
	b = appendControl(b, control{flag: flagReset, code: 0xffffffff})
	b = appendControl(b, control{flag: flagNone})
	b = append(b, 6, 0x08, 0, 0x12, 2, 'h', 'i')                      // FIN with data, as other implementations may send it
	b = append(b, 0)                                                  // nothing at all
	b = append(b, 13, 0x7d, 1, 2, 3, 4, 0x08, 3, 0x7a, 4, 1, 2, 3, 4) // fields that nobody knows
	want := []control{
		{flag: flagNone}, {flag: flagNone}, {flag: flagReset, code: 0xffffffff}, {flag: flagNone},
		{flag: flagFIN}, {flag: flagNone}, {flag: flagFINACK},
	}
	for _, n := range []int{1, 2, 3, 7, 1160, len(b)} {
		data, messages, err := parse(b, n)
		if err != nil || string(data) != string(payload)+"x"+"hi" {
			t.Fatalf("in pieces of %d: %d bytes, %v", n, len(data), err)
		}
		if len(messages) != len(want) {
			t.Fatalf("in pieces of %d: %d messages of %d", n, len(messages), len(want))
		}
		for i, m := range messages {
			if m != want[i] {
				t.Errorf("in pieces of %d: message %d is %+v, want %+v", n, i, m, want[i])
			}
		}
	}
	if n := len(appendData(nil, make([]byte, maxData))); n != 3*fragmentSize || n > 4096 {
		t.Errorf("the longest message has %d bytes, want %d", n, 3*fragmentSize)
	}
}

func TestBadMessages(t *testing.T) {
	for name, b := range map[string][]byte{
		"too long":                 {0x81, 0x90, 0x10},
		"a length without an end":  {0x80, 0x80, 0x80, 0},
		"a field longer than it":   {3, 0x12, 2, 'x'},
		"data twice":               {6, 0x12, 1, 'x', 0x12, 1, 'y'},
		"it ends in a tag":         {1, 0x80, 0},
		"it ends before the value": {1, 0x08, 0},
		"a group":                  {1, 0x0b},
		"field 0":                  {2, 0x00, 0},
		"a number of eleven bytes": append([]byte{13, 0x08}, bytes.Repeat([]byte{0xff}, 11)...),
		"eight bytes in three":     {4, 0x79, 1, 2, 3},
	} {
		if data, messages, err := parse(b, len(b)); err == nil {
			t.Errorf("%s: %d bytes and %d messages, no error", name, len(data), len(messages))
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(appendData(nil, []byte("hello")), 1)
	f.Add(appendControl(nil, control{flag: flagStopSending, code: 7}), 2)
	f.Add([]byte{6, 0x08, 0, 0x12, 2, 'h', 'i'}, 3)
	f.Add([]byte{13, 0x7d, 1, 2, 3, 4, 0x08, 3, 0x7a, 4, 1, 2, 3, 4}, 5)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 1 {
			return
		}
		data, messages, err := parse(b, n)
		again, same, err2 := parse(b, len(b))
		if (err == nil) != (err2 == nil) || err == nil && (!bytes.Equal(data, again) || len(messages) != len(same)) {
			t.Errorf("pieces of %d: %v, %v", n, err, err2)
		}
	})
}
