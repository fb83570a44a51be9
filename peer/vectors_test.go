package peer

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// hexBytes is written in hexadecimal in a vector file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type keyVector struct {
	Type          string
	Private       hexBytes
	Public        hexBytes
	ID            string
	Message       string
	Signature     hexBytes
	Deterministic bool // the same key and message give the same signature
}

type idVector struct {
	Name   string
	Public hexBytes // none for IDs without a known key
	Text   string   // another text of the ID, if any
	ID     struct {
		Bytes  hexBytes
		Base58 string
		CID    map[string]string
	}
}

type recordVectors struct {
	Envelopes []struct {
		Private     hexBytes
		Domain      string
		PayloadType hexBytes `json:"payload_type"`
		Payload     hexBytes
		Envelope    hexBytes
	}
	Records []struct {
		Name          string
		Private       hexBytes
		ID            string
		Seq           string
		Addrs         []string
		Envelope      hexBytes
		Deterministic bool
	}
	Rust struct {
		ID       string
		Seq      string
		Addrs    []string
		Envelope hexBytes
	}
	Lie struct {
		Signer, Subject string
		Envelope        hexBytes
	}
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", name))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func keyVectors(t testing.TB) []keyVector {
	t.Helper()
	var file struct{ Vectors []keyVector }
	readVectors(t, "keys.json", &file)
	if len(file.Vectors) != 5 {
		t.Fatalf("%d key vectors, want 5", len(file.Vectors))
	}
	return file.Vectors
}

func idVectors(t testing.TB) []idVector {
	t.Helper()
	var file struct{ Vectors []idVector }
	readVectors(t, "peer-ids.json", &file)
	if len(file.Vectors) < 10 {
		t.Fatalf("only %d ID vectors", len(file.Vectors))
	}
	return file.Vectors
}

// vectorKeys returns one key of each type; the RSA key has 2048 bits.
func vectorKeys(t testing.TB) map[KeyType]PrivateKey {
	t.Helper()
	keys := map[KeyType]PrivateKey{}
	for _, v := range keyVectors(t) {
		key := mustPrivate(t, v.Private)
		keys[key.Type()] = key
	}
	return keys
}

func mustPrivate(t testing.TB, b []byte) PrivateKey {
	t.Helper()
	key, err := UnmarshalPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
