package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// With this variable set, the test binary makes or loads that key file, prints
// the ID and ends: it plays another process.
const keyFileVariable = "PEER_TEST_KEY_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(keyFileVariable); path != "" {
		key, err := LoadOrCreateKey(path, Ed25519)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print(key.ID())
		return
	}
	os.Exit(m.Run())
}

func TestKeyFile(t *testing.T) {
	for typ, key := range vectorKeys(t) {
		path := filepath.Join(t.TempDir(), "new", "dir", "identity.key")
		if _, err := LoadKey(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: LoadKey of nothing: %v", typ, err)
		}
		if err := SaveKey(path, key); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, key.Marshal()) {
			t.Errorf("%v: the file is not the protobuf, %v", typ, err)
		}
		loaded, err := LoadKey(path)
		if err != nil || !loaded.Equal(key) {
			t.Errorf("%v: loaded %v, %v", typ, loaded, err)
		}
		other, err := GenerateKey(Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		if err := SaveKey(path, other); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: a second SaveKey: %v", typ, err)
		}
		if loaded, err := LoadOrCreateKey(path, Ed25519); err != nil || !loaded.Equal(key) {
			t.Errorf("%v: LoadOrCreateKey changed it to %v, %v", typ, loaded, err)
		}
		onlyFile(t, path)
	}
	if err := SaveKey(filepath.Join(t.TempDir(), "k"), PrivateKey{}); err == nil {
		t.Error("no key was saved")
	}
}

func TestKeyFileInWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	key, err := LoadOrCreateKey("identity.key", Secp256k1)
	if err != nil || key.Type() != Secp256k1 {
		t.Fatal(key, err)
	}
	if again, err := LoadOrCreateKey("identity.key", Ed25519); err != nil || !again.Equal(key) {
		t.Errorf("%v, then %v, %v", key, again, err)
	}
}

// A damaged file is reported with its name and a remedy, and stays as it is.
func TestKeyFileDamaged(t *testing.T) {
	good := vectorKeys(t)[Ed25519].Marshal()
	flipped := bytes.Clone(good)
	flipped[20] ^= 4
	for name, data := range map[string][]byte{
		"empty":       nil,
		"cut":         good[:40],
		"bit turned":  flipped,
		"newline":     append(bytes.Clone(good), '\n'),
		"zeros":       make([]byte, 68),
		"text":        []byte("-----BEGIN PRIVATE KEY-----\n"),
		"public key":  vectorKeys(t)[Ed25519].Public().Marshal(),
		"three times": bytes.Repeat(good, 3),
		"large":       make([]byte, 1<<20),
	} {
		path := filepath.Join(t.TempDir(), "identity.key")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"LoadKey":         second(LoadKey(path)),
			"LoadOrCreateKey": second(LoadOrCreateKey(path, Ed25519)),
		} {
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
		onlyFile(t, path)
	}
}

func TestKeyFileIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadOrCreateKey(dir, Ed25519); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: %v", err)
	}
	under := filepath.Join(dir, "file")
	if err := os.WriteFile(under, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(filepath.Join(under, "key"), Ed25519); err == nil || !strings.Contains(err.Error(), under) {
		t.Errorf("below a file: %v", err)
	}
}

// Whoever comes first makes the key; all get that one.
func TestKeyFileRace(t *testing.T) {
	for range 10 {
		path := filepath.Join(t.TempDir(), "d", "identity.key")
		ids := make([]ID, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				key, err := LoadOrCreateKey(path, Ed25519)
				if err != nil {
					t.Error(err)
				}
				ids[i] = key.ID()
			})
		}
		wg.Wait()
		key, err := LoadKey(path)
		for _, id := range ids {
			if err != nil || id != key.ID() {
				t.Fatalf("keys %v, in the file %v, %v", ids, key, err)
			}
		}
		onlyFile(t, path)
	}
}

func TestPublishByRename(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity.key")
	first, err := writeTemp(dir, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	if err := publishByRename(first, path); err != nil {
		t.Fatal(err)
	}
	next, err := writeTemp(dir, []byte("next"))
	if err != nil {
		t.Fatal(err)
	}
	if err := publishByRename(next, path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	if data, err := os.ReadFile(path); string(data) != "first" {
		t.Errorf("the file has %q, %v", data, err)
	}
}

// onlyFile fails if there is anything beside the file at path.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("beside %s: %v, %v", path, entries, err)
	}
}

func second(_ PrivateKey, err error) error { return err }
