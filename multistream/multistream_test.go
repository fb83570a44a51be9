package multistream

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A script is a peer that says in, whatever it hears, and keeps what it hears.
type script struct {
	io.Reader
	out      []byte
	writes   int
	writeErr error
}

func (s *script) Write(p []byte) (int, error) {
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	s.writes++
	s.out = append(s.out, p...)
	return len(p), nil
}

// A counter counts the Reads of its reader.
type counter struct {
	io.Reader
	reads int
}

func (c *counter) Read(p []byte) (int, error) {
	c.reads++
	return c.Reader.Read(p)
}

// chunks reads each of its parts with Reads of its own, as from a network.
func chunks(parts ...string) io.Reader {
	var readers []io.Reader
	for _, p := range parts {
		readers = append(readers, strings.NewReader(p))
	}
	return io.MultiReader(readers...)
}

func supporting(names ...string) func([]byte) (string, bool) {
	set := make(map[string]string)
	for _, n := range names {
		set[n] = n
	}
	return func(proto []byte) (string, bool) {
		name, ok := set[string(proto)]
		return name, ok
	}
}

func frames(texts ...string) string {
	var b []byte
	for _, t := range texts {
		b = appendFrame(b, t)
	}
	return string(b)
}

// turns reads what a responder says as an initiator meets it: the header with
// the first answer, then one answer a turn.
func turns(responder string) io.Reader {
	_, ends := split([]byte(responder))
	parts := []string{responder[:ends[1]]}
	for i, end := range ends[2:] {
		parts = append(parts, responder[ends[i+1]:end])
	}
	return chunks(parts...)
}

type vectors struct {
	Frames []struct{ Text, Hex string }
	Cases  []struct {
		Name                 string
		Protos, Supports     []string
		Initiator, Responder string
		Result               string
	}
}

func loadVectors(t *testing.T) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/multistream.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Cases) == 0 || len(v.Frames) == 0 {
		t.Fatal("no vectors")
	}
	return v
}

func fromHex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each role must say exactly what the recorded one said, when told what the
// other said: at once, byte by byte, and with other data behind it.
func TestVectors(t *testing.T) {
	v := loadVectors(t)
	for _, f := range v.Frames {
		if got := frames(f.Text); got != fromHex(t, f.Hex) {
			t.Errorf("frame of %q is %x, want %s", f.Text, got, f.Hex)
		}
	}
	for _, c := range v.Cases {
		initiator, responder := fromHex(t, c.Initiator), fromHex(t, c.Responder)
		for _, mode := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"at once", func(r io.Reader) io.Reader { return r }},
			{"byte by byte", iotest.OneByteReader},
			{"data with EOF", iotest.DataErrReader},
		} {
			t.Run(c.Name+"/"+mode.name, func(t *testing.T) {
				check := func(role, got string, err error, said []byte, want string) {
					t.Helper()
					if c.Result == "" {
						var refused *NotSupportedError
						if !errors.As(err, &refused) || !slices.Equal(refused.Protos, c.Protos) {
							t.Errorf("%s: %v", role, err)
						}
					} else if got != c.Result || err != nil {
						t.Errorf("%s = %q, %v", role, got, err)
					}
					if string(said) != want {
						t.Errorf("%s said %q, want %q", role, said, want)
					}
				}
				s := &script{Reader: mode.wrap(turns(responder))}
				got, err := Select(s, c.Protos...)
				check("Select", got, err, s.out, initiator)

				s = &script{Reader: mode.wrap(strings.NewReader(initiator))}
				got, err = Respond(s, supporting(c.Supports...))
				check("Respond", got, err, s.out, responder)
			})
		}
	}
}

// Both roles against each other over a pipe without any buffer, which hangs if
// either waits for the wrong side.
func TestBothRoles(t *testing.T) {
	for _, c := range []struct {
		protos []string
		want   string
	}{
		{[]string{"/a/1"}, "/a/1"},
		{[]string{"/x", "/y", "/" + strings.Repeat("z", MaxNameLen-1), "/a/1"}, "/a/1"},
		{[]string{"/" + strings.Repeat("n", MaxNameLen-1)}, "/" + strings.Repeat("n", MaxNameLen-1)},
		{[]string{"/x", "/y"}, ""},
	} {
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() {
			got, err := Respond(b, supporting("/a/1", "/"+strings.Repeat("n", MaxNameLen-1)))
			if err == nil && got != c.want {
				err = errors.New("Respond returned " + got)
			}
			if err == nil {
				_, err = b.Write([]byte("data of the responder"))
			}
			done <- err
		}()
		got, err := Select(a, c.protos...)
		if c.want == "" {
			a.Close()
			var refused *NotSupportedError
			if !errors.As(err, &refused) {
				t.Errorf("Select: %v", err)
			}
			if err := <-done; !errors.As(err, &refused) || !slices.Equal(refused.Protos, c.protos) {
				t.Errorf("Respond: %v", err)
			}
			continue
		}
		if got != c.want || err != nil {
			t.Fatalf("Select(%.20q) = %.20q, %v", c.protos, got, err)
		}
		buf := make([]byte, 21)
		if _, err := io.ReadFull(a, buf); err != nil || string(buf) != "data of the responder" {
			t.Errorf("after the negotiation: %q, %v", buf, err)
		}
		if err := <-done; err != nil {
			t.Errorf("Respond: %v", err)
		}
	}
}

// A peer that proposes only after it has our header gets it at once.
func TestHeaderForWaitingPeer(t *testing.T) {
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		_, answered, err := Accept(b, supporting("/a/1"))
		if !answered {
			err = errors.New("the header was sent, but Accept says that nothing was answered")
		}
		done <- err
	}()
	for _, step := range []string{ProtocolID, "/a/1"} {
		if _, err := io.WriteString(a, frames(step)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, len(frames(step)))
		if _, err := io.ReadFull(a, buf); err != nil || string(buf) != frames(step) {
			t.Fatalf("answer to %q: %q, %v", step, buf, err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What follows the negotiation is left on the connection, in both roles and
// however it is cut; and it takes few Reads to get there.
func TestByteExact(t *testing.T) {
	const rest = "\x05data\n and more"
	long := "/" + strings.Repeat("l", 300)
	for _, c := range []struct {
		name  string
		in    string
		run   func(rw io.ReadWriter) error
		reads int
	}{
		{"Respond", frames(ProtocolID, "/a/1"), func(rw io.ReadWriter) error {
			_, err := Respond(rw, supporting("/a/1"))
			return err
		}, 2},
		{"Respond, long name", frames(ProtocolID, long), func(rw io.ReadWriter) error {
			_, err := Respond(rw, supporting(long))
			return err
		}, 2},
		{"Respond, third proposal", frames(ProtocolID, "/x", "/y", "/a/1"), func(rw io.ReadWriter) error {
			_, err := Respond(rw, supporting("/a/1"))
			return err
		}, 6},
		{"Select", frames(ProtocolID, "/a/1"), func(rw io.ReadWriter) error {
			_, err := Select(rw, "/a/1")
			return err
		}, 1},
		{"Select, name of one byte", frames(ProtocolID, "/"), func(rw io.ReadWriter) error {
			_, err := Select(rw, "/")
			return err
		}, 1},
		{"ReadAnswer", frames(ProtocolID, "/a/1"), func(rw io.ReadWriter) error {
			return ReadAnswer(rw, "/a/1")
		}, 1},
	} {
		r := strings.NewReader(c.in + rest)
		count := &counter{Reader: r}
		if err := c.run(&script{Reader: count}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if count.reads != c.reads {
			t.Errorf("%s: %d Reads, want %d", c.name, count.reads, c.reads)
		}
		if left, _ := io.ReadAll(r); string(left) != rest {
			t.Errorf("%s: left %q, want %q", c.name, left, rest)
		}
		for cut := range len(c.in) {
			r := chunks(c.in[:cut], c.in[cut:]+rest)
			if err := c.run(&script{Reader: r}); err != nil {
				t.Errorf("%s, cut at %d: %v", c.name, cut, err)
			}
			if left, _ := io.ReadAll(r); string(left) != rest {
				t.Errorf("%s, cut at %d: left %q, want %q", c.name, cut, left, rest)
			}
		}
	}
}

// The peer proposes several before it reads our answers; a name of one byte
// makes the echo shorter than "na".
func TestSelectShortNames(t *testing.T) {
	s := &script{Reader: chunks(frames(ProtocolID, "na"), frames("/"))}
	if got, err := Select(s, "/x", "/"); got != "/" || err != nil {
		t.Errorf("Select = %q, %v", got, err)
	}
}

func TestAccept(t *testing.T) {
	// The usual case: nothing is written, the caller sends the answer.
	s := &script{Reader: strings.NewReader(frames(ProtocolID, "/a/1"))}
	proto, answered, err := Accept(s, supporting("/a/1"))
	if proto != "/a/1" || answered || err != nil || s.writes != 0 {
		t.Errorf("Accept = %q, %t, %v after %d writes", proto, answered, err, s.writes)
	}
	if got, want := string(AppendAccept([]byte("x"), proto)), "x"+frames(ProtocolID, "/a/1"); got != want {
		t.Errorf("AppendAccept = %q, want %q", got, want)
	}
	// After a refusal the header is out, so Accept answers itself.
	s = &script{Reader: strings.NewReader(frames(ProtocolID, "/b", "/a/1"))}
	proto, answered, err = Accept(s, supporting("/a/1"))
	if proto != "/a/1" || !answered || err != nil || s.writes != 2 || string(s.out) != frames(ProtocolID, "na", "/a/1") {
		t.Errorf("Accept = %q, %t, %v, said %q in %d writes", proto, answered, err, s.out, s.writes)
	}
	// One write each for the whole of Respond and of Select.
	s = &script{Reader: strings.NewReader(frames(ProtocolID, "/a/1"))}
	if _, err := Respond(s, supporting("/a/1")); err != nil || s.writes != 1 {
		t.Errorf("Respond: %v in %d writes", err, s.writes)
	}
	s = &script{Reader: strings.NewReader(frames(ProtocolID, "/a/1"))}
	if _, err := Select(s, "/a/1"); err != nil || s.writes != 1 {
		t.Errorf("Select: %v in %d writes", err, s.writes)
	}
	// supports must return the name it was asked for.
	s = &script{Reader: strings.NewReader(frames(ProtocolID, "/a/1"))}
	if _, _, err := Accept(s, func([]byte) (string, bool) { return "/a/2", true }); err == nil {
		t.Error("Accept took another name than the one proposed")
	}
}

// A peer may write all it has and close its reading side: our writes fail, and
// what it wrote is still served.
func TestPeerThatOnlyWrites(t *testing.T) {
	for _, in := range []io.Reader{
		strings.NewReader(frames(ProtocolID, "/a/1") + "data"),
		chunks(frames(ProtocolID), frames("/a/1")+"data"),
		iotest.OneByteReader(strings.NewReader(frames(ProtocolID, "/a/1") + "data")),
	} {
		s := &script{Reader: in, writeErr: net.ErrClosed}
		proto, err := Respond(s, supporting("/a/1"))
		if left, _ := io.ReadAll(in); proto != "/a/1" || err != nil || string(left) != "data" {
			t.Errorf("Respond = %q, %v; left %q", proto, err, left)
		}
	}
	s := &script{Reader: strings.NewReader(frames(ProtocolID, "/b", "/a/1")), writeErr: net.ErrClosed}
	var refused *NotSupportedError
	if _, err := Respond(s, supporting("/a/1")); !errors.As(err, &refused) || !slices.Equal(refused.Protos, []string{"/b"}) {
		t.Errorf("refusal that cannot be sent: %v", err)
	}
	if _, err := Select(s, "/a/1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("proposal that cannot be sent: %v", err)
	}
}

// Proposals that are no names are refused without asking the caller.
func TestNoNames(t *testing.T) {
	for _, proposal := range []string{"ls", "", "a", "na", ProtocolID, "/a\n/b", "\n", "GET /"} {
		s := &script{Reader: strings.NewReader(frames(ProtocolID, proposal, "/a/1"))}
		got, err := Respond(s, func(proto []byte) (string, bool) {
			if string(proto) != "/a/1" {
				t.Errorf("asked for %q", proto)
			}
			return string(proto), true
		})
		if got != "/a/1" || err != nil || string(s.out) != frames(ProtocolID, "na", "/a/1") {
			t.Errorf("after %q: %q, %v, said %q", proposal, got, err, s.out)
		}
	}
}

func TestHostileBytes(t *testing.T) {
	full := strings.Repeat("f", MaxTokenLen-2)
	h := frames(ProtocolID)
	for _, c := range []struct{ name, in, reason string }{
		{"no header", frames("/a/1") + strings.Repeat("x", 30), "header expected"},
		{"HTTP", "GET / HTTP/1.1\r\nHost: example\r\n\r\n" + strings.Repeat("x", 80), "header expected"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 80), "header expected"},
		{"zero length", "\x00\x00", "empty"},
		{"zero length after the header", h + "\x00\x00", "empty"},
		{"length not minimal", h + "\x85\x00/a/1\n", "shortest"},
		{"length not minimal, header", "\x93\x00/multistream/1.0.0\n", "shortest"},
		{"length of three bytes", h + "\x85\x80\x00/a/1\n", "longer than 1024"},
		{"length 1025", h + "\x81\x08" + strings.Repeat("x", 1025), "longer than 1024"},
		{"length 16383", h + "\xff\x7f", "longer than 1024"},
		{"endless length", h + strings.Repeat("\xff", 20), "longer than 1024"},
		{"no newline", h + "\x04/a/1", "newline"},
		{"carriage return", h + "\x06/a/1\r\r", "newline"},
		{"wrong header", frames("/multistream/2.0.0"), "header expected"},
		{"four long proposals", h + frames("/"+full, "/"+full, "/"+full, "/"+full), "more than 4096 bytes"},
		{"65 proposals", h + strings.Repeat(frames("/b"), 65), "more than 64 proposals"},
		{"endless header", h + strings.Repeat(h, 300), "more than 64 proposals"},
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			s := &script{Reader: wrap(strings.NewReader(c.in))}
			_, err := Respond(s, supporting("/a/1"))
			var broken *ProtocolError
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), c.reason) || len(broken.Token) > 64 {
				t.Errorf("%s: %v, want %q", c.name, err, c.reason)
			}
			if len(s.out) > len(h)+64*len(naFrame) {
				t.Errorf("%s: %d bytes were answered", c.name, len(s.out))
			}
		}
	}
	for _, c := range []struct{ name, in, reason string }{
		{"no header", frames("/a/1") + h, "header expected"},
		{"header twice", h + h, "expected"},
		{"another protocol", h + frames("/b/1"), "expected"},
		{"the second proposal at once", h + frames("/c/1"), "expected"},
		{"ls", h + frames("ls"), "expected"},
		{"data after na", h + frames("na") + "data", "more data"},
		{"na twice", h + frames("na", "na"), "more data"},
		{"zero length", h + "\x00\x00", "empty"},
		{"length not minimal", h + "\x85\x00/a/1\n", "shortest"},
		{"too long", h + "\x81\x08" + strings.Repeat("x", 1025), "longer than 1024"},
		{"no newline", h + "\x05/a/1x", "newline"},
	} {
		for name, run := range map[string]func(rw io.ReadWriter) error{
			"Select":     func(rw io.ReadWriter) error { _, err := Select(rw, "/a/1", "/c/1"); return err },
			"ReadAnswer": func(rw io.ReadWriter) error { return ReadAnswer(rw, "/a/1") },
		} {
			var broken *ProtocolError
			if c.reason == "more data" && name == "ReadAnswer" {
				continue // see TestReadAnswer
			}
			if err := run(&script{Reader: strings.NewReader(c.in)}); !errors.As(err, &broken) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%s, %s: %v, want %q", name, c.name, err, c.reason)
			}
		}
	}
}

// The data that a hopeful peer sent along with a refused proposal is no breach.
func TestDataAfterRefusal(t *testing.T) {
	for _, data := range []string{"", "\x00\x00\x00", "\xff\xff\xff\xff", "\x05ab", "\x04data"} {
		s := &script{Reader: strings.NewReader(frames(ProtocolID, "/b") + data)}
		var refused *NotSupportedError
		if _, err := Respond(s, supporting("/a/1")); !errors.As(err, &refused) || !slices.Equal(refused.Protos, []string{"/b"}) {
			t.Errorf("refusal, then %q: %v", data, err)
		}
	}
}

func TestTruncated(t *testing.T) {
	full := frames(ProtocolID, "/a/1")
	for n := range len(full) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
			if _, err := Respond(&script{Reader: wrap(strings.NewReader(full[:n]))}, supporting("/a/1")); !errors.Is(err, want) {
				t.Errorf("Respond of %d bytes: %v, want %v", n, err, want)
			}
			if _, err := Select(&script{Reader: wrap(strings.NewReader(full[:n]))}, "/a/1"); !errors.Is(err, want) {
				t.Errorf("Select of %d bytes: %v, want %v", n, err, want)
			}
			if err := ReadAnswer(wrap(strings.NewReader(full[:n])), "/a/1"); !errors.Is(err, want) {
				t.Errorf("ReadAnswer of %d bytes: %v, want %v", n, err, want)
			}
		}
	}
	fault := errors.New("fault")
	for _, in := range []string{"", full[:20], full[:23], frames(ProtocolID, "/b")} {
		r := io.MultiReader(strings.NewReader(in), iotest.ErrReader(fault))
		if _, err := Respond(&script{Reader: r}, supporting("/a/1")); !errors.Is(err, fault) {
			t.Errorf("Respond of %q and a fault: %v", in, err)
		}
	}
}

func TestReadAnswer(t *testing.T) {
	var refused *NotSupportedError
	for _, proto := range []string{"/", "/x", "/a/1"} {
		if err := ReadAnswer(strings.NewReader(frames(ProtocolID, proto)), proto); err != nil {
			t.Errorf("%q accepted: %v", proto, err)
		}
		if err := ReadAnswer(strings.NewReader(frames(ProtocolID, "na")), proto); !errors.As(err, &refused) || !slices.Equal(refused.Protos, []string{proto}) {
			t.Errorf("%q refused: %v", proto, err)
		}
		// Data that was sent along may look like a proposal: it ends with a newline where
		// one would, as one in 256 ClientHellos does.
		if err := ReadAnswer(strings.NewReader(frames(ProtocolID, "na", "na")), proto); !errors.As(err, &refused) {
			t.Errorf("%q and what came along refused: %v", proto, err)
		}
	}
	// A name that no one can propose must not make it fail otherwise than with
	// an error.
	if err := ReadAnswer(strings.NewReader(frames(ProtocolID, "na")), "/"+strings.Repeat("x", 5000)); !errors.As(err, &refused) {
		t.Errorf("impossible name: %v", err)
	}
	if got, want := string(AppendProposal([]byte("x"), "/a/1")), "x"+frames(ProtocolID, "/a/1"); got != want {
		t.Errorf("AppendProposal = %q, want %q", got, want)
	}
}

func TestBadProposals(t *testing.T) {
	many := slices.Repeat([]string{"/a"}, 65)
	large := slices.Repeat([]string{"/" + strings.Repeat("a", MaxNameLen-1)}, 4)
	for _, protos := range [][]string{nil, many, large, {""}, {"a"}, {"/a\n"}, {ProtocolID}, {"/a", "/" + strings.Repeat("a", MaxNameLen)}} {
		s := &script{Reader: strings.NewReader("")}
		if _, err := Select(s, protos...); err == nil || errors.Is(err, io.EOF) || s.writes != 0 {
			t.Errorf("Select of %d bad names: %v after %d writes", len(protos), err, s.writes)
		}
	}
	if err := Check("/a/1"); err != nil {
		t.Error(err)
	}
}

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&NotSupportedError{Protos: []string{"/a", "/b\x00"}}, `multistream: not supported: "/a" "/b\x00"`},
		{&ProtocolError{Reason: "header expected", Token: "GET"}, `multistream: header expected, got "GET"`},
		{&ProtocolError{Reason: "message is empty"}, `multistream: message is empty`},
	} {
		if c.err.Error() != c.want {
			t.Errorf("%q, want %q", c.err, c.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	supports := supporting("/a/1")
	in := []byte(frames(ProtocolID, "/a/1"))
	r := bytes.NewReader(in)
	s := &discard{Reader: r}
	for name, run := range map[string]func() error{
		"Respond":    func() error { _, err := Respond(s, supports); return err },
		"Select":     func() error { _, err := Select(s, "/a/1"); return err },
		"ReadAnswer": func() error { return ReadAnswer(s, "/a/1") },
	} {
		allocs := testing.AllocsPerRun(100, func() {
			r.Reset(in)
			if err := run(); err != nil {
				t.Fatal(err)
			}
		})
		// A collection may empty the pool in the middle of it.
		if allocs > 1 {
			t.Errorf("%s: %.0f allocations", name, allocs)
		}
	}
}

type discard struct{ io.Reader }

func (*discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkRespond(b *testing.B) {
	supports := supporting("/ipfs/ping/1.0.0")
	in := []byte(frames(ProtocolID, "/ipfs/ping/1.0.0"))
	r := bytes.NewReader(in)
	s := &discard{Reader: r}
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(in)
		if _, err := Respond(s, supports); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	in := []byte(frames(ProtocolID, "/ipfs/ping/1.0.0"))
	r := bytes.NewReader(in)
	s := &discard{Reader: r}
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(in)
		if _, err := Select(s, "/ipfs/ping/1.0.0"); err != nil {
			b.Fatal(err)
		}
	}
}
