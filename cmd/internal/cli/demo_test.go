package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// A writer must notice, and a check must find, every way in which a cluster can break its word.
func TestWriterAndCheck(t *testing.T) {
	m, url := newMemory(t)
	m.lie = func(put int) error {
		switch put {
		case 5:
			return &client.Error{Code: client.CodeStorageFull, Detail: "disk is full"}
		case 7:
			return &client.Error{Code: client.CodeUnknownOutcome}
		}
		return nil
	}
	cl := client.New(url)
	defer cl.Close()
	w := startWriter(cl, 3)
	if err := w.await(t.Context(), 50, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.stop() // does no harm
	s := w.look()
	if s.acknowledged < 50 || s.failed != 1 || s.unknown != 1 || s.longest <= 0 || s.lastError == nil {
		t.Errorf("counted %+v", s)
	}
	if again := w.look(); again.acknowledged != 0 || again.failed != 0 {
		t.Errorf("a second look counts again: %+v", again)
	}
	r, err := checkWrites(t.Context(), cl, w.results())
	if err != nil {
		t.Fatal(err)
	}
	if r.acknowledged != s.acknowledged || r.failed != 1 || r.unknown != 1 || r.survived != 0 {
		t.Errorf("read back %+v of %+v", r, s)
	}

	acked, refused := -1, -1
	for n, o := range w.results() {
		switch o {
		case acknowledged:
			acked = n
		case failed:
			refused = n
		}
	}
	path := func(n int) string { return "/v1/files/" + writerFile + "/records/" + string(writerKey(n)) }
	for _, tc := range []struct {
		want         string
		break_, mend func()
	}{
		{"is LOST", func() { delete(m.records, path(acked)) }, func() { m.records[path(acked)] = writerValue(acked) }},
		{"another content", func() { m.records[path(acked)] = []byte("x") }, func() { m.records[path(acked)] = writerValue(acked) }},
		{"is there all the same", func() { m.records[path(refused)] = writerValue(refused) }, func() { delete(m.records, path(refused)) }},
	} {
		tc.break_()
		if _, err := checkWrites(t.Context(), cl, w.results()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("want %q, got %v", tc.want, err)
		}
		tc.mend()
	}
}

func TestWriterWaitsNoLongerThanTold(t *testing.T) {
	m, url := newMemory(t)
	m.lie = func(int) error { return &client.Error{Code: client.CodeStorageFull, Detail: "disk is full"} }
	cl := client.New(url)
	defer cl.Close()
	w := startWriter(cl, 1)
	defer w.stop()
	if err := w.await(t.Context(), 1, 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("got %v", err)
	}
}

func TestCheckLoadedFindsDifferences(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, url := newMemory(t)
	cl := client.New(url)
	defer cl.Close()
	files, err := collectFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := (loader{client: cl, file: demoFile, parallel: 2, progress: os.Stderr}).load(t.Context(), files); err != nil || r.Loaded != 3 {
		t.Fatal(r, err)
	}
	if err := checkLoaded(t.Context(), cl, demoFile, files); err != nil {
		t.Error(err)
	}
	delete(m.records, "/v1/files/src/records/b")
	m.records["/v1/files/src/records/c"] = nil
	err = checkLoaded(t.Context(), cl, demoFile, files)
	if err == nil || !strings.Contains(err.Error(), "2 faults") || !strings.Contains(err.Error(), "b is LOST") {
		t.Errorf("got %v", err)
	}
}

func TestSameDigests(t *testing.T) {
	same := map[string]client.Digest{"a": {Sum: "1", Records: 2}, "b": {Sum: "1", Records: 2}}
	if err := sameDigests(same); err != nil {
		t.Error(err)
	}
	same["c"] = client.Digest{Sum: "9", Records: 2}
	if err := sameDigests(same); err == nil || !strings.Contains(err.Error(), "CONTENT DIFFERS") {
		t.Errorf("got %v", err)
	}
}

func TestEachParallel(t *testing.T) {
	if err := eachParallel(t.Context(), 100, func(int) error { return nil }); err != nil {
		t.Error(err)
	}
	boom := errors.New("boom")
	if err := eachParallel(t.Context(), 100, func(i int) error {
		if i == 50 {
			return fmt.Errorf("at 50: %w", boom)
		}
		return nil
	}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eachParallel(ended, 1, func(int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSpread(t *testing.T) {
	if got := spread([]time.Duration{3 * time.Second, time.Second, 2 * time.Second}); got != "1.00 s to 3.00 s, median 2.00 s" {
		t.Error(got)
	}
}

func TestDevClusterKeepsItsConfiguration(t *testing.T) {
	dir := t.TempDir()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newDevCluster(dir, 3, ports, true, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.nodes) != 3 || c.nodes[0].config.Bootstrap == c.nodes[1].config.Bootstrap || len(c.nodes[1].config.Join) != 2 {
		t.Errorf("nodes: %+v", c.nodes)
	}
	file := filepath.Join(dir, "b", "understudy.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(raw, "log_level: debug\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = newDevCluster(dir, 3, portsFrom(7400), false, os.Stderr)
	if err != nil || c.nodes[1].config.LogLevel != "debug" || c.nodes[0].config.Listen.HTTP != address(ports(0)[0]) {
		t.Errorf("a change of the configuration is lost: %+v, %v", c.nodes[1].config, err)
	}
	if _, err := newDevCluster(dir, 3, portsFrom(7400), true, os.Stderr); exitCode(err) != exitPrecondition {
		t.Errorf("other ports on the same directory: %v", err)
	}
	if _, err := newDevCluster(dir, 2, ports, false, os.Stderr); exitCode(err) != exitPrecondition {
		t.Errorf("fewer nodes on the same directory: %v", err)
	}
}

func TestPortInUseIsNamedBeforeAnythingStarts(t *testing.T) {
	_, url := newMemory(t) // listens
	free, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	taken, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	ports := func(i int) [5]int {
		p := free(i)
		if i == 1 {
			p[2] = taken
		}
		return p
	}
	dir := filepath.Join(t.TempDir(), "new")
	_, err = newDevCluster(dir, 2, ports, false, os.Stderr)
	if exitCode(err) != exitPrecondition || !strings.Contains(err.Error(), "the raft address of node b") || !strings.Contains(err.Error(), "--base-port") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}
