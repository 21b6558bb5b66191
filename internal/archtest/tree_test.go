package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/understudy-ha/understudy"

// source is one Go file of the repository.
type source struct {
	path  string // below the root, with slashes
	dir   string // its package, below the root
	test  bool
	lines int
	set   *token.FileSet
	tree  *ast.File
}

// imports lists what the file imports.
func (s source) imports() []string {
	var all []string
	for _, i := range s.tree.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil { // the parser has accepted it
			all = append(all, p)
		}
	}
	return all
}

// at prints a place in the file.
func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

// root finds the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("there is no go.mod above this package")
		}
		dir = parent
	}
}

// walk calls visit for every file of the repository that belongs to it: no hidden directories, no data directories of
// clusters, no build output.
func walk(t *testing.T, visit func(name string, raw []byte)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if p != top && (strings.HasPrefix(name, ".") && name != ".ci" || name == "bin" || strings.HasPrefix(name, "understudy-dev")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(rel), raw)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	walk(t, func(name string, raw []byte) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "/testdata/") {
			return
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, raw, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{
			path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			lines: strings.Count(string(raw), "\n"), set: set, tree: tree,
		})
	})
	if len(all) < 10 {
		t.Fatalf("only %d Go files were found: the walk is wrong", len(all))
	}
	return all
}
