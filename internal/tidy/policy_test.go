package tidy

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kith-p2p/kith"

// policy says which package may import which; it is a statement of intent, not a
// list of what is imported. "a < b" means that b may import a and whatever a may.
// Names separated by commas stand side by side and do not import each other.
//
// Two laws are behind it: a protocol never imports another protocol (they meet
// through events, or in kith.go), and nothing below kith imports a transport.
const policy = `
	NONE < internal/multibase < multiaddr, peer ;
	NONE < pnet, yamux, internal/wire, internal/drive, internal/feed, internal/tidy ;
	internal/wire < multistream ;
	multiaddr, internal/wire < peer ;
	peer, internal/wire < noise, p2ptls ;
	peer, multistream, internal/drive, internal/feed < host ;
	host, internal/feed < trace < metrics, spans < cmd/kith ;
	host, noise, p2ptls, pnet, yamux < upgrade < tcp, memory, unix, websocket ;
	NONE < udp, netwatch ;
	udp, host, p2ptls < quic ;
	quic, noise < webtransport ;
	host, noise < webrtc ;
	internal/drive, multiaddr, peer < mdns ;
	peer, internal/wire < autotls ;
	host < identify, ping, perf, rpc, acl, store ;
	tcp, unix, websocket, quic, webtransport, webrtc, memory, identify, ping, perf, acl, store, mdns, autotls, netwatch < kith < cmd/kith ;
	memory < internal/testkit ;
	identify, ping, perf, tcp, quic, memory < internal/hostile ;
	identify, ping, internal/testkit < internal/transporttest ;
	kith < internal/roam ;
	NONE < internal/scorecard ;
	tcp < examples/minimal ;
	kith < examples/browser ;
`

func TestImportPolicy(t *testing.T) {
	allowed, err := parsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	for name, imports := range imports(t) {
		may, ok := allowed[name]
		if !ok {
			t.Errorf("package %s has no place in the policy: give it one in policy_test.go", name)
			continue
		}
		for _, imported := range imports {
			if !may[imported] {
				t.Errorf("%s imports %s, which the policy does not allow: pass what it needs in from kith.go, or change the policy and say why", name, imported)
			}
		}
	}
}

// The policy's own reader must be able to say no.
func TestPolicyIsRead(t *testing.T) {
	allowed, err := parsePolicy("NONE < a, b ; a < c < d ;")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		want     bool
	}{{"c", "a", true}, {"d", "a", true}, {"d", "c", true}, {"c", "b", false}, {"a", "b", false}, {"a", "c", false}} {
		if allowed[c.from][c.to] != c.want {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.to, !c.want, c.want)
		}
	}
	for _, bad := range []string{"a < b", "a < b ; b < a ;", "a < ; "} {
		if _, err := parsePolicy(bad); err == nil {
			t.Errorf("policy %q was accepted", bad)
		}
	}
}

// imports lists, for each package of the module, those of the module that it imports.
func imports(t *testing.T) map[string][]string {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	short := func(path string) string {
		if path == module {
			return "kith"
		}
		return strings.TrimPrefix(path, module+"/")
	}
	all := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		var own []string
		for _, f := range fields[1:] {
			if f == module || strings.HasPrefix(f, module+"/") {
				own = append(own, short(f))
			}
		}
		all[short(fields[0])] = own
	}
	if len(all) < 5 {
		t.Fatalf("go list found only %d packages: %s", len(all), bytes.TrimSpace(out))
	}
	return all
}

// parsePolicy gives for each package the set of those that it may import.
func parsePolicy(text string) (map[string]map[string]bool, error) {
	allowed := make(map[string]map[string]bool)
	text = strings.TrimSpace(text)
	if !strings.HasSuffix(text, ";") {
		return nil, errPolicy("the last rule does not end with a semicolon")
	}
	for rule := range strings.SplitSeq(strings.TrimSuffix(text, ";"), ";") {
		var below []string
		for set := range strings.SplitSeq(rule, "<") {
			var names []string
			for name := range strings.SplitSeq(set, ",") {
				if name = strings.TrimSpace(name); name == "" {
					return nil, errPolicy("an empty name in: " + rule)
				}
				names = append(names, name)
				if allowed[name] == nil {
					allowed[name] = make(map[string]bool)
				}
				for _, b := range below {
					if b != "NONE" {
						allowed[name][b] = true
					}
				}
			}
			below = append(below, names...)
		}
	}
	// What may be imported by what may be imported may be imported.
	for changed := true; changed; {
		changed = false
		for name, may := range allowed {
			for via := range may {
				for far := range allowed[via] {
					if far == name {
						return nil, errPolicy("a circle through " + name)
					}
					if !may[far] {
						may[far] = true
						changed = true
					}
				}
			}
		}
	}
	return allowed, nil
}

type errPolicy string

func (e errPolicy) Error() string { return "policy: " + string(e) }

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
