package autotls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	accountFile     = "account.pem"
	certificateFile = "certificate.pem"

	// maxFile bounds a file that is read: a key, and a chain as long as maxAnswer
	// lets one be.
	maxFile = maxAnswer + 64<<10
)

// A store keeps the account's key and the certificate with its key in files, or
// nowhere if dir is empty.
type store struct {
	dir string
}

// newStore returns the store below dir for one authority, so that a change from a
// staging authority to the real one does not go on with what nobody trusts.
func newStore(dir string, directory *url.URL) store {
	if dir == "" {
		return store{}
	}
	return store{dir: filepath.Join(dir, strings.ReplaceAll(directory.Host, ":", "_"))}
}

// account returns the key of the ACME account, a new one if there is none of use.
// kept tells why the old one was of no use, or the new one will not be there next
// time.
func (s store) account() (key *ecdsa.PrivateKey, kept, err error) {
	blocks, kept := s.read(accountFile)
	if kept == nil && len(blocks) == 0 {
		kept = fmt.Errorf("autotls: %s holds no key", filepath.Join(s.dir, accountFile))
	}
	if kept == nil {
		if key, kept = parseKey(blocks[0]); kept == nil {
			return key, nil, nil
		}
	}
	if errors.Is(kept, fs.ErrNotExist) {
		kept = nil
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, fmt.Errorf("autotls: generate a key: %w", err)
	}
	block, err := keyBlock(key)
	if err != nil {
		return nil, nil, err
	}
	return key, errors.Join(kept, s.write(accountFile, block)), nil
}

// certificate returns what is kept. The error wraps fs.ErrNotExist if there is
// nothing.
func (s store) certificate() (*tls.Certificate, error) {
	blocks, err := s.read(certificateFile)
	if err != nil {
		return nil, err
	}
	if len(blocks) < 2 {
		return nil, fmt.Errorf("autotls: %s holds no key with a certificate: it will be replaced", filepath.Join(s.dir, certificateFile))
	}
	key, err := parseKey(blocks[0])
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for _, b := range blocks[1:] {
		if b.Type == "CERTIFICATE" {
			chain = append(chain, b.Bytes)
		}
	}
	return newCertificate(key, chain)
}

func (s store) saveCertificate(cert *tls.Certificate) error {
	key, err := keyBlock(cert.PrivateKey)
	if err != nil {
		return err
	}
	blocks := []*pem.Block{key}
	for _, der := range cert.Certificate {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return s.write(certificateFile, blocks...)
}

func (s store) read(name string) ([]*pem.Block, error) {
	if s.dir == "" {
		return nil, fs.ErrNotExist
	}
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("autotls: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("autotls: %s is no file with a key: it will be replaced", path)
	}
	// On Windows the directory's access control list rules.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("autotls: %s can be read by others (mode %04o), so its key may be known: it will be replaced", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("autotls: %w", err)
	}
	return pemBlocks(data), nil
}

// write replaces a file, whole or not at all. Only its owner can read it.
func (s store) write(name string, blocks ...*pem.Block) error {
	if s.dir == "" {
		return nil
	}
	var data []byte
	for _, b := range blocks {
		data = append(data, pem.EncodeToMemory(b)...)
	}
	err := func() error {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		f, err := os.CreateTemp(s.dir, "."+name+"-*") // mode 0600
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), filepath.Join(s.dir, name))
		}
		if err != nil {
			os.Remove(f.Name())
		}
		return err
	}()
	if err != nil {
		return fmt.Errorf("autotls: cannot keep %s, so a restart will ask for a new one, of which there are few a week: make %s writable: %w", name, s.dir, err)
	}
	return nil
}

// pemBlocks returns all blocks in data.
func pemBlocks(data []byte) []*pem.Block {
	var blocks []*pem.Block
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			return blocks
		}
		blocks, data = append(blocks, b), rest
	}
}

func keyBlock(key crypto.PrivateKey) (*pem.Block, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("autotls: encode a key: %w", err)
	}
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, nil
}

// parseKey reads a key that keyBlock wrote.
func parseKey(b *pem.Block) (*ecdsa.PrivateKey, error) {
	if b.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("autotls: %q where a private key is due", b.Type)
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("autotls: private key: %w", err)
	}
	if key, ok := key.(*ecdsa.PrivateKey); ok && key.Curve == elliptic.P256() {
		return key, nil
	}
	return nil, errors.New("autotls: a private key that is not of the curve P-256")
}

// newCertificate puts a chain and the key of its first certificate together.
func newCertificate(key *ecdsa.PrivateKey, chain [][]byte) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("autotls: an empty certificate chain")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("autotls: certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("autotls: a certificate for another key than ours")
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}
