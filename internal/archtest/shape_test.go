package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

const maxLines = 600

// TestFilesAreNouns: a long file hides a second noun.
func TestFilesAreNouns(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test && s.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: which second noun does it hide?", s.path, s.lines, maxLines)
		}
		switch base := strings.TrimSuffix(path.Base(s.path), ".go"); base {
		case "utils", "util", "helpers", "helper", "common", "misc", "shared", "base", "types", "stuff":
			t.Errorf("%s: a file is named after what it holds, not %q", s.path, base)
		}
		switch s.tree.Name.Name {
		case "utils", "util", "helpers", "common", "misc", "shared", "base":
			t.Errorf("%s: a package is named after what it does, not %q", s.path, s.tree.Name.Name)
		}
	}
}

// TestPackagesSayWhatTheyAre: every package has one package comment.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			said[s.dir] = said[s.dir] || s.tree.Doc != nil
		}
	}
	for dir, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// TestNoHiddenState: no init functions, and package variables only for what never changes: errors, tables, assertions.
func TestNoHiddenState(t *testing.T) {
	all := sources(t)
	globals := map[string]map[string]bool{} // package to its variables
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no init functions: what happens before main cannot be tested", s.at(f))
			}
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || s.path == "internal/mutant/on.go" { // not built into the program
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec) // a var declaration has no others
				if why := mutable(v); why != "" {
					t.Errorf("%s: package variable %s %s: state belongs to a struct with an owner", s.at(v), v.Names[0].Name, why)
				}
				for _, n := range v.Names {
					if globals[s.dir] == nil {
						globals[s.dir] = map[string]bool{}
					}
					globals[s.dir][n.Name] = true
				}
			}
		}
	}
	for _, s := range all {
		if s.test {
			continue
		}
		for _, n := range written(s.tree) {
			if n.Name != "_" && globals[s.dir][n.Name] && isGlobal(s.tree, n) {
				t.Errorf("%s: package variable %s is changed: state belongs to a struct with an owner", s.at(n), n.Name)
			}
		}
	}
}

// mutable says why a package variable is made to be changed; "" when it is not.
func mutable(v *ast.ValueSpec) (why string) {
	look := func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.SelectorExpr:
			if p, ok := x.X.(*ast.Ident); ok && (p.Name == "sync" || p.Name == "atomic") {
				why = "is a " + p.Name + "." + x.Sel.Name
			}
		case *ast.ChanType:
			why = "is a channel"
		case *ast.CallExpr:
			if f, ok := x.Fun.(*ast.Ident); ok && f.Name == "make" {
				why = "is filled later"
			}
		}
		return why == ""
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, e := range v.Values {
		ast.Inspect(e, look)
	}
	return why
}

// written lists the roots of everything that is assigned to in functions: x, x.f, x[i], *x, x++.
func written(f *ast.File) []*ast.Ident {
	var all []*ast.Ident
	add := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				all = append(all, x)
				return
			case *ast.SelectorExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			default:
				return
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, e := range x.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(x.X)
		}
		return true
	})
	return all
}

// isGlobal tells whether n stands for a variable of the package, by what the parser resolved: nothing, when that is declared
// in another file, or one of the top declarations of this one.
func isGlobal(f *ast.File, n *ast.Ident) bool {
	if n.Obj == nil {
		return true
	}
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok {
			for _, spec := range g.Specs {
				if n.Obj.Decl == any(spec) {
					return true
				}
			}
		}
	}
	return false
}

// TestFilesNameNoPlaceOfTheirMaking: what lies in the repository must make sense on every machine, and be finished.
func TestFilesNameNoPlaceOfTheirMaking(t *testing.T) {
	// Put together, so that this file does not contain them.
	places := []string{"/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/Us" + "ers/"}
	marks := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "not " + "implemented", "HA" + "CK"}
	walk(t, func(name string, raw []byte) {
		if name == "go.sum" || strings.Contains(name, "/testdata/fuzz/") || len(raw) > 1<<20 {
			return
		}
		for i, line := range strings.Split(string(raw), "\n") {
			for _, p := range places {
				if strings.Contains(line, p) {
					t.Errorf("%s:%d names the path %s of one machine", name, i+1, p)
				}
			}
			if !strings.HasSuffix(name, ".go") {
				continue
			}
			for _, m := range marks {
				if strings.Contains(line, m) {
					t.Errorf("%s:%d says %q: finish it, or leave it out", name, i+1, m)
				}
			}
		}
	})
}

// TestHiddenStateIsSeen shows that the rules above bite.
func TestHiddenStateIsSeen(t *testing.T) {
	for _, tc := range []struct {
		text         string
		made, change bool // made to be changed; changed
	}{
		{text: `var ErrX = errors.New("x"); func f() error { return ErrX }`},
		{text: `var table = [3]int{1, 2, 3}; func f() int { table := 4; table = 5; return table }`},
		{text: `var mu sync.Mutex`, made: true},
		{text: `var n atomic.Int64`, made: true},
		{text: `var m = make(map[string]int)`, made: true},
		{text: `var c chan int`, made: true},
		{text: `var n int; func f() { n++ }`, change: true},
		{text: `var m = map[int]int{}; func f() { m[1] = 2 }`, change: true},
		{text: `var s struct{ a int }; func f() { s.a, _ = 1, 2 }`, change: true},
	} {
		tree, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+tc.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		v := tree.Decls[0].(*ast.GenDecl).Specs[0].(*ast.ValueSpec)
		if made := mutable(v) != ""; made != tc.made {
			t.Errorf("%s: made to be changed: %v", tc.text, made)
		}
		change := false
		for _, n := range written(tree) {
			change = change || n.Name == v.Names[0].Name && isGlobal(tree, n)
		}
		if change != tc.change {
			t.Errorf("%s: changed: %v", tc.text, change)
		}
	}
}
