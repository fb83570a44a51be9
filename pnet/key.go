package pnet

import (
	"bytes"
	"crypto/rand"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/crypto/salsa20"
)

// KeyLen is the length of a key in bytes.
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#interface
const KeyLen = 32

// The lines before the key in its file.
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#interface
const (
	fileHeader   = "/key/swarm/psk/1.0.0/"
	encodingBin  = "/bin/"
	encoding16   = "/base16/"
	encoding64   = "/base64/"
	maxKeyFile   = 1 << 10 // bytes; the longest form has 94, with room for white space
	howToMakeKey = "a key file has three lines: " + fileHeader + ", " + encoding16 + ", and 64 hexadecimal digits"
)

// ForceEnv is the environment variable that, set to "1", forbids to run without a key.
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md#safeguard
const ForceEnv = "LIBP2P_FORCE_PNET"

// A Key is what the peers of a private network share. It is an immutable value; the
// zero Key is none. It never shows itself when printed.
type Key struct {
	// In a function, since fmt prints what is in a struct's unexported field without
	// asking its String method.
	secret func() *[KeyLen]byte
}

// GenerateKey makes a new key.
func GenerateKey() Key {
	secret := new([KeyLen]byte)
	rand.Read(secret[:])
	return Key{func() *[KeyLen]byte { return secret }}
}

// KeyFromBytes makes a key of its 32 bytes, which it copies. Bytes that are all zero
// are refused: they are no secret, but what a program has that forgot to set it.
func KeyFromBytes(b []byte) (Key, error) {
	if len(b) != KeyLen {
		return Key{}, fmt.Errorf("pnet: a key of %d bytes: want %d", len(b), KeyLen)
	}
	secret := [KeyLen]byte(b)
	if secret == [KeyLen]byte{} {
		return Key{}, errors.New("pnet: a key that is all zero: make one with GenerateKey")
	}
	return Key{func() *[KeyLen]byte { return &secret }}, nil
}

// ParseKey reads the content of a key file, usually called swarm.key, in any of the
// encodings of the specification. Its errors never quote the file.
func ParseKey(file []byte) (Key, error) {
	header, rest := cutLine(file)
	if header != fileHeader {
		return Key{}, fmt.Errorf("pnet: line 1 is not %s: %s", fileHeader, howToMakeKey)
	}
	encoding, data := cutLine(rest)
	b, err := decode(encoding, data)
	if err != nil {
		return Key{}, err
	}
	return KeyFromBytes(b)
}

// decode reads the third line of a key file.
func decode(encoding string, data []byte) ([]byte, error) {
	switch encoding {
	case encoding16:
		b, err := hex.AppendDecode(nil, bytes.TrimSpace(data))
		if err != nil {
			return nil, errors.New("pnet: line 3 is not hexadecimal: " + howToMakeKey)
		}
		return b, nil
	case encoding64:
		b, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(data))
		if err != nil {
			return nil, errors.New("pnet: line 3 is not base64: write 32 bytes as 43 characters and one =")
		}
		return b, nil
	case encodingBin:
		if len(data) > KeyLen && len(bytes.TrimRight(data[KeyLen:], "\r\n")) == 0 {
			data = data[:KeyLen]
		}
		return data, nil
	}
	return nil, fmt.Errorf("pnet: line 2 is none of %s, %s, %s: %s", encoding16, encoding64, encodingBin, howToMakeKey)
}

func cutLine(b []byte) (line string, rest []byte) {
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimRight(first, "\r")), rest
}

// LoadKey reads a key file. The error wraps fs.ErrNotExist if there is none. A file
// that everybody on the machine can read is refused, except on Windows, where its
// directory's access control list rules.
func LoadKey(path string) (Key, error) {
	info, err := os.Stat(path) // before opening it: a pipe would block
	if err != nil {
		return Key{}, fmt.Errorf("pnet: key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("pnet: key file %s is not a regular file: name another path", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("pnet: key file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return Key{}, fmt.Errorf("pnet: key file: %w", err)
	}
	if open(info.Mode()) {
		return Key{}, fmt.Errorf("pnet: key file %s can be read by everybody (mode %04o), so the network may not be private: run chmod 600 %[1]s, and make a new key if strangers use this machine",
			path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Key{}, fmt.Errorf("pnet: key file: %w", err)
	}
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("pnet: key file %s has more than %d bytes: %s", path, maxKeyFile, howToMakeKey)
	}
	key, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("pnet: key file %s is damaged: get it anew from another peer of the network: %w", path, err)
	}
	return key, nil
}

// Marshal returns the content of a key file, which every implementation reads. Write
// it with mode 0600.
func (k Key) Marshal() []byte {
	b := []byte(fileHeader + "\n" + encoding16 + "\n")
	b = hex.AppendEncode(b, k.secret()[:])
	return append(b, '\n')
}

// Fingerprint names the key without telling it, for people who compare those of two
// peers. It has 32 hexadecimal digits, "" for the zero Key.
func (k Key) Fingerprint() string {
	if k.IsZero() {
		return ""
	}
	var block [64]byte
	salsa20.XORKeyStream(block[:], block[:], []byte("finprint"), k.secret())
	return hex.EncodeToString(sha3.SumSHAKE128(block[:], 16))
}

// Equal tells whether both are the same key.
func (k Key) Equal(other Key) bool {
	if k.IsZero() || other.IsZero() {
		return k.IsZero() && other.IsZero()
	}
	return subtle.ConstantTimeCompare(k.secret()[:], other.secret()[:]) == 1
}

// IsZero tells whether k is none.
func (k Key) IsZero() bool { return k.secret == nil }

// String names the key by its fingerprint.
func (k Key) String() string {
	if k.IsZero() {
		return "no pre-shared key"
	}
	return "pre-shared key " + k.Fingerprint()
}

// GoString is String.
func (k Key) GoString() string { return k.String() }

// LogValue is String, whatever the handler does with structs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Check refuses to go without a key where [ForceEnv] forbids it. Whoever makes
// connections calls it at the start; upgrade.New does.
func Check(key *Key) error {
	switch {
	case key != nil && key.IsZero():
		return errors.New("pnet: the key is the zero Key: load one with LoadKey, or leave it out for the public network")
	case key == nil && os.Getenv(ForceEnv) == "1":
		return fmt.Errorf("pnet: %s=1 forbids to run without a pre-shared key: give one, or unset it to join the public network", ForceEnv)
	}
	return nil
}
