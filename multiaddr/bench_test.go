package multiaddr

import (
	"net/netip"
	"testing"
)

const (
	shortText   = "/ip4/192.0.2.1/udp/4001/quic-v1"
	circuitText = "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g" +
		"/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
)

func TestAllocs(t *testing.T) {
	short, circuit := MustParse(shortText), MustParse(circuitText)
	v4, v6 := MustParse("/ip4/192.0.2.1/tcp/80"), MustParse("/ip6/2001:db8::1/udp/80")
	ap := netip.MustParseAddrPort("192.0.2.1:4001")
	encoded := circuit.Bytes()
	seen := map[Addr]int{short: 1, circuit: 2}
	var buf [512]byte
	n := 0
	for _, test := range []struct {
		name string
		want float64
		f    func()
	}{
		{"Components", 0, func() {
			for c := range circuit.Components() {
				n += int(c.Code())
			}
		}},
		{"Has", 0, func() { n += len(circuit.s); circuit.Has(P2PCircuit) }},
		{"First and Last", 0, func() { circuit.First(); circuit.Last() }},
		{"Split", 0, func() { circuit.SplitFirst(); circuit.SplitLast() }},
		{"Decapsulate", 0, func() { circuit.Decapsulate(short) }},
		{"HasPrefix", 0, func() { keptBool = circuit.HasPrefix(short) }},
		{"Compare", 0, func() { n += circuit.Compare(short) }},
		{"map", 0, func() { n += seen[circuit] }},
		{"AddrPort", 0, func() { v4.AddrPort(); v6.AddrPort() }},
		{"IP", 0, func() { v4.IP(); v6.IP() }},
		{"AppendTo", 0, func() { n += len(circuit.AppendTo(buf[:0])) }},
		{"AppendText", 0, func() { b, _ := circuit.AppendText(buf[:0]); n += len(b) }},
		{"Parse", 1, func() { keptAddr, _ = Parse(circuitText) }},
		{"FromBytes", 1, func() { keptAddr, _ = FromBytes(encoded) }},
		{"String", 1, func() { keptText = circuit.String() }},
		{"Encapsulate", 1, func() { keptAddr = short.Encapsulate(v4) }},
		{"FromAddrPort", 1, func() { keptAddr = FromAddrPort(UDP, ap) }},
	} {
		if got := testing.AllocsPerRun(100, test.f); got > test.want {
			t.Errorf("%s: %v allocations, want at most %v", test.name, got, test.want)
		}
	}
}

func BenchmarkParse(b *testing.B)        { benchmarkParse(b, shortText) }
func BenchmarkParseCircuit(b *testing.B) { benchmarkParse(b, circuitText) }

// Results are kept here, so that the compiler cannot leave allocations out.
var (
	keptAddr Addr
	keptText string
	keptBool bool
)

func benchmarkParse(b *testing.B, text string) {
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if keptAddr, err = Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkString(b *testing.B)        { benchmarkString(b, shortText) }
func BenchmarkStringCircuit(b *testing.B) { benchmarkString(b, circuitText) }

func benchmarkString(b *testing.B, text string) {
	a := MustParse(text)
	b.ReportAllocs()
	for b.Loop() {
		if keptText = a.String(); len(keptText) != len(text) {
			b.Fatal(a)
		}
	}
}

func BenchmarkFromBytes(b *testing.B)        { benchmarkFromBytes(b, shortText) }
func BenchmarkFromBytesCircuit(b *testing.B) { benchmarkFromBytes(b, circuitText) }

func benchmarkFromBytes(b *testing.B, text string) {
	encoded := MustParse(text).Bytes()
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if keptAddr, err = FromBytes(encoded); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkComponents(b *testing.B) {
	a := MustParse(circuitText)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range a.Components() {
			n++
		}
		if n != 8 {
			b.Fatal(n)
		}
	}
}

func BenchmarkAddrPort(b *testing.B) {
	a := MustParse(shortText)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := a.AddrPort(); !ok {
			b.Fatal(a)
		}
	}
}

func BenchmarkFromAddrPort(b *testing.B) {
	ap := netip.MustParseAddrPort("192.0.2.1:4001")
	b.ReportAllocs()
	for b.Loop() {
		if keptAddr = FromAddrPort(UDP, ap); keptAddr.IsZero() {
			b.Fatal(ap)
		}
	}
}

func BenchmarkMapKey(b *testing.B) {
	a, same := MustParse(circuitText), MustParse(circuitText)
	seen := map[Addr]int{a: 1, MustParse(shortText): 2}
	b.ReportAllocs()
	for b.Loop() {
		if seen[same] != 1 {
			b.Fatal(same)
		}
	}
}
