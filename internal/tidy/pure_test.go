package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A file that says //kith:pure holds logic alone: no goroutine, channel, lock,
// clock, socket, context or log. Time comes in as an argument, randomness as a
// *rand.Rand, and no result depends on the order of a map. Every core.go says it.
const pureMark = "//kith:pure"

// impure are the packages that a pure file cannot import.
var impure = []string{
	"context", "io", "io/fs", "log", "log/slog", "math/rand", "net", "net/http", "os", "os/exec", "runtime",
	"sync", "sync/atomic", "syscall", "testing", "unsafe", "crypto/rand", "internal/drive",
}

// clock are the functions of package time that read or follow the clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

func TestCoresArePure(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"interop", "bench", "compat", "testdata", "node_modules", ".git"}, d.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if !isPure(file) {
			if d.Name() == "core.go" {
				t.Errorf("%s: the core of a protocol must say %s", path, pureMark)
			}
			return nil
		}
		found++
		for _, fault := range impurities(fset, file) {
			t.Error(fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no pure file was found: is the mark still " + pureMark + "?")
	}
}

func isPure(file *ast.File) bool {
	for _, group := range file.Comments {
		for _, c := range group.List {
			if c.Text == pureMark && c.Pos() < file.Package {
				return true
			}
		}
	}
	return false
}

// impurities lists what a pure file must not hold.
func impurities(fset *token.FileSet, file *ast.File) (faults []string) {
	fault := func(n ast.Node, what string) {
		faults = append(faults, fmt.Sprintf("%s: a pure file holds %s", fset.Position(n.Pos()), what))
	}
	for _, imp := range file.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		if slices.Contains(impure, strings.TrimPrefix(path, module+"/")) {
			fault(imp, "an import of "+path)
		}
	}
	maps := mapNames(file)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			fault(n, "a go statement")
		case *ast.SelectStmt:
			fault(n, "a select statement")
		case *ast.ChanType:
			fault(n, "a channel")
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if ok && pkg.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				fault(n, "time."+n.Sel.Name)
			}
			if ok && pkg.Name == "rand" && n.Sel.Name != "Rand" && n.Sel.Name != "Source" {
				fault(n, "rand."+n.Sel.Name)
			}
		case *ast.RangeStmt:
			if name := lastName(n.X); maps[name] {
				fault(n, "a range over the map "+name+": sort its keys first")
			}
		}
		return true
	})
	return faults
}

// mapNames collects the names of fields and variables that are declared as maps.
func mapNames(file *ast.File) map[string]bool {
	names := make(map[string]bool)
	add := func(idents []*ast.Ident, typ ast.Expr) {
		if _, ok := typ.(*ast.MapType); ok {
			for _, id := range idents {
				names[id.Name] = true
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			add(n.Names, n.Type)
		case *ast.ValueSpec:
			add(n.Names, n.Type)
		case *ast.AssignStmt:
			for i, rhs := range n.Rhs {
				id, ok := n.Lhs[min(i, len(n.Lhs)-1)].(*ast.Ident)
				if !ok {
					continue
				}
				switch rhs := rhs.(type) {
				case *ast.CompositeLit:
					add([]*ast.Ident{id}, rhs.Type)
				case *ast.CallExpr:
					if f, ok := rhs.Fun.(*ast.Ident); ok && f.Name == "make" && len(rhs.Args) > 0 {
						add([]*ast.Ident{id}, rhs.Args[0])
					}
				}
			}
		}
		return true
	})
	return names
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.IndexExpr:
		return lastName(e.X)
	}
	return ""
}

// The test above must be able to fail.
func TestImpuritiesAreSeen(t *testing.T) {
	const impureFile = `//kith:pure

package p

import ("sync"; "time"; "math/rand/v2")

type s struct { m map[string]int }

func f(x s) {
	go f(x)
	var c chan int
	select { case <-c: default: }
	_ = time.Now()
	_ = rand.IntN(3)
	for range x.m {}
	local := make(map[int]int)
	for range local {}
	_ = sync.Mutex{}
}
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", impureFile, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if !isPure(file) {
		t.Error("the mark was not seen")
	}
	if faults := impurities(fset, file); len(faults) != 8 {
		t.Errorf("8 impurities, found %d:\n%s", len(faults), strings.Join(faults, "\n"))
	}
}
