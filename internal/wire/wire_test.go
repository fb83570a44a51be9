package wire

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

func TestUvarint(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 255, 300, 16383, 16384, 1<<56 - 1, 1<<63 - 1} {
		b := AppendUvarint(nil, v)
		if len(b) != UvarintLen(v) {
			t.Errorf("UvarintLen(%d) = %d, encoding has %d bytes", v, UvarintLen(v), len(b))
		}
		got, n, err := Uvarint(append(b, 0xff))
		if got != v || n != len(b) || err != nil {
			t.Errorf("Uvarint(% x) = %d, %d, %v; want %d, %d", b, got, n, err, v, len(b))
		}
		if got, err := ReadUvarint(bytes.NewReader(b)); got != v || err != nil {
			t.Errorf("ReadUvarint(% x) = %d, %v; want %d", b, got, err, v)
		}
	}
	for _, c := range []struct {
		in   []byte
		want error
	}{
		{nil, io.ErrUnexpectedEOF},
		{[]byte{0x80}, io.ErrUnexpectedEOF},
		{[]byte{0x80, 0}, ErrVarintNotMinimal},
		{[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrVarintTooLong},
		{[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, ErrVarintTooLong},
	} {
		if _, _, err := Uvarint(c.in); err != c.want {
			t.Errorf("Uvarint(% x): %v, want %v", c.in, err, c.want)
		}
	}
	if _, err := ReadUvarint(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("ReadUvarint of nothing: %v, want io.EOF", err)
	}
}

func TestFrame(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, readStep, readStep + 1, 100_000} {
		msg := bytes.Repeat([]byte{7}, n)
		var buf bytes.Buffer
		if err := WriteFrame(&buf, msg); err != nil {
			t.Fatal(err)
		}
		buf.WriteString("rest")
		got, err := ReadFrame(iotest.OneByteReader(&buf), n)
		if err != nil || !bytes.Equal(got, msg) {
			t.Errorf("frame of %d bytes: got %d bytes, %v", n, len(got), err)
		}
		if buf.String() != "rest" {
			t.Errorf("frame of %d bytes: read beyond its end, %q is left", n, buf.String())
		}
	}
	var size *SizeError
	if _, err := ReadFrame(bytes.NewReader([]byte{5}), 4); !errors.As(err, &size) || size.Size != 5 || size.Max != 4 {
		t.Errorf("frame over the limit: %v", err)
	}
	if _, err := ReadFrame(bytes.NewReader([]byte{5, 1}), 8); err != io.ErrUnexpectedEOF {
		t.Errorf("truncated frame: %v", err)
	}
}

// A length prefix that nothing follows must not cost its length.
func TestFrameAllocatesWhatArrives(t *testing.T) {
	in := AppendUvarint(nil, 4<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ReadFrame(bytes.NewReader(in), 4<<20)
	runtime.ReadMemStats(&after)
	grown := after.TotalAlloc - before.TotalAlloc
	if grown > 4*readStep {
		t.Errorf("a claim of 4 MiB allocated %d bytes", grown)
	}
}

func TestFields(t *testing.T) {
	msg := AppendVarintField(nil, 1, 1<<64-1)
	msg = AppendStringField(msg, 2, "two")
	msg = AppendBytesField(msg, 3, nil)
	msg = append(msg, 4<<3|TypeFixed32, 1, 0, 0, 0, 5<<3|TypeFixed64, 2, 0, 0, 0, 0, 0, 0, 0)
	var got []Field
	if err := Fields(msg, func(f Field) error { got = append(got, f); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 || got[0].Uint != 1<<64-1 || string(got[1].Bytes) != "two" || len(got[2].Bytes) != 0 ||
		got[3].Uint != 1 || got[4].Uint != 2 {
		t.Errorf("fields: %+v", got)
	}
	if got[0].Want(TypeBytes) == nil || got[0].Want(TypeVarint) != nil {
		t.Error("Want does not tell wire types apart")
	}
	for _, bad := range [][]byte{
		{0}, {0x80}, {1<<3 | 3}, {1<<3 | 4}, {1 << 3}, {1<<3 | 2, 5, 1}, {1<<3 | 1, 0}, {1<<3 | 5, 0},
		{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		if err := Fields(bad, func(Field) error { return nil }); !errors.Is(err, ErrProto) {
			t.Errorf("Fields(% x): %v, want ErrProto", bad, err)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add(AppendStringField(AppendVarintField(nil, 1, 300), 2, "x"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		total := 0
		Fields(msg, func(f Field) error { total += len(f.Bytes); return nil })
		if total > len(msg) {
			t.Fatalf("fields hold %d bytes of a message of %d", total, len(msg))
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		msg, err := ReadFrame(r, 1<<16)
		if err != nil {
			return
		}
		if again := AppendFrame(nil, msg); !bytes.Equal(again, in[:len(in)-r.Len()]) {
			t.Fatalf("% x decodes and encodes again as % x", in, again)
		}
	})
}
