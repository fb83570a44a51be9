package pnet

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

type vector struct {
	Name, Key, Plain, Wire, Fingerprint string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/pnet.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	return file.Vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustKey(t testing.TB, b []byte) Key {
	t.Helper()
	k, err := KeyFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFingerprint(t *testing.T) {
	for _, v := range vectors(t) {
		if got := mustKey(t, unhex(t, v.Key)).Fingerprint(); got != v.Fingerprint {
			t.Errorf("%s: fingerprint %s, want %s", v.Name, got, v.Fingerprint)
		}
	}
	if got := (Key{}).Fingerprint(); got != "" {
		t.Errorf("fingerprint %q of no key", got)
	}
}

// forms are the files of one key that implementations write.
func forms(raw []byte) map[string]string {
	digits, std := hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw)
	return map[string]string{
		"base16":                   fileHeader + "\n/base16/\n" + digits + "\n",
		"base16 without an end":    fileHeader + "\n/base16/\n" + digits,
		"base16 of Windows":        fileHeader + "\r\n/base16/\r\n" + digits + "\r\n",
		"base16 in capitals":       fileHeader + "\n/base16/\n" + strings.ToUpper(digits) + "\n\n",
		"base64":                   fileHeader + "\n/base64/\n" + std + "\n",
		"base64 without an end":    fileHeader + "\n/base64/\n" + std,
		"bytes":                    fileHeader + "\n/bin/\n" + string(raw),
		"bytes and the line's end": fileHeader + "\n/bin/\n" + string(raw) + "\n",
	}
}

func TestParseKey(t *testing.T) {
	raw := bytes.Repeat([]byte{0, 0xa7, '\n', '\r'}, 8)
	want := mustKey(t, raw)
	for name, file := range forms(raw) {
		got, err := ParseKey([]byte(file))
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	again, err := ParseKey(want.Marshal())
	if err != nil || !again.Equal(want) {
		t.Errorf("what Marshal wrote: %v, %v", again, err)
	}
	if a, b := GenerateKey(), GenerateKey(); a.Equal(b) || !a.Equal(a) || a.Equal(Key{}) || !(Key{}).Equal(Key{}) {
		t.Error("Equal is wrong")
	}
}

func TestParseKeyErrors(t *testing.T) {
	digits := strings.Repeat("5e", 32)
	for _, c := range []struct{ file, want string }{
		{"", "line 1 is not /key/swarm/psk/1.0.0/"},
		{digits, "line 1 is not /key/swarm/psk/1.0.0/"},
		{"/key/swarm/psk/2.0.0/\n/base16/\n" + digits, "line 1 is not"},
		{fileHeader, "line 2 is none of"},
		{fileHeader + "\n" + digits, "line 2 is none of"},
		{fileHeader + "\n/base32/\n" + digits, "line 2 is none of /base16/, /base64/, /bin/"},
		{fileHeader + "\n/base16/\n", "a key of 0 bytes: want 32"},
		{fileHeader + "\n/base16/\n" + digits[2:], "a key of 31 bytes"},
		{fileHeader + "\n/base16/\n" + digits + "5e", "a key of 33 bytes"},
		{fileHeader + "\n/base16/\n" + digits[1:], "not hexadecimal"},
		{fileHeader + "\n/base16/\n" + digits[:40] + "\n" + digits[40:], "not hexadecimal"},
		{fileHeader + "\n/base64/\n" + digits[:43], "not base64"},
		{fileHeader + "\n/bin/\n" + digits[:31], "a key of 31 bytes"},
		{fileHeader + "\n/bin/\n" + digits[:33], "a key of 33 bytes"},
		{fileHeader + "\n/base16/\n" + strings.Repeat("0", 64), "all zero"},
	} {
		_, err := ParseKey([]byte(c.file))
		if err == nil || !strings.HasPrefix(err.Error(), "pnet: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "5e5e") {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
}

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	key := GenerateKey()
	write := func(name string, data []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, mode := range []fs.FileMode{0o600, 0o640} {
		path := write(fmt.Sprintf("swarm-%o.key", mode), key.Marshal(), mode)
		if got, err := LoadKey(path); err != nil || !got.Equal(key) {
			t.Errorf("mode %o: %v, %v", mode, got, err)
		}
	}
	if _, err := LoadKey(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	cases := map[string]string{
		dir:                                      "not a regular file",
		write("garbage", []byte("hello"), 0o600): "is damaged: get it anew",
		write("long", bytes.Repeat([]byte("5"), 2000), 0o600): "more than 1024 bytes",
	}
	if runtime.GOOS != "windows" {
		cases[write("public", key.Marshal(), 0o644)] = "run chmod 600 "
	}
	for path, want := range cases {
		_, err := LoadKey(path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want the path and %q", path, err, want)
		}
	}
}

// However a key is printed, alone or in something, it stays secret.
func TestKeyIsNotShown(t *testing.T) {
	raw := []byte("0123456789abcdefghijklmnopqrstuv")
	key := mustKey(t, raw)
	type holder struct {
		Public  Key
		private Key
		pointer *Key
	}
	h := holder{key, key, &key}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", key, &key, h, &h)
	}
	logger := slog.New(slog.NewTextHandler(&out, nil))
	logger.Info("text", "key", key, "pointer", &key, "in", h)
	logger = slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("json", "key", key, "pointer", &key)
	if !strings.Contains(out.String(), key.Fingerprint()) {
		t.Error("the fingerprint is not shown")
	}
	for _, secret := range []string{"012345", hex.EncodeToString(raw)[:12], "48 49 50", "0x30, 0x31"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in\n%s", secret, out.String())
		}
	}
}

func TestCheck(t *testing.T) {
	key := GenerateKey()
	for _, c := range []struct {
		env  string
		key  *Key
		want string
	}{
		{"", nil, ""}, {"", &key, ""}, {"0", nil, ""}, {"1", &key, ""},
		{"1", nil, "LIBP2P_FORCE_PNET=1 forbids"}, {"", new(Key), "zero Key"},
	} {
		t.Setenv(ForceEnv, c.env)
		err := Check(c.key)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %v: %v, want %q", c.env, c.key, err, c.want)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, file := range forms(bytes.Repeat([]byte{0, 0xa7, '\n', '\r'}, 8)) {
		f.Add([]byte(file))
	}
	f.Add([]byte(fileHeader + "\n/base64/\n\n\n=="))
	f.Add([]byte(fileHeader))
	f.Fuzz(func(t *testing.T, file []byte) {
		key, err := ParseKey(file)
		if err != nil {
			if !key.IsZero() {
				t.Fatal("a key and an error")
			}
			return
		}
		again, err := ParseKey(key.Marshal())
		if err != nil || !again.Equal(key) {
			t.Fatalf("what Marshal wrote: %v, %v", again, err)
		}
	})
}
