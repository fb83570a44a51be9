package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/kith-p2p/kith/host"
)

// notBounds are constants that are named as bounds are, and bound nothing that others
// cause: sizes of a format, and how the own work is cut into pieces.
var notBounds = map[string]bool{
	"noise.maxPlaintext": true, "p2ptls.maxPlaintext": true, "peer.maxInlineKey": true, "multiaddr.maxInlineKey": true, "internal/multibase.maxWords": true,
	"yamux.maxBufferBits": true, "yamux.maxBuffer": true, "yamux.maxPayload": true, "yamux.maxYield": true, "webtransport.maxTogether": true, "webrtc.maxData": true,
	"host.maxMemory": true, "quic.maxOpening": true, // the defaults of Limits.Memory, EndpointConfig.MaxOpening
	"yamux.defaultWriteTimeout": true, "quic.defaultIdleTimeout": true, "webrtc.defaultTimeout": true, // of Config fields that are there
}

// docs/limits.md has every field of host.Limits, every row of `kith node --limits`, and
// every constant that says by its name that it is a bound.
func TestLimitsAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(string(page), -1) {
		listed[word] = true
	}
	for f := range reflect.TypeFor[host.Limits]().Fields() {
		if !listed[f.Name] {
			t.Errorf("docs/limits.md does not have Limits.%s", f.Name)
		}
	}
	for _, r := range (host.Limits{}).Rows(0) {
		if !listed[r.Name] {
			t.Errorf("docs/limits.md does not have %s, which kith node --limits prints", r.Name)
		}
	}
	bound := regexp.MustCompile(`^(max|Max)[A-Z]|(Timeout|RetryMax|Backlog)$`)
	found := 0
	for name := range imports(t) {
		if strings.HasPrefix(name, "examples/") || strings.HasPrefix(name, "internal/hostile") || strings.HasPrefix(name, "internal/transporttest") {
			continue
		}
		dir := filepath.Join("../..", strings.TrimPrefix(name, "kith"))
		if name != "kith" {
			dir = filepath.Join("../..", name)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				consts, ok := d.(*ast.GenDecl)
				if !ok || consts.Tok != token.CONST {
					continue
				}
				for _, spec := range consts.Specs {
					for _, id := range spec.(*ast.ValueSpec).Names {
						if !bound.MatchString(id.Name) || notBounds[name+"."+id.Name] {
							continue
						}
						found++
						if !listed[id.Name] {
							t.Errorf("%s: %s is not in docs/limits.md: give its value and reason there, or name it in notBounds", path, id.Name)
						}
					}
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d bounds were found", found)
	}
}
