package kith_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/internal/testkit"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/store"
)

// dirEnv and peersEnv make the test program a node that is killed: it has the
// directory, and connects to the peers.
const (
	dirEnv   = "KITH_TEST_DIR"
	peersEnv = "KITH_TEST_PEERS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		if err := learn(dir, os.Getenv(peersEnv)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// learn connects to the first peer and is told of the second, says so and waits for
// its end.
func learn(dir, peers string) error {
	var infos []string
	if err := json.Unmarshal([]byte(peers), &infos); err != nil {
		return err
	}
	ctx := context.Background()
	n, err := kith.Start(ctx, kith.Config{Dir: dir, MDNS: kith.MDNS{Off: true}, Listen: []multiaddr.Addr{}})
	if err != nil {
		return err
	}
	first, err := peer.ParseAddrInfo(infos[0])
	if err != nil {
		return err
	}
	second, err := peer.ParseAddrInfo(infos[1])
	if err != nil {
		return err
	}
	conn, err := n.Connect(ctx, first)
	if err != nil {
		return err
	}
	if _, err := n.Identify.Identify(ctx, conn); err != nil {
		return err
	}
	n.AddAddrs(second, host.TTLTold)
	if err := n.Sync(ctx); err != nil {
		return err
	}
	fmt.Println("ok")
	select {}
}

// A node that was killed knows after it is started anew whom it knew, also those with
// whom it had a connection, and who told of them.
func TestKilledNodeKnowsItsPeers(t *testing.T) {
	dir, off := t.TempDir(), kith.MDNS{Off: true}
	first, second := start(t, kith.Config{MDNS: off}), start(t, kith.Config{MDNS: off})
	first.Handle("/echo/1", echo)
	second.Handle("/echo/1", echo)
	peers, err := json.Marshal([]string{first.P2PAddrs()[0].String(), second.P2PAddrs()[0].String()})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), dirEnv+"="+dir, peersEnv+"="+string(peers))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "ok\n" {
		t.Errorf("the node says %q", line)
	}

	// While it runs nobody else has the directory.
	took := testkit.Took(func() {
		_, err = kith.Start(t.Context(), kith.Config{Dir: dir, MDNS: off, Listen: []multiaddr.Addr{}})
	})
	if !errors.Is(err, store.ErrInUse) || took > time.Second {
		t.Errorf("a second node in the directory, after %v: %v", took, err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	n := start(t, kith.Config{Dir: dir, MDNS: off})
	for _, p := range []*kith.Node{first, second} {
		checkEcho(t, n, p.ID())
	}
	known := n.KnownAddrs(first.ID())
	if len(known) == 0 || known[0].Source != host.SourceUser || known[0].LastSuccess.IsZero() {
		t.Errorf("of the first peer: %+v", known)
	}
}

// A damaged file is an error, and left as it is.
func TestDamagedStore(t *testing.T) {
	dir, off := t.TempDir(), kith.MDNS{Off: true}
	n := start(t, kith.Config{Dir: dir, MDNS: off})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	path := n.Store.(*store.File).Path()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[100] ^= 1
	file[4096+30] ^= 1
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kith.Start(t.Context(), kith.Config{Dir: dir, MDNS: off}); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("%v", err)
	}
	if again, _ := os.ReadFile(path); string(again) != string(file) {
		t.Error("the damaged file was changed")
	}
}
