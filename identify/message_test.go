package identify

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

type vector struct {
	Name            string
	Peer            peer.ID
	Messages        int
	AgentVersion    string
	ProtocolVersion string
	Protocols       []host.ProtocolID
	ListenAddrs     []multiaddr.Addr
	ObservedAddr    string
	BelievedAddrs   []multiaddr.Addr
	SignedRecord    bool
	Wire            string
}

func (v vector) bytes() []byte {
	b, err := hex.DecodeString(v.Wire)
	if err != nil {
		panic(err)
	}
	return b
}

func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("../testdata/vectors/identify.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Messages []vector }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Messages) < 10 {
		t.Fatalf("only %d vectors", len(file.Messages))
	}
	return file.Messages
}

// What other implementations have sent means what they say it does.
func TestVectors(t *testing.T) {
	loopback := multiaddr.MustParse("/ip4/127.0.0.1/tcp/1")
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			wire := v.bytes()
			m, err := readAndDecode(iotest.OneByteReader(bytes.NewReader(wire)))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(frameSizes(t, wire)); n != v.Messages {
				t.Errorf("%d messages, want %d", n, v.Messages)
			}
			if m.agentVersion != v.AgentVersion || m.protocolVersion != v.ProtocolVersion {
				t.Errorf("versions %q, %q; want %q, %q", m.agentVersion, m.protocolVersion, v.AgentVersion, v.ProtocolVersion)
			}
			if !slices.Equal(m.protocols, v.Protocols) || !slices.Equal(m.listenAddrs, v.ListenAddrs) {
				t.Errorf("protocols %v, addresses %v; want %v, %v", m.protocols, m.listenAddrs, v.Protocols, v.ListenAddrs)
			}
			observed := ""
			if !m.observedAddr.IsZero() {
				observed = m.observedAddr.String()
			}
			// js-libp2p adds /p2p and the observed peer.
			if want, _, _ := strings.Cut(v.ObservedAddr, "/p2p/"); observed != want {
				t.Errorf("observed %s, want %s", observed, want)
			}
			key, err := peer.UnmarshalPublicKey(m.publicKey)
			if err != nil || key.ID() != v.Peer {
				t.Errorf("public key is that of %s, want %s: %v", key.ID(), v.Peer, err)
			}
			info := m.believe(v.Peer, loopback)
			if !slices.Equal(info.Addrs, v.BelievedAddrs) || info.SignedRecord != v.SignedRecord {
				t.Errorf("believed %v (signed: %v), want %v (%v)", info.Addrs, info.SignedRecord, v.BelievedAddrs, v.SignedRecord)
			}
		})
	}
}

func readAndDecode(r io.Reader) (message, error) {
	data, err := readMessages(r)
	if err != nil {
		return message{}, err
	}
	return decode(data)
}

// frameSizes gives the length of each message in b.
func frameSizes(t testing.TB, b []byte) (sizes []int) {
	t.Helper()
	for r := bytes.NewReader(b); r.Len() > 0; {
		msg, err := wire.ReadFrame(r, len(b))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(msg))
	}
	return sizes
}

func protocols(n, size int) []host.ProtocolID {
	all := make([]host.ProtocolID, n)
	for i := range all {
		p := fmt.Sprintf("/%06d/", i)
		all[i] = host.ProtocolID(p + strings.Repeat("x", max(size-len(p), 0)))
	}
	return all
}

func addrs(n int) []multiaddr.Addr {
	all := make([]multiaddr.Addr, n)
	for i := range all {
		all[i] = multiaddr.MustParse(fmt.Sprintf("/ip4/192.0.%d.%d/tcp/4001", 1+i/256, i%256))
	}
	return all
}

// Whatever we have to say arrives, in messages that every implementation reads.
func TestEncode(t *testing.T) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	observed := multiaddr.MustParse("/ip4/192.0.2.7/tcp/4001")
	for _, c := range []struct {
		name      string
		addrs     []multiaddr.Addr
		protocols []host.ProtocolID
		record    bool
		messages  int
		allAddrs  bool
	}{
		{"nothing", nil, nil, false, 1, true},
		{"small", addrs(3), protocols(10, 20), false, 1, true},
		{"small with record", addrs(3), protocols(10, 20), true, 1, true},
		{"over 2048 with record", addrs(10), protocols(80, 20), true, 2, true},
		{"over 2048 without record", addrs(10), protocols(150, 20), false, 1, true},
		{"protocols over 4096", addrs(3), protocols(300, 30), true, 3, true},
		{"as many protocols as are read", addrs(3), protocols(500, 32), true, 4, true},
		{"too many addresses", addrs(1000), protocols(10, 20), true, 2, false},
		{"too much of both", addrs(1000), protocols(500, 30), true, 4, false},
		{"long protocols", addrs(3), protocols(16, maxProtocolLen), true, 4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, kept := encode(key.Public().Marshal(), "/net/1", "agent/1", c.addrs, c.protocols)
			if c.record {
				sealed, err := peer.Record{ID: key.ID(), Seq: 1, Addrs: kept[:min(len(kept), 16)]}.Seal(key)
				if err != nil {
					t.Fatal(err)
				}
				e.setRecord(sealed)
			}
			b := e.messages(observed)
			sizes := frameSizes(t, b)
			if len(sizes) != c.messages {
				t.Errorf("messages of %d bytes, want %d messages", sizes, c.messages)
			}
			if sizes[0] > maxFirstLen || slices.Max(sizes) > maxMessageLen {
				t.Errorf("messages of %d bytes are too long", sizes)
			}
			if c.record && len(sizes) == 1 && sizes[0] > maxSingleLen {
				t.Errorf("a message of %d bytes holds the record too", sizes[0])
			}
			if cap(b) > len(b)+16 {
				t.Errorf("room for %d bytes was made, %d are used", cap(b), len(b))
			}
			m, err := readAndDecode(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if c.allAddrs != (len(kept) == len(c.addrs)) || !slices.Equal(kept, c.addrs[:len(kept)]) {
				t.Errorf("%d addresses of %d were kept", len(kept), len(c.addrs))
			}
			if !slices.Equal(m.listenAddrs, kept[:min(len(kept), maxAddrs)]) || !slices.Equal(m.protocols, c.protocols) {
				t.Errorf("%d addresses and %d protocols arrive of %d and %d", len(m.listenAddrs), len(m.protocols), len(c.addrs), len(c.protocols))
			}
			if m.agentVersion != "agent/1" || m.protocolVersion != "/net/1" || m.observedAddr != observed || !bytes.Equal(m.publicKey, key.Public().Marshal()) {
				t.Errorf("decoded as %+v", m)
			}
			if (len(m.signedRecord) > 0) != c.record {
				t.Errorf("signed record of %d bytes", len(m.signedRecord))
			}
			// rust-libp2p reads the first message alone: it must say who we are and
			// what fits of the rest.
			first, err := decode(b[wire.UvarintLen(uint64(sizes[0])):][:sizes[0]])
			if err != nil || len(first.publicKey) == 0 || !slices.Equal(first.listenAddrs, m.listenAddrs) || first.observedAddr != observed {
				t.Errorf("the first message alone: %+v, %v", first, err)
			}
			if len(c.protocols) > 0 && len(first.protocols) == 0 {
				t.Error("the first message has no protocol")
			}
		})
	}
}

// More than ten messages can hold is cut off, not refused by those who read it.
func TestEncodeTooMuch(t *testing.T) {
	e, _ := encode(make([]byte, 36), "", "a", addrs(2000), announced(protocols(5000, 100)))
	e.setRecord(make([]byte, 1000))
	sizes := frameSizes(t, e.messages(multiaddr.Addr{}))
	if len(sizes) > maxMessages-1 || slices.Max(sizes) > maxMessageLen {
		t.Errorf("messages of %d bytes", sizes)
	}
	if got := announced([]host.ProtocolID{"", "/a", host.ProtocolID(strings.Repeat("x", maxProtocolLen+1))}); !slices.Equal(got, []host.ProtocolID{"/a"}) {
		t.Errorf("announced: %d protocols", len(got))
	}
}

// The observed address is left out where it is none, or would not fit.
func TestEncodeObserved(t *testing.T) {
	e, _ := encode(make([]byte, 36), "", "a", nil, nil)
	long := multiaddr.MustParse("/unix/" + strings.Repeat("x", 300))
	for _, a := range []multiaddr.Addr{{}, long} {
		m, err := readAndDecode(bytes.NewReader(e.messages(a)))
		if err != nil || !m.observedAddr.IsZero() {
			t.Errorf("observed %s: %+v, %v", a, m, err)
		}
	}
}

// A field can be in any message; of what can be there once the last counts.
func TestMessagesMerge(t *testing.T) {
	var in []byte
	for _, fields := range [][]byte{
		wire.AppendStringField(wire.AppendStringField(nil, fieldAgentVersion, "old"), fieldProtocol, "/b/1"),
		{}, // an empty message says nothing
		wire.AppendStringField(wire.AppendStringField(nil, fieldProtocol, "/a/1"), fieldProtocol, "/b/1"),
		wire.AppendVarintField(wire.AppendStringField(nil, fieldAgentVersion, "new"), 99, 5),
		wire.AppendVarintField(nil, 7, 1), // was used once
		wire.AppendBytesField(nil, fieldListenAddr, addrs(1)[0].Bytes()),
	} {
		in = wire.AppendFrame(in, fields)
	}
	m, err := readAndDecode(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if m.agentVersion != "new" || !slices.Equal(m.protocols, []host.ProtocolID{"/a/1", "/b/1"}) || !slices.Equal(m.listenAddrs, addrs(1)) {
		t.Errorf("%+v", m)
	}
}

// endless repeats one message for ever, and counts.
type endless struct {
	msg  []byte
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.msg[e.read%len(e.msg):])
	e.read += n
	return n, nil
}

func TestReadMessagesHostile(t *testing.T) {
	var tooLong *wire.SizeError
	for _, c := range []struct {
		name string
		in   []byte
		want func(error) bool
	}{
		{"nothing", nil, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"cut in the length", []byte{0x80}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"cut in the message", []byte{5, 1, 2}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"cut in the second", []byte{0, 5, 1, 2}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"too long", wire.AppendUvarint(nil, maxMessageLen+1), func(err error) bool { return errors.As(err, &tooLong) }},
		{"4 MiB claimed", wire.AppendUvarint(nil, 4<<20), func(err error) bool { return errors.As(err, &tooLong) }},
		{"huge claim", wire.AppendUvarint(nil, 1<<63-1), func(err error) bool { return errors.As(err, &tooLong) }},
		{"length not in its shortest form", []byte{0x81, 0}, func(err error) bool { return errors.Is(err, wire.ErrVarintNotMinimal) }},
		{"eleven messages", make([]byte, maxMessages+1), func(err error) bool { return strings.Contains(err.Error(), "more than 10") }},
	} {
		data, err := readMessages(bytes.NewReader(c.in))
		if err == nil || !c.want(err) {
			t.Errorf("%s: %d bytes, %v", c.name, len(data), err)
		}
	}
	if _, err := readMessages(bytes.NewReader(make([]byte, maxMessages))); err != nil {
		t.Errorf("ten messages: %v", err)
	}
	e := &endless{msg: wire.AppendFrame(nil, make([]byte, maxMessageLen))}
	if _, err := readMessages(e); err == nil || e.read > (maxMessages+1)*len(e.msg) {
		t.Errorf("of endless messages %d bytes were read: %v", e.read, err)
	}
}

func TestDecodeMalformed(t *testing.T) {
	for _, in := range [][]byte{
		{0x0a}, {0x0a, 5, 1}, {0xff, 0xff}, {0x08, 1}, // a public key that is a number
		wire.AppendVarintField(nil, fieldProtocol, 1), {0},
	} {
		if m, err := decode(in); err == nil || !errors.Is(err, wire.ErrProto) {
			t.Errorf("% x: %+v, %v", in, m, err)
		}
	}
}

// footprint is what a decoded message keeps alive, in bytes.
func footprint(m message) int {
	const stringHeader = 16
	n := stringHeader*(cap(m.listenAddrs)+cap(m.protocols)) + len(m.agentVersion) + len(m.protocolVersion) + m.observedAddr.Len()
	for _, a := range m.listenAddrs {
		n += a.Len()
	}
	for _, p := range m.protocols {
		n += len(p)
	}
	return n
}

// checkBounds checks what holds for every message.
func checkBounds(t *testing.T, m message, size int) {
	t.Helper()
	if n := footprint(m); n > 4*size || n > 64<<10 {
		t.Errorf("a message of %d bytes keeps %d", size, n)
	}
	if len(m.listenAddrs) > maxAddrs || len(m.protocols) > maxProtocols || !slices.IsSorted(m.protocols) {
		t.Errorf("%d addresses, %d protocols, sorted: %v", len(m.listenAddrs), len(m.protocols), slices.IsSorted(m.protocols))
	}
	for _, v := range []string{m.agentVersion, m.protocolVersion} {
		if len(v) > maxVersionLen || !isPrintable([]byte(v)) {
			t.Errorf("version %q", v)
		}
	}
	for i, p := range m.protocols {
		if !usable([]byte(p)) || i > 0 && p == m.protocols[i-1] {
			t.Errorf("protocol %d is %q", i, p)
		}
	}
}

// The largest messages that can be sent, filled with what is smallest to send
// and largest to keep.
func TestDecodeAmplification(t *testing.T) {
	fill := func(field int, value []byte) []byte {
		one := wire.AppendBytesField(nil, field, value)
		return bytes.Repeat(one, maxMessages*maxMessageLen/len(one))
	}
	distinct := func(size int) (b []byte) {
		for i := 0; len(b)+size+4 < maxMessages*maxMessageLen; i++ {
			b = wire.AppendStringField(b, fieldProtocol, fmt.Sprintf("%0*x", size, i))
		}
		return b
	}
	usual, err := readMessages(bytes.NewReader(vectors(t)[2].bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"a usual message":    usual,
		"empty protocols":    fill(fieldProtocol, nil),
		"short protocols":    fill(fieldProtocol, []byte("/")),
		"protocols of 3":     distinct(3),
		"protocols of 8":     distinct(8),
		"protocols of 1000":  distinct(1000),
		"bad protocols":      fill(fieldProtocol, []byte("/\xff\xff")),
		"empty addresses":    fill(fieldListenAddr, nil),
		"small addresses":    fill(fieldListenAddr, multiaddr.MustParse("/unix/a").Bytes()),
		"bad addresses":      fill(fieldListenAddr, []byte("xxxx")),
		"large addresses":    fill(fieldListenAddr, multiaddr.MustParse("/unix/"+strings.Repeat("x", 1000)).Bytes()),
		"versions":           fill(fieldAgentVersion, []byte{0x1b}),
		"one large version":  wire.AppendBytesField(nil, fieldAgentVersion, bytes.Repeat([]byte{0x1b}, maxMessageLen)),
		"records":            fill(fieldSignedRecord, make([]byte, 100)),
		"observed addresses": fill(fieldObservedAddr, addrs(1)[0].Bytes()),
		"unknown fields":     fill(1<<20, nil),
	} {
		t.Run(name, func(t *testing.T) {
			var m message
			var err error
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err = decode(in)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			checkBounds(t, m, len(in))
			// What is garbage at once counts too.
			if made := after.TotalAlloc - before.TotalAlloc; made > uint64(4*len(in)) {
				t.Errorf("decoding %d bytes allocated %d", len(in), made)
			}
		})
	}
}

// 500 streams that claim the largest message and stall take 4 KiB each.
func TestStalledMessage(t *testing.T) {
	in := append(wire.AppendUvarint(nil, maxMessageLen), 1, 2, 3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 500 {
		if _, err := readMessages(iotest.TimeoutReader(bytes.NewReader(in))); err == nil {
			t.Fatal("a message that was cut short was read")
		}
	}
	runtime.ReadMemStats(&after)
	if made := after.TotalAlloc - before.TotalAlloc; made > 500*6<<10 {
		t.Errorf("%d bytes for each stalled stream", made/500)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"kith/1.0 (ürgent)":            "kith/1.0 (ürgent)",
		"\x1b[2Jgo-libp2p":             "�[2Jgo-libp2p",
		"bad \xff utf-8":               "bad � utf-8",
		"right\u202eto left":           "right�to left",
		strings.Repeat("x", 300):       strings.Repeat("x", 256),
		strings.Repeat("ü", 300):       strings.Repeat("ü", 128),
		"x" + strings.Repeat("ü", 300): "x" + strings.Repeat("ü", 127),
		strings.Repeat("\x00", 300):    strings.Repeat("�", 85),
	} {
		got := printable([]byte(in))
		if got != want {
			t.Errorf("printable(%.20q) = %q, want %q", in, got, want)
		}
		if len(got) > maxVersionLen || !utf8.ValidString(got) {
			t.Errorf("printable(%.20q) has %d bytes", in, len(got))
		}
	}
}

// Nobody makes us dial into a network that he is not in himself.
func TestBelieveReach(t *testing.T) {
	said := []multiaddr.Addr{
		multiaddr.MustParse("/ip4/127.0.0.1/tcp/22"), multiaddr.MustParse("/ip6/::1/tcp/22"),
		multiaddr.MustParse("/ip4/10.0.0.1/tcp/22"), multiaddr.MustParse("/ip4/169.254.169.254/tcp/80"),
		multiaddr.MustParse("/ip4/192.0.2.1/tcp/4001"), multiaddr.MustParse("/dns/example.com/tcp/4001"),
	}
	for from, want := range map[string]int{"/ip4/127.0.0.1/tcp/1": 6, "/memory/7": 6, "/ip4/10.1.1.1/tcp/1": 4, "/ip4/192.0.2.1/tcp/1": 2} {
		info := message{listenAddrs: slices.Clone(said)}.believe(peer.ID{}, multiaddr.MustParse(from))
		if !slices.Equal(info.Addrs, said[len(said)-want:]) {
			t.Errorf("from %s: %v", from, info.Addrs)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes())
	}
	e, _ := encode([]byte("key"), "/v/1", "agent", addrs(3), protocols(400, 30))
	e.setRecord([]byte("record"))
	f.Add(e.messages(addrs(1)[0]))
	f.Add(wire.AppendFrame(nil, wire.AppendStringField(nil, fieldAgentVersion, "\x1b\xff\u202e")))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readAndDecode(bytes.NewReader(in))
		if err != nil {
			return
		}
		checkBounds(t, m, len(in))
		// What is understood can be said again, and means the same.
		e, kept := encode(m.publicKey, m.protocolVersion, m.agentVersion, m.listenAddrs, m.protocols)
		if len(m.signedRecord) > 0 && len(m.signedRecord) < maxMessageLen-4 {
			e.setRecord(m.signedRecord)
		}
		if len(m.publicKey) > maxFirstLen/4 {
			return // no key is that long; message 1 would be too
		}
		again, err := readAndDecode(bytes.NewReader(e.messages(m.observedAddr)))
		if err != nil {
			t.Fatalf("%+v encodes as what cannot be read: %v", m, err)
		}
		if !slices.Equal(again.protocols, m.protocols) || !slices.Equal(again.listenAddrs, kept) ||
			again.agentVersion != m.agentVersion || again.protocolVersion != m.protocolVersion || !bytes.Equal(again.publicKey, m.publicKey) {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data, err := readMessages(bytes.NewReader(vectors(b)[0].bytes()))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	e, _ := encode(make([]byte, 36), "/v/1", "agent", addrs(10), protocols(40, 25))
	e.setRecord(make([]byte, 400))
	observed := addrs(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		e.messages(observed)
	}
}
