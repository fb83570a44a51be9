package store

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-p2p/kith/host"
)

var kills = flag.Int("kills", 100, "how often TestKilled kills a process that writes")

// childEnv makes the test program the process that is killed; it has the directory.
const childEnv = "KITH_STORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	flag.Parse()
	os.Exit(m.Run())
}

const (
	slots   = 64 // keys that the child writes in turns
	perStep = 5  // of them in one call
)

func slotKey(i int) string { return fmt.Sprintf("slot/%02d", i%slots) }

// stepChanges is what the child writes in one step: always the same keys and values
// for the same number, so that the parent knows what must be there.
func stepChanges(step int) []host.Change {
	r := rand.New(rand.NewPCG(uint64(step), 0))
	var changes []host.Change
	for i := range perStep {
		value := binary.BigEndian.AppendUint64(nil, uint64(step))
		changes = append(changes, host.Change{Key: slotKey(step*perStep + i), Value: append(value, make([]byte, r.IntN(6000))...)})
	}
	if step%3 == 0 { // the key of some steps before goes
		changes = append(changes, host.Change{Key: slotKey(step*perStep + slots/2)})
	}
	return append(changes, host.Change{Key: "last", Value: strconv.AppendInt(nil, int64(step), 10)})
}

// child writes one step after the other, and says so when each was acknowledged.
func child(dir string) {
	f, err := Open(dir)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	last, _ := f.Get("last")
	step, _ := strconv.Atoi(string(last))
	for {
		step++
		if err := f.Write(stepChanges(step)...); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(step) + "\n")
	}
}

// Nothing that was acknowledged is lost, and nothing is there by half, however often
// and whenever the process is killed.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, steps, early := 0, 0, 0
	for n := range *kills {
		if n%50 == 0 { // also the making of the file is a moment
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			acknowledged = 0
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(rand.IntN(40_000)) * time.Microsecond
		timer := time.AfterFunc(moment, func() { cmd.Process.Kill() })
		if n%2 == 0 { // a slow machine makes no writes in that time: after the first one
			timer.Stop()
		}
		before := acknowledged
		lines := bufio.NewScanner(out)
		for first := true; lines.Scan(); first = false {
			if first && n%2 == 0 {
				timer.Reset(moment)
			}
			if acknowledged, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("kill %d: the child says %q", n, lines.Text())
			}
		}
		cmd.Wait()
		timer.Stop()
		steps += acknowledged - before
		if acknowledged == before {
			early++
		}
		acknowledged = checkSteps(t, dir, acknowledged)
		if t.Failed() {
			t.Fatalf("after kill %d", n)
		}
	}
	if steps == 0 {
		t.Error("no child has written anything")
	}
	t.Logf("%d kills, %d of them before the first write, %d writes acknowledged", *kills, early, steps)
}

// checkSteps checks that the store is as after the acknowledged step, or the next one,
// which may have been written without a chance to say so. It returns which.
func checkSteps(t *testing.T, dir string, acknowledged int) (last int) {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	got := contents(t, f)
	last, _ = strconv.Atoi(got["last"])
	if last != acknowledged && last != acknowledged+1 {
		t.Errorf("step %d was acknowledged, there is %d", acknowledged, last)
		return last
	}
	want := make(map[string]string)
	for step := max(1, last-2*slots); step <= last; step++ {
		for _, c := range stepChanges(step) {
			if want[c.Key] = string(c.Value); c.Value == nil {
				delete(want, c.Key)
			}
		}
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("after step %d %s is not as it was written", last, key)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("after step %d there is %s", last, key)
		}
	}
	for _, name := range leftovers(t, dir) {
		t.Errorf("%s was left", name)
	}
	return last
}

func leftovers(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".new-") {
			names = append(names, e.Name())
		}
	}
	return names
}
