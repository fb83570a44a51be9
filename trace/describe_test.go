package trace

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every type of event has a line. Whoever adds one reads here what to add.
func TestEveryEventHasALine(t *testing.T) {
	events := eventTypes(t)
	if len(events) < 19 {
		t.Fatalf("only %d types of events were found in package host: %v", len(events), events)
	}
	cases, names := describedTypes(t)
	for _, name := range events {
		if !slices.Contains(cases, name) {
			t.Errorf("host.%s has no line: add to Describe in trace/describe.go\n"+
				"\tcase host.%s:\n\t\treturn line(%q, who(e.Peer), …)\n"+
				"with conn, who, addr, dial, str, num, dur, list, flag or fail for what it holds", name, name, snake(name))
		} else if !slices.Contains(names, snake(name)) {
			t.Errorf("the line of host.%s must be named %q", name, snake(name))
		}
	}
	if slices.Sort(names); len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("two events have the same name: %v", names)
	}
}

// eventTypes lists the types of package host that are events: those that have a
// method isState.
func eventTypes(t *testing.T) (types []string) {
	t.Helper()
	files := parse(t, "../host")
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != "isState" {
				continue
			}
			recv := fn.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			types = append(types, recv.(*ast.Ident).Name)
		}
	}
	return types
}

// describedTypes lists the cases of Describe, and the names that it gives.
func describedTypes(t *testing.T) (types, names []string) {
	t.Helper()
	for _, f := range parse(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			if fn.Name.Name != "Describe" {
				return false
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CaseClause:
					for _, e := range n.List {
						types = append(types, e.(*ast.SelectorExpr).Sel.Name)
					}
				case *ast.CallExpr:
					if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "line" {
						if lit, ok := n.Args[0].(*ast.BasicLit); ok {
							names = append(names, strings.Trim(lit.Value, `"`))
						}
					}
				}
				return true
			})
			return false
		})
	}
	return types, names
}

// parse reads the sources of a package, without its tests.
func parse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
