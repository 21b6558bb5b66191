package node

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// kindsInSource collects what stands in the source where a kind of events does: arguments of add and warn, what is given to a variable kind,
// and constants whose names begin with Event.
func kindsInSource(t *testing.T) (found []string) {
	t.Helper()
	shape := regexp.MustCompile(`^[A-Z][A-Z_]{3,}$`)
	take := func(all []ast.Expr) {
		for _, x := range all {
			if lit, ok := x.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if v, err := strconv.Unquote(lit.Value); err == nil && shape.MatchString(v) {
					found = append(found, v)
				}
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, "../../../replica/status.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				called := ""
				switch fun := n.Fun.(type) {
				case *ast.Ident:
					called = fun.Name
				case *ast.SelectorExpr:
					called = fun.Sel.Name
				}
				if called == "add" || called == "warn" {
					take(n.Args)
				}
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					if id, ok := left.(*ast.Ident); ok && id.Name == "kind" {
						take(n.Rhs)
					}
				}
			case *ast.ValueSpec:
				if strings.HasPrefix(n.Names[0].Name, "Event") {
					take(n.Values)
				}
			}
			return true
		})
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// The kinds of events that a query may name are those that a node tells.
func TestEventKindsAreAll(t *testing.T) {
	if told, listed := kindsInSource(t), client.EventKinds(); !slices.Equal(told, listed) {
		for _, k := range told {
			if !slices.Contains(listed, k) {
				t.Errorf("client.EventKinds lacks %s", k)
			}
		}
		for _, k := range listed {
			if !slices.Contains(told, k) {
				t.Errorf("nobody tells %s", k)
			}
		}
		if !t.Failed() {
			t.Errorf("client.EventKinds is not in order: %v", listed)
		}
	}
}

// A hook for a kind that no node tells is refused when the configuration is read.
func TestHooksNameKnownKinds(t *testing.T) {
	h := Hooks{Events: []Hook{{Run: []string{"/bin/true"}, Kinds: []string{"SRPRIMARY", "SRPRIMERY"}}}}
	if p := h.check(); len(p) != 1 || !strings.Contains(p[0].Error(), "SRPRIMERY") || !strings.Contains(p[0].Error(), "SRPRIMARY") {
		t.Errorf("%v", p)
	}
	h.Events[0].Kinds = []string{"*"}
	if p := h.check(); len(p) != 0 {
		t.Errorf("%v", p)
	}
}
