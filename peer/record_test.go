package peer

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/multiaddr"
)

func TestRecordVectors(t *testing.T) {
	var file recordVectors
	readVectors(t, "peer-records.json", &file)
	if len(file.Records) < 7 {
		t.Fatalf("only %d records", len(file.Records))
	}
	for _, v := range file.Records {
		key := mustPrivate(t, v.Private)
		seq, err := strconv.ParseUint(v.Seq, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		want := Record{ID: key.ID(), Seq: seq}
		for _, a := range v.Addrs {
			want.Addrs = append(want.Addrs, multiaddr.MustParse(a))
		}
		got, err := OpenRecord(v.Envelope)
		if err != nil || !sameRecord(got, want) || got.ID.String() != v.ID {
			t.Errorf("%s: %v, %v, want %v", v.Name, got, err, want)
		}
		b, err := want.Seal(key)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if v.Deterministic && !bytes.Equal(b, v.Envelope) {
			t.Errorf("%s: sealed % x, want % x", v.Name, b, v.Envelope)
		}
		if got, err := OpenRecord(b); err != nil || !sameRecord(got, want) {
			t.Errorf("%s: our own %v, %v", v.Name, got, err)
		}
	}
}

// A record with the domain and the payload type of RFC 0003.
func TestRecordOfRust(t *testing.T) {
	var file recordVectors
	readVectors(t, "peer-records.json", &file)
	r, err := OpenRecord(file.Rust.Envelope)
	if err != nil || r.ID.String() != file.Rust.ID || fmt.Sprint(r.Seq) != file.Rust.Seq ||
		len(r.Addrs) != len(file.Rust.Addrs) || r.Addrs[0].String() != file.Rust.Addrs[0] {
		t.Errorf("%v, %v, want %v", r, err, file.Rust)
	}
}

// The bug that every implementation has had: a record that is signed well, by
// somebody else than the peer that it is about.
func TestRecordOfAnother(t *testing.T) {
	var file recordVectors
	readVectors(t, "peer-records.json", &file)
	r, err := OpenRecord(file.Lie.Envelope)
	if err == nil || !sameRecord(r, Record{}) {
		t.Errorf("go-libp2p's lie is taken: %v, %v", r, err)
	} else if !strings.Contains(err.Error(), file.Lie.Signer) || !strings.Contains(err.Error(), file.Lie.Subject) {
		t.Errorf("the error names neither liar nor victim: %v", err)
	}
	keys := vectorKeys(t)
	lie := Record{ID: keys[Secp256k1].ID(), Seq: 1}
	if b, err := lie.Seal(keys[Ed25519]); err == nil {
		t.Errorf("sealed a lie: % x", b)
	}
	if b, err := (Record{Seq: 1}).Seal(keys[Ed25519]); err == nil {
		t.Errorf("sealed a record about nobody: % x", b)
	}
	if b, err := (Record{}).Seal(PrivateKey{}); err == nil {
		t.Errorf("sealed nothing with nothing: % x", b)
	}
}

func TestRecordAddresses(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	good := multiaddr.MustParse("/ip4/192.0.2.1/tcp/4001")
	address := func(b []byte) []byte { return wireBytes(3, wireBytes(1, b)) }
	head := wireBytes(1, key.ID().Bytes())
	for name, c := range map[string]struct {
		payload []byte
		want    int // addresses; -1: refused
	}{
		"none":                     {head, 0},
		"one":                      {concat(head, address(good.Bytes())), 1},
		"empty ones around":        {concat(head, address(nil), address(good.Bytes()), address(nil)), 1},
		"no address in it":         {concat(head, wireBytes(3, nil), address(good.Bytes())), 1},
		"unknown protocol":         {concat(head, address([]byte{0xff, 0xff, 0x7f}), address(good.Bytes())), 1},
		"a value cut":              {concat(head, address(good.Bytes()[:4]), address(good.Bytes())), 1},
		"metadata":                 {concat(head, wireBytes(3, concat(wireBytes(1, good.Bytes()), []byte{2 << 3, 5}))), 1},
		"unknown fields":           {concat([]byte{9 << 3, 5}, head, address(good.Bytes()), wireBytes(8, []byte("x"))), 1},
		"no ID":                    {address(good.Bytes()), -1},
		"empty ID":                 {concat(wireBytes(1, nil), address(good.Bytes())), -1},
		"ID twice":                 {concat(head, head), -1},
		"ID cut":                   {wireBytes(1, key.ID().Bytes()[:30]), -1},
		"ID as a varint":           {[]byte{1 << 3, 1}, -1},
		"seq as bytes":             {concat(head, wireBytes(2, []byte{1})), -1},
		"address as a varint":      {concat(head, []byte{3 << 3, 1}), -1},
		"two addresses in one":     {concat(head, wireBytes(3, concat(wireBytes(1, good.Bytes()), wireBytes(1, good.Bytes())))), -1},
		"inner address a varint":   {concat(head, wireBytes(3, []byte{1 << 3, 1})), -1},
		"inner address malformed":  {concat(head, wireBytes(3, []byte{1<<3 | 2, 5})), -1},
		"malformed behind":         {concat(head, address(good.Bytes()), []byte{0xff}), -1},
		"as many as allowed":       {concat(head, bytes.Repeat(address(good.Bytes()), MaxRecordAddrs)), MaxRecordAddrs},
		"more than that":           {concat(head, bytes.Repeat(address(good.Bytes()), MaxRecordAddrs+100)), MaxRecordAddrs},
		"too many unreadable ones": {concat(head, bytes.Repeat(address([]byte{0x7f}), MaxRecordAddrs), address(good.Bytes())), 0},
	} {
		b, err := SealEnvelope(key, recordDomain, recordPayloadType, c.payload)
		if err != nil {
			t.Fatal(err)
		}
		r, err := OpenRecord(b)
		if (err != nil) != (c.want < 0) || len(r.Addrs) != max(0, c.want) {
			t.Errorf("%s: %d addresses, %v", name, len(r.Addrs), err)
		}
		for _, a := range r.Addrs {
			if a != good {
				t.Errorf("%s: address %v", name, a)
			}
		}
	}

	sealed, err := Record{ID: key.ID(), Addrs: []multiaddr.Addr{{}, good, {}}}.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Record{ID: key.ID(), Addrs: []multiaddr.Addr{good}}.Seal(key)
	if err != nil || !bytes.Equal(sealed, want) {
		t.Errorf("empty addresses are sent: % x, %v", sealed, err)
	}
	many := Record{ID: key.ID(), Addrs: slices.Repeat([]multiaddr.Addr{good}, MaxRecordAddrs)}
	if _, err := many.Seal(key); err != nil {
		t.Errorf("%d addresses: %v", len(many.Addrs), err)
	}
	many.Addrs = append(many.Addrs, good)
	if _, err := many.Seal(key); err == nil {
		t.Errorf("sealed %d addresses", len(many.Addrs))
	}
}

// Records as go-libp2p and as rust-libp2p seal them pass, no mixture of the two,
// and no envelope that was made for something else.
func TestRecordDomainAndType(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	payload := Record{ID: key.ID(), Seq: 1}.marshal()
	for _, c := range []struct {
		domain, typ string
		open        bool
	}{
		{recordDomain, string(recordPayloadType), true},
		{"libp2p-routing-state", "/libp2p/routing-state-record", true},
		{"libp2p-routing-state", string(recordPayloadType), false},
		{recordDomain, "/libp2p/routing-state-record", false},
		{recordDomain, "", false},
		{"libp2p-relay-rsvp", "\x03\x02", false},
	} {
		b, err := SealEnvelope(key, c.domain, []byte(c.typ), payload)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := OpenRecord(b); (err == nil) != c.open || c.open && (r.ID != key.ID() || r.Seq != 1) {
			t.Errorf("domain %q, type %q: %v, %v", c.domain, c.typ, r, err)
		}
		lie, err := SealEnvelope(vectorKeys(t)[Secp256k1], c.domain, []byte(c.typ), payload)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := OpenRecord(lie); err == nil {
			t.Errorf("domain %q, type %q: signed by another: %v", c.domain, c.typ, r)
		}
	}
}

// The record that costs most: as many of the shortest addresses as fit.
func TestRecordMemory(t *testing.T) {
	key := vectorKeys(t)[Ed25519]
	short := multiaddr.MustParse("/p2p-circuit")
	payload := wireBytes(1, key.ID().Bytes())
	for len(payload) < MaxEnvelopeLen-200 {
		payload = append(payload, wireBytes(3, wireBytes(1, short.Bytes()))...)
	}
	b, err := SealEnvelope(key, recordDomain, recordPayloadType, payload)
	if err != nil {
		t.Fatal(err)
	}
	const runs = 10
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if r, err := OpenRecord(b); err != nil || len(r.Addrs) != MaxRecordAddrs {
			t.Fatal(len(r.Addrs), err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 4*uint64(len(b)) {
		t.Errorf("opening %d bytes allocates %d", len(b), n)
	}
}

func FuzzOpenRecord(f *testing.F) {
	var file recordVectors
	readVectors(f, "peer-records.json", &file)
	for _, v := range file.Records {
		f.Add([]byte(v.Envelope))
	}
	f.Add([]byte(file.Lie.Envelope))
	f.Add([]byte(file.Rust.Envelope))
	for _, v := range file.Records {
		r, err := OpenRecord(v.Envelope)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.marshal())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := OpenRecord(data); err == nil {
			checkRecord(t, r)
		}
		// The signature stops nearly everything, so the payload is read for
		// itself as well.
		if r, err := unmarshalRecord(data); err == nil {
			checkRecord(t, r)
		}
	})
}

func checkRecord(t *testing.T, r Record) {
	t.Helper()
	if r.ID.IsZero() || len(r.Addrs) > MaxRecordAddrs || slices.ContainsFunc(r.Addrs, multiaddr.Addr.IsZero) {
		t.Fatalf("a bad record: %v", r)
	}
	again, err := unmarshalRecord(r.marshal())
	if err != nil || !sameRecord(again, r) {
		t.Fatalf("%v becomes %v, %v", r, again, err)
	}
}

func sameRecord(a, b Record) bool {
	return a.ID == b.ID && a.Seq == b.Seq && slices.Equal(a.Addrs, b.Addrs)
}

// testRecord is a record as a server has it.
func testRecord(t testing.TB, key PrivateKey) Record {
	t.Helper()
	r := Record{ID: key.ID(), Seq: 1700000000000000000}
	for i := range 5 {
		r.Addrs = append(r.Addrs,
			multiaddr.MustParse(fmt.Sprintf("/ip4/192.0.2.%d/tcp/4001", i)),
			multiaddr.MustParse(fmt.Sprintf("/ip6/2001:db8::%d/udp/4001/quic-v1", i)))
	}
	return r
}
