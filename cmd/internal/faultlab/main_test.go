package faultlab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

var (
	programFlag = flag.String("faultlab.program", "", "binary built with -tags failpoints; empty: built by the test")
	keepFlag    = flag.String("faultlab.keep", "", "where what a failing run leaves is kept; empty: the directory for temporary files")
)

// built is where the binary is built once for all tests.
type built struct {
	dir  string
	once func() (string, error)
}

var product built

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "understudy-faultlab-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	product.dir = dir
	product.once = sync.OnceValues(func() (string, error) { return build(dir) })
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}

func build(dir string) (string, error) {
	if *programFlag != "" {
		return *programFlag, nil
	}
	program := filepath.Join(dir, "understudy")
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", program, "../../understudy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return program, nil
}

// start runs a lab for a test and ends it with the test. When the test fails, what it leaves is kept.
func start(t *testing.T, o Options) *Lab {
	t.Helper()
	l := prepare(t, o)
	if err := l.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// prepare is start without starting a node.
func prepare(t *testing.T, o Options) *Lab {
	t.Helper()
	var err error
	if o.Program, err = product.once(); err != nil {
		t.Fatal(err)
	}
	if o.Dir, err = os.MkdirTemp(*keepFlag, "understudy-faultlab-"); err != nil {
		t.Fatal(err)
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(errors.Join(err, os.RemoveAll(o.Dir)))
	}
	t.Cleanup(func() {
		l.Close()
		if !t.Failed() {
			if err := os.RemoveAll(o.Dir); err != nil {
				t.Error(err)
			}
			return
		}
		for _, name := range l.Names() {
			t.Logf("node %s:\n%s", name, l.Node(name).Tail(15))
		}
		t.Logf("configurations, logs and data directories are kept in %s", o.Dir)
	})
	return l
}

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// background is a context for what must go on after the test's own has ended.
func background() context.Context { return context.Background() }
