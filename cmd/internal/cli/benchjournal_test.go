package cli

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/understudy-ha/understudy/cmd/internal/journalbench"
)

// The benchmark prints a row for everything it measures and leaves nothing behind.
func TestBenchJournal(t *testing.T) {
	dir := t.TempDir()
	code, out, errOut := run(t, "127.0.0.1:1", "bench", "journal", "--dir", dir, "--seconds", "0.02", "-o", "json")
	var rows []journalbench.Result
	if err := json.Unmarshal([]byte(out), &rows); code != exitDone || err != nil || len(rows) != len(journalbench.Rows()) {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errOut)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	wantRun(t, "", exitUsage, []string{"--seconds"}, "bench", "journal", "--seconds", "0")
	wantRun(t, "", exitPrecondition, []string{"--dir"}, "bench", "journal", "--dir", dir+"/none")
}
