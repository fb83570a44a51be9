package tidy

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden lists anew")

// Whoever imports a package pays for its dependencies. The lists make each new
// one visible in review.
func TestDependencies(t *testing.T) {
	for name, path := range map[string]string{"host": module + "/host", "kith": module} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", path)
		// The same list on every system.
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", path, err)
		}
		set := make(map[string]bool)
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); line != "" {
				set[line] = true
			}
		}
		got := strings.Join(sorted(set), "\n") + "\n"
		golden := filepath.Join("testdata", "deps-"+name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the dependencies of %s have changed. If that is meant, run: go test ./internal/tidy -update\nbefore:\n%s\nnow:\n%s", path, want, got)
		}
	}
}
