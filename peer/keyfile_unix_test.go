//go:build unix

package peer

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestKeyFileMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "identity.key")
	if _, err := LoadOrCreateKey(path, Ed25519); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700, filepath.Join(root, "a"): 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644, 0o666, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{second(LoadKey(path)), second(LoadOrCreateKey(path, Ed25519))} {
			if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("mode %v: %v", mode, err)
			}
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// A pipe would block for ever whoever opens it.
func TestKeyFileIsAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path, Ed25519); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestKeyFileSymlink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(link, Ed25519); err == nil || !strings.Contains(err.Error(), link) {
		t.Errorf("a link to nothing: %v", err)
	}
	key, err := LoadOrCreateKey(real, Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKey(link); err != nil || !got.Equal(key) {
		t.Errorf("through a link: %v, %v", got, err)
	}
}

// Several processes that make the same key file get the same key.
func TestKeyFileProcesses(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d", "identity.key")
	outputs := make([]bytes.Buffer, 6)
	var running []*exec.Cmd
	for i := range outputs {
		cmd := exec.Command(binary)
		cmd.Env = append(os.Environ(), keyFileVariable+"="+path)
		cmd.Stdout = &outputs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &outputs[i])
		}
	}
	key, err := LoadKey(path)
	for i := range outputs {
		if err != nil || outputs[i].String() != key.ID().String() {
			t.Errorf("a process has %q, the file %v, %v", &outputs[i], key, err)
		}
	}
	onlyFile(t, path)
}
