package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A start that fails for the configuration or the directory says one line, with its exit code, and leaves nothing behind.
func TestFailedStartLeavesNothing(t *testing.T) {
	config := func(dir, data, more string) string {
		text := fmt.Sprintf("node: a\ncluster: x\ndata: %s\nbootstrap: true\nlisten: {http: 127.0.0.1:0, gossip: 127.0.0.1:0, raft: 127.0.0.1:0, ship: 127.0.0.1:0, redis: 127.0.0.1:0}\n%s", data, more)
		path := filepath.Join(dir, "understudy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct {
		data, more string
		code       int
		want       string
	}{
		"an unknown key":                   {"data", "bogus: 1\n", exitUsage, `unknown field "bogus"`},
		"a file in place of the directory": {"understudy.yaml/data", "", exitPrecondition, "correct `data`"},
	} {
		dir := t.TempDir()
		code, out, errOut := run(t, "127.0.0.1:1", "server", "--config", config(dir, filepath.Join(dir, tc.data), tc.more))
		if code != tc.code || !strings.Contains(strings.Join(strings.Fields(errOut), " "), tc.want) || strings.Count(errOut, "understudy: ") != 1 || out != "" {
			t.Errorf("%s: exit code %d, want %d: %s%s", name, code, tc.code, out, errOut)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 {
			t.Errorf("%s: it left %v, %v", name, left, err)
		}
	}
}
