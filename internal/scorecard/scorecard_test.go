package scorecard

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	run  = flag.Bool("scorecard", false, "run the rows at full force, which takes more than an hour")
	only = flag.String("rows", "", "run only these rows, such as 5,21; all if empty")
)

// A row is a property, its goal, and the test that measures it.
type row struct {
	number int
	goal   string
	pkg    string // below the root
	test   string // as for go test -run
	args   []string
	figure string // what matches it, of the lines that the test prints, is the figure
}

var rows = []row{
	{1, "10,000 half-open connections of one address at each stage: memory at most +64 MiB, at most 2,000 goroutines, honest p99 at most twice idle, all gone in 15 s", "internal/hostile", "TestFloodAtEachStage", []string{"-hostile.full"}, `attacked: .*`},
	{2, "the same of 4,096 addresses: memory within the budget, at least 99 % of the honest served", "internal/hostile", "TestSilenceOfManyAddresses/.*4096", []string{"-hostile.full"}, `attacked: .*`},
	{3, "six peers fill windows that nobody reads, of 64 MiB: the memory for streams, 16 MiB, is never used up", ".", "TestUnreadIsShared", nil, `at most .* taken`},
	{3, "the process at budgets of 32, 64, 128 and 512 MiB: at most 1.25 × the budget and 32 MiB", "internal/hostile", "TestMemoryUnderAttack", []string{"-hostile.full", "-hostile.memory=32,64,128,512"}, `.* MiB at most.*`},
	{4, "charged memory within 0.67 to 1.5 of the heap", ".", "TestAccounting", nil, `each takes .*`},
	{5, "at most 10 µs of CPU for a stream opened and reset; the end after 1,000 in 10 s", "internal/hostile", "TestRapidReset", []string{"-hostile.full"}, `looked at .*`},
	{6, "an idle connection: at most 24 KiB over TCP, 48 KiB over QUIC, 3 goroutines", ".", "TestMemoryBudget", nil, `\d+ bytes of heap.*`},
	{21, "no packet to forbidden ranges in 1,000,000 hostile addresses", "internal/hostile", "TestAddressesOfStrangers", []string{"-hostile.full"}, `\d+ hostile addresses.*`},
	{22, "at most 10 dials a minute to one IP on the word of 10,000 fake peers", "internal/hostile", "TestThirdParty", []string{"-hostile.full"}, `\d+ peers in .*`},
	{23, "no false address announced with 50 liars in 3 networks", "host", "TestLiars", nil, ""},
	{24, "10,000,000 peers: at most 64 MiB, p99 of a lookup at most 50 µs", "host", "TestBookUnderFlood", []string{"-bookpeers=10000000"}, `\d+ are known.*`},
	{33, "traffic again after a change of network: QUIC p50 1 s, p99 5 s, TCP 10 s", "internal/roam", "TestFigures", []string{"-moves=20"}, `: (\w+ \w+: \d+ moves.*)`},
	{36, "Close within 1 s from every state, nothing left, over TCP", "tcp", "TestClosing", nil, `closed within .*`},
	{36, "the same over QUIC", "quic", "TestClosing", nil, `closed within .*`},
	{36, "the same over WebSocket", "websocket", "TestClosing", nil, `closed within .*`},
	{36, "the same over WebTransport", "webtransport", "TestClosing", nil, `closed within .*`},
	{36, "the same over WebRTC", "webrtc", "TestClosing", nil, `closed within .*`},
	{37, "one who takes too much and 99 honest who ask for twice what the host can do: at least 80 % of their fair share, p99 at most 3 × what it is without that one", "internal/hostile", "TestFairness", []string{"-hostile.full"}, `capacity .*`},
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The table in the documentation has every row, and every row has its test.
func TestRows(t *testing.T) {
	dir := root(t)
	doc, err := os.ReadFile(filepath.Join(dir, "docs/attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \|`, r.number)).Match(doc) {
			t.Errorf("docs/attacks.md has no row %d", r.number)
		}
		name, _, _ := strings.Cut(r.test, "/")
		files, err := filepath.Glob(filepath.Join(dir, r.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(f string) bool {
			src, err := os.ReadFile(f)
			return err == nil && bytes.Contains(src, []byte("\nfunc "+name+"("))
		}) {
			t.Errorf("row %d: there is no %s in %s", r.number, name, r.pkg)
		}
	}
}

// TestScorecard measures.
func TestScorecard(t *testing.T) {
	if !*run {
		t.Log("-scorecard measures")
		return
	}
	var table strings.Builder
	for _, r := range rows {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), strconv.Itoa(r.number)) {
			continue
		}
		t.Run(fmt.Sprint(r.number, " ", r.pkg), func(t *testing.T) {
			held := "holds"
			figures, err := r.measure(root(t))
			if err != nil {
				held = "**does not hold**"
				t.Errorf("%s: %v", r.goal, err)
			}
			for _, f := range figures {
				t.Log(f)
			}
			fmt.Fprintf(&table, "| %d | %s | %s | %s |\n", r.number, r.goal, strings.Join(figures, "<br>"), held)
		})
	}
	t.Logf("\n| row | goal | measured | |\n|---|---|---|---|\n%s", table.String())
}

// measure runs the test of a row; the error has what it complained of.
func (r row) measure(dir string) (figures []string, err error) {
	args := append([]string{"test", "-count=1", "-timeout=1h", "-v", "-run", "^" + strings.Replace(r.test, "/", "$/", 1), "./" + r.pkg}, r.args...)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	figure := regexp.MustCompile(r.figure)
	var complaints []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, text, logged := strings.Cut(lines.Text(), "_test.go:")
		switch m := figure.FindStringSubmatch(text); {
		case !logged || r.figure == "":
		case m != nil:
			figures = append(figures, strings.ReplaceAll(m[len(m)-1], "|", "/"))
		default:
			complaints = append(complaints, text)
		}
	}
	if err != nil {
		err = fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.Join(complaints, "; "))
	}
	return figures, err
}
