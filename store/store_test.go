package store

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
)

var everyBit = flag.Bool("everybit", false, "change each bit of a file that matters, not a few thousand")

func openFile(t testing.TB, dir string) *File {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func stores(t *testing.T) map[string]host.Store {
	return map[string]host.Store{"memory": new(Memory), "file": openFile(t, t.TempDir())}
}

func put(key, value string) host.Change { return host.Change{Key: key, Value: []byte(value)} }

// contents reads everything.
func contents(t testing.TB, s host.Store) map[string]string {
	t.Helper()
	all := make(map[string]string)
	if err := s.Each("", func(key string, value []byte) error {
		all[key] = string(value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStore(t *testing.T) {
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			if v, err := s.Get("a/1"); v != nil || err != nil {
				t.Errorf("a key that is not there: %q, %v", v, err)
			}
			if err := s.Write(put("a/1", "one"), put("a/2", "two"), put("b/1", "three"), put("a", ""), put("a0", "x")); err != nil {
				t.Fatal(err)
			}
			if v, err := s.Get("a/1"); string(v) != "one" || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
			if v, err := s.Get("a"); v == nil || len(v) != 0 || err != nil {
				t.Errorf("an empty value is %#v, %v", v, err)
			}
			var keys []string
			s.Each("a/", func(key string, value []byte) error {
				keys = append(keys, key+"="+string(value))
				return s.Write(put("c", key)) // may be used meanwhile
			})
			if want := []string{"a/1=one", "a/2=two"}; !slices.Equal(keys, want) {
				t.Errorf("a/ has %q, want %q", keys, want)
			}
			if err := s.Write(put("a/1", "new"), host.Change{Key: "a/1"}, host.Change{Key: "a/2"}, put("a/2", "again"), host.Change{Key: "none"}); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"a": "", "a/2": "again", "a0": "x", "b/1": "three", "c": "a/2"}
			if got := contents(t, s); !maps.Equal(got, want) {
				t.Errorf("there is %q, want %q", got, want)
			}
			stop := errors.New("stop")
			n := 0
			if err := s.Each("", func(string, []byte) error { n++; return stop }); err != stop || n != 1 {
				t.Errorf("a walk that is stopped: %v after %d", err, n)
			}
			if err := s.Write(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What no store takes changes nothing, and neither do the changes beside it.
func TestRefused(t *testing.T) {
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			for _, bad := range []host.Change{
				put("", "x"), put("\x00", "x"), put(strings.Repeat("k", MaxKey+1), "x"), {Key: "k", Value: make([]byte, MaxValue+1)},
			} {
				if err := s.Write(put("good", "x"), bad); err == nil {
					t.Errorf("a key of %d and a value of %d bytes were taken", len(bad.Key), len(bad.Value))
				}
			}
			if got := contents(t, s); len(got) != 0 {
				t.Errorf("there is %q", got)
			}
			if err := s.Write(put(strings.Repeat("k", MaxKey), strings.Repeat("v", MaxValue))); err != nil {
				t.Error(err)
			}
		})
	}
}

// Random changes leave the same in the file as in memory, and a file that is sound
// after each.
func TestFileIsLikeMemory(t *testing.T) {
	dir := t.TempDir()
	f, m := openFile(t, dir), new(Memory)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 120 {
		changes := randomChanges(r, 1+r.IntN(60))
		if err := errors.Join(f.Write(changes...), m.Write(changes...)); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(f.Path())
		if err != nil {
			t.Fatal(err)
		}
		info, _ := file.Stat()
		if err := sound(file, info.Size()); err != nil {
			t.Fatalf("after round %d: %v", round, err)
		}
		file.Close()
		if round%30 == 29 {
			f.Close()
			f = openFile(t, dir)
			if got, want := contents(t, f), contents(t, m); !maps.Equal(got, want) {
				t.Fatalf("after round %d the file has %d records, memory %d, or they differ", round, len(got), len(want))
			}
		}
	}
}

// randomChanges puts and deletes around a thousand keys; values are of all sizes, some
// larger than a page.
func randomChanges(r *rand.Rand, n int) []host.Change {
	var changes []host.Change
	for range n {
		key := fmt.Sprintf("key/%0*d", 1+r.IntN(40), r.IntN(1000))
		if r.IntN(3) == 0 {
			key = fmt.Sprintf("key/%04d", r.IntN(200))
		}
		c := host.Change{Key: key}
		switch r.IntN(10) {
		case 0, 1, 2, 3:
		case 4:
			c.Value = bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(3*pageSize))
		default:
			c.Value = bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(200))
		}
		changes = append(changes, c)
	}
	if r.IntN(8) == 0 { // now and then most of it goes
		for i := range 1000 {
			changes = append(changes, host.Change{Key: fmt.Sprintf("key/%d", i)}, host.Change{Key: fmt.Sprintf("key/%04d", i)})
		}
	}
	return changes
}

func TestFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	f := openFile(t, dir)
	if info, err := os.Stat(f.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("the directory has %v", names)
	}
}

// Whoever comes second is told so, soon.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	f := openFile(t, dir)
	var err error
	took := testkit.Took(func() { _, err = Open(dir) })
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), f.Path()) || took > time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if err := f.Write(put("a", "b")); err != nil {
		t.Error(err)
	}
	f.Close()
	openFile(t, dir)
}

// Of many who make the file at once one has it.
func TestMadeAtOnce(t *testing.T) {
	dir := t.TempDir()
	results := make(chan error)
	for range 8 {
		go func() {
			f, err := Open(dir)
			if err == nil {
				err = f.Write(put("a", "b"))
				defer f.Close()
			}
			results <- err
		}()
	}
	opened := 0
	for range 8 {
		if err := <-results; err == nil {
			opened++
		} else if !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
	if opened == 0 {
		t.Error("nobody has it")
	}
	if got := contents(t, openFile(t, dir)); got["a"] != "b" {
		t.Errorf("there is %q", got)
	}
}

func TestClosed(t *testing.T) {
	f := openFile(t, t.TempDir())
	f.Close()
	_, err := f.Get("a")
	for _, err := range []error{err, f.Write(put("a", "b")), f.Each("", nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// A file that cannot be read is left as it is, and the error says which and what to do.
func TestDamagedFiles(t *testing.T) {
	whole := sample(t)
	newer := func() []byte {
		dir := t.TempDir()
		f := openFile(t, dir)
		db := f.db
		f.use(func() error { return writeHeader(db, header{version: version + 1}.encode()) })
		f.Close()
		return read(t, f.Path())
	}()
	for name, c := range map[string]struct {
		file []byte
		want error
		text string
	}{
		"empty":           {nil, ErrDamaged, "0 bytes"},
		"something else":  {bytes.Repeat([]byte("hello, world. "), 4096), ErrDamaged, "meta page"},
		"zeros":           {make([]byte, len(whole)), ErrDamaged, "meta page"},
		"cut off":         {whole[:len(whole)/2&^(pageSize-1)], ErrDamaged, "cut off"},
		"cut in a page":   {whole[:len(whole)/4+100], ErrDamaged, "cut off"},
		"only its header": {whole[:2*pageSize], ErrDamaged, "bytes"},
		"newer":           {newer, ErrNewer, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, FileName)
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := Open(dir)
			if err == nil {
				f.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "move") {
				t.Errorf("%v", err)
			}
			if !bytes.Equal(read(t, path), c.file) {
				t.Error("the file was changed")
			}
		})
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory was opened")
	}
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := Open(file); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// A file that is cut off while it is open is an error, and no end of the program.
func TestCutOffWhileOpen(t *testing.T) {
	f := openFile(t, t.TempDir())
	for i := range 200 {
		if err := f.Write(put(fmt.Sprintf("key/%d", i), strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			f.db.NoSync = true
		}
	}
	if err := os.Truncate(f.Path(), 2*pageSize); err != nil {
		t.Fatal(err)
	}
	_, err := f.Get("key/1")
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v", err)
	}
	if err := f.Write(put("a", "b")); !errors.Is(err, ErrDamaged) {
		t.Errorf("written: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// sample is a sound file with several levels of pages.
func sample(t testing.TB) []byte {
	t.Helper()
	f := openFile(t, t.TempDir())
	f.db.NoSync = true
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		var changes []host.Change
		for range 40 {
			changes = append(changes, put(fmt.Sprintf("key/%d", r.IntN(600)), strings.Repeat("x", r.IntN(100))))
		}
		if i == 19 {
			changes = append(changes, put("large", strings.Repeat("x", 2*pageSize)))
		}
		if err := f.Write(changes...); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return read(t, f.Path())
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Of all changes of one bit none goes unseen that makes a difference.
func TestEveryBitCounts(t *testing.T) {
	whole := sample(t)
	if err := sound(bytes.NewReader(whole), int64(len(whole))); err != nil {
		t.Fatal(err)
	}
	bits := usedBits(t, whole)
	matter := len(bits)
	if !*everyBit {
		r := rand.New(rand.NewPCG(5, 6))
		r.Shuffle(len(bits), func(i, j int) { bits[i], bits[j] = bits[j], bits[i] })
		bits = bits[:5000]
	}
	for _, bit := range bits {
		whole[bit/8] ^= 1 << (bit % 8)
		if err := sound(bytes.NewReader(whole), int64(len(whole))); err == nil {
			t.Fatalf("bit %d of byte %d, in page %d at %d, can change unseen", bit%8, bit/8, bit/8/pageSize, bit/8%pageSize)
		}
		whole[bit/8] ^= 1 << (bit % 8)
	}
	t.Logf("%d bits of %d that matter, of a file of %d bytes", len(bits), matter, len(whole))
}

// usedBits lists the bits of a file that are read: those of the metas, and of pages
// that are in the tree the heads, elements, keys and values.
func usedBits(t *testing.T, whole []byte) []int {
	t.Helper()
	var bits []int
	add := func(from, n int) {
		for i := from * 8; i < (from+n)*8; i++ {
			bits = append(bits, i)
		}
	}
	for n := range 2 {
		add(n*pageSize, 10)
		add(n*pageSize+pageHeader, metaLen)
	}
	m, _ := readMeta(bytes.NewReader(whole), 0)
	if other, _ := readMeta(bytes.NewReader(whole), 1); other.transaction > m.transaction {
		m = other
	}
	var page func(id uint64)
	page = func(id uint64) {
		at := int(id) * pageSize
		b := whole[at:]
		add(at, pageHeader-4) // a page that takes free ones behind it for its own does no harm
		for i := range int(order.Uint16(b[10:])) {
			e := b[pageHeader+i*element:]
			if order.Uint16(b[8:]) == branchPage && order.Uint32(e[4:]) == 1 {
				add(at+pageHeader+i*element+4, element-4) // the header's key is a zero, of which there are many
			} else {
				add(at+pageHeader+i*element, element)
			}
			if order.Uint16(b[8:]) == branchPage {
				add(at+pageHeader+i*element+int(order.Uint32(e)), int(order.Uint32(e[4:])))
				page(order.Uint64(e[8:]))
				continue
			}
			begin := at + pageHeader + i*element + int(order.Uint32(e[4:]))
			add(begin, int(order.Uint32(e[8:])))
			begin += int(order.Uint32(e[8:]))
			if order.Uint32(e) == bucketFlag {
				add(begin, 8) // the sequence number is not used
				page(order.Uint64(whole[begin:]))
				continue
			}
			add(begin, int(order.Uint32(e[12:])))
		}
	}
	page(m.root)
	return bits
}

// A loss of power leaves of what was being written any part of any page, but nothing
// of what comes after a sync that had not ended: bbolt writes pages, syncs, writes a
// meta, and syncs. In all those files there is what was acknowledged.
func TestLossOfPower(t *testing.T) {
	const sector = 512
	dir, lost := t.TempDir(), t.TempDir()
	f := openFile(t, dir)
	r := rand.New(rand.NewPCG(7, 8))
	before, want := read(t, f.Path()), contents(t, f)
	opened := 0
	for round := range 60 {
		if err := f.Write(randomChanges(r, 1+r.IntN(30))...); err != nil {
			t.Fatal(err)
		}
		after := read(t, f.Path())
		for range 4 {
			file := slices.Clone(before)
			if r.IntN(2) == 0 { // the file had grown
				file = append(file, make([]byte, len(after)-len(before))...)
			}
			for at := 2 * pageSize; at < len(file); at += sector {
				if r.IntN(2) == 0 {
					copy(file[at:at+sector], after[at:])
				}
			}
			if err := os.WriteFile(filepath.Join(lost, FileName), file, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(lost)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if got := contents(t, l); !maps.Equal(got, want) {
				t.Fatalf("round %d: there are %d records, want %d, or they differ", round, len(got), len(want))
			}
			opened++
			l.Close()
		}
		before, want = after, contents(t, f)
	}
	t.Logf("%d files", opened)
}

func FuzzSound(f *testing.F) {
	whole := sample(f)
	f.Add(whole[:8*pageSize], uint32(0), byte(0))
	f.Add(whole, uint32(2*pageSize), byte(1))
	f.Fuzz(func(t *testing.T, file []byte, at uint32, with byte) {
		if len(file) > 0 {
			file = slices.Clone(file)
			file[int(at)%len(file)] ^= with
		}
		if err := sound(bytes.NewReader(file), int64(len(file))); err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Errorf("%v", err)
			}
			return
		}
		// What is sound, bbolt opens, reads and writes.
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for key := range contents(t, s) {
			if err := s.Write(host.Change{Key: key}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := openFile(b, b.TempDir())
			i := 0
			for b.Loop() {
				var changes []host.Change
				for range n {
					changes = append(changes, put(fmt.Sprintf("key/%d", i), strings.Repeat("x", 200)))
					i++
				}
				if err := f.Write(changes...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	f := openFile(b, dir)
	for i := range 1000 {
		var changes []host.Change
		for j := range 100 {
			changes = append(changes, put(fmt.Sprintf("key/%d", i*100+j), strings.Repeat("x", 300)))
		}
		if i > 0 {
			f.db.NoSync = true
		}
		if err := f.Write(changes...); err != nil {
			b.Fatal(err)
		}
	}
	f.Close()
	info, _ := os.Stat(f.Path())
	b.SetBytes(info.Size())
	for b.Loop() {
		if f, err := Open(dir); err != nil {
			b.Fatal(err)
		} else {
			f.Close()
		}
	}
}

func writeHeader(db *bbolt.DB, value []byte) error {
	return db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketName).Put(headerKey, value) })
}
