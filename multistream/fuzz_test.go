package multistream

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// split is the format written down a second time, in the plainest way: the
// messages at the start of in, and where each ends.
func split(in []byte) (texts []string, ends []int) {
	pos := 0
	for {
		rest := in[pos:]
		var size, n int
		switch {
		case len(rest) >= 1 && rest[0] < 0x80:
			size, n = int(rest[0]), 1
		case len(rest) >= 2 && rest[1] > 0 && rest[1] < 0x80:
			size, n = int(rest[0]&0x7f)|int(rest[1])<<7, 2
		}
		if size < 1 || size > MaxTokenLen || n+size > len(rest) || rest[n+size-1] != '\n' {
			return texts, ends
		}
		pos += n + size
		texts = append(texts, string(rest[n:n+size-1]))
		ends = append(ends, pos)
	}
}

func seed(f *testing.F, add func(in []byte)) {
	for _, in := range []string{
		"",
		frames(ProtocolID),
		frames(ProtocolID, "/a/1"),
		frames(ProtocolID, "/a/1") + "data",
		frames(ProtocolID, "na"),
		frames(ProtocolID, "na") + "data",
		frames(ProtocolID, "na", "/b"),
		frames(ProtocolID, "ls", "/x", ProtocolID, "/b", "/c"),
		frames("/a/1"),
		frames(ProtocolID) + "\x85\x00/a/1\n",
		frames(ProtocolID) + "\x00\x00",
		frames(ProtocolID, strings.Repeat("x", 1023)),
		frames(ProtocolID) + strings.Repeat(frames("/x"), 70),
		frames(ProtocolID) + strings.Repeat(frames("/"+strings.Repeat("x", 1000)), 4) + frames("/b"),
	} {
		add([]byte(in))
	}
}

func FuzzRespond(f *testing.F) {
	seed(f, func(in []byte) { f.Add(in, uint8(0)); f.Add(in, uint8(3)) })
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		r := bytes.NewReader(in)
		s := &script{Reader: stepped(r, step)}
		got, err := Respond(s, supporting("/a/1", "/b"))

		texts, ends := split(in)
		want, refused := -1, 0
		if len(texts) > 0 && texts[0] == ProtocolID {
			for i, text := range texts[1:] {
				if i == maxRounds || ends[i+1] > maxBytes {
					break
				}
				if text == "/a/1" || text == "/b" {
					want = i + 1
					break
				}
				refused++
			}
		}
		if want < 0 {
			if err == nil {
				t.Fatalf("accepted %q", got)
			}
			if len(texts) > 0 && texts[0] == ProtocolID && len(s.out) > 0 {
				if n := strings.Count(string(s.out), naFrame); n != refused {
					t.Fatalf("refused %d of %d", n, refused)
				}
			}
			return
		}
		if err != nil || got != texts[want] {
			t.Fatalf("%q, %v; want %q", got, err, texts[want])
		}
		if read := len(in) - r.Len(); read != ends[want] {
			t.Fatalf("read %d bytes, the negotiation has %d", read, ends[want])
		}
		if answer := headerFrame + strings.Repeat(naFrame, refused) + frames(got); string(s.out) != answer {
			t.Fatalf("said %q, want %q", s.out, answer)
		}
	})
}

func FuzzSelect(f *testing.F) {
	seed(f, func(in []byte) { f.Add(in, uint8(0)); f.Add(in, uint8(3)) })
	protos := []string{"/a/1", "/b", "/c"}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		r := bytes.NewReader(in)
		s := &script{Reader: stepped(r, step)}
		got, err := Select(s, protos...)
		if err != nil {
			var refused *NotSupportedError
			if errors.As(err, &refused) && !bytes.HasPrefix(in, []byte(frames(ProtocolID, "na", "na", "na"))) {
				t.Fatalf("%v after %q", err, in)
			}
			return
		}
		want := []string{ProtocolID}
		for _, p := range protos {
			if p == got {
				break
			}
			want = append(want, "na")
		}
		want = append(want, got)
		if read := in[:len(in)-r.Len()]; string(read) != frames(want...) {
			t.Fatalf("%q after reading %q", got, read)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	seed(f, func(in []byte) { f.Add(in, uint8(0)); f.Add(in, uint8(3)) })
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		r := bytes.NewReader(in)
		err := ReadAnswer(stepped(r, step), "/a/1")
		var refused *NotSupportedError
		switch read := in[:len(in)-r.Len()]; {
		case err == nil && string(read) != frames(ProtocolID, "/a/1"):
			t.Fatalf("accepted after reading %q", read)
		case errors.As(err, &refused) && !bytes.HasPrefix(read, []byte(frames(ProtocolID, "na"))):
			t.Fatalf("refused after reading %q", read)
		case len(read) > len(frames(ProtocolID, "/a/1")) && err == nil:
			t.Fatalf("read %d bytes", len(read))
		}
	})
}

// stepped gives at most step bytes a Read; 0 is no limit.
func stepped(r io.Reader, step uint8) io.Reader {
	if step == 0 {
		return r
	}
	return readerFunc(func(p []byte) (int, error) { return r.Read(p[:min(len(p), int(step))]) })
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
