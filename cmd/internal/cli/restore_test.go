package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// dataDirectory makes a data directory with a journal of several receivers, and an archive of the detached ones.
func dataDirectory(t *testing.T) (data, url string) {
	t.Helper()
	root := t.TempDir()
	data, url = filepath.Join(root, "data"), "file://"+filepath.Join(root, "archive")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	j, err := journal.Open(journal.Options{Dir: filepath.Join(data, "journals", "orders", "a"), ID: ident.JournalID{Group: "orders", Node: "a"}, Cluster: "c1"})
	ok(err)
	ok(j.SetState(journal.Active))
	write := func(e entry.Entry) {
		t.Helper()
		v, _ := j.View()
		h, err := j.Deposit(journal.Draft{Session: 1, FactEpoch: 1, Before: v.After, Entries: []entry.Entry{e}})
		ok(err)
		j.Mark(h.Last(), h.Last()) // the next bundle says that it is committed
	}
	write(entry.Entry{Code: entry.User, Type: entry.Switch, Data: []byte("{}")})
	for i := range 20 {
		write(entry.Entry{Code: entry.Record, Type: entry.Put, File: "f", Key: fmt.Appendf(nil, "k%02d", i), After: &entry.Image{Value: []byte("v")}})
		if i%5 == 4 {
			_, err := j.ChangeReceiver(1)
			ok(err)
		}
	}
	v, _ := j.View()
	ok(j.WaitDurable(t.Context(), v.Last))
	to, err := archive.Open(t.Context(), url, archive.Options{})
	ok(err)
	for _, r := range j.Receivers() {
		if r.Attached {
			continue
		}
		chain, _, err := j.ChainAt(r.Last)
		ok(err)
		c, err := j.Content(r.Number)
		ok(err)
		_, err = to.Save(t.Context(), archive.Name{Cluster: "c1", Journal: j.ID(), Number: r.Number, First: r.First, Last: r.Last, Chain: chain}, func() io.Reader { return c.Section() })
		ok(err)
		ok(c.Close())
	}
	ok(to.Close())
	ok(j.Close())
	return data, url
}

// Proves HB-6: a point in time is restored and printed from the command line, from an archive and from a data directory.
func TestJournalRestore(t *testing.T) {
	data, url := dataDirectory(t)
	out := t.TempDir()
	dir := func(s string) string { return filepath.Join(out, s) }
	wantRun(t, "", exitDone, []string{"000004", "orders/a"}, "journal", "archive", "list", "orders/a", "--url", url)
	wantRun(t, "", exitDone, []string{"4 receivers were read back, 0 damaged"}, "journal", "archive", "verify", "orders", "--url", url)
	wantRun(t, "", exitFailure, []string{"nothing of invoices is archived there"}, "journal", "archive", "verify", "invoices", "--url", url)
	wantRun(t, "", exitFailure, []string{"no such file or directory"}, "journal", "archive", "verify", "orders", "--url", "file://"+dir("mistyped"))
	if _, err := os.Stat(dir("mistyped")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an archive that is only read was made: %v", err)
	}
	wantRun(t, "", exitDone, []string{"orders@1.11", "10 in 1 file"}, "journal", "restore", "--group", "orders", "--to", "1.11", "--from-archive", url, "--out", dir("one"))
	wantRun(t, "", exitDone, []string{`"records": 20`, `"position": "orders@1.21"`}, "journal", "restore", "--group", "orders", "--from-data", data, "--out", dir("two"), "-o", "json")
	wantRun(t, "", exitDone, []string{"orders@1.5"}, "journal", "restore", "--group", "orders", "--to", "a/6", "--from-data", data, "--out", dir("three"))
	_, text, _ := run(t, "", "journal", "restored", dir("one"))
	if lines := strings.Split(strings.TrimSpace(text), "\n"); len(lines) != 10 || !strings.Contains(lines[9], "k09") {
		t.Errorf("%d records:\n%s", len(lines), text)
	}
	wantRun(t, "", exitPrecondition, []string{"not empty"}, "journal", "restore", "--group", "orders", "--from-data", data, "--out", dir("two"))
	wantRun(t, "", exitPrecondition, []string{"1.99"}, "journal", "restore", "--group", "orders", "--to", "1.99", "--from-data", data, "--out", dir("four"))
	wantRun(t, "", exitUsage, nil, "journal", "restore", "--group", "orders", "--to", "yesterday-ish", "--from-data", data, "--out", dir("four"))
	wantRun(t, "", exitUsage, nil, "journal", "restore", "--group", "orders")
	if err := os.Remove(filepath.Join(data, "journals/orders/a/000002.rcv")); err != nil {
		t.Fatal(err)
	}
	wantRun(t, "", exitPrecondition, []string{"receivers 000002 to 000002 of journal orders/a"}, "journal", "restore", "--group", "orders", "--from-data", data, "--out", dir("four"))
	wantRun(t, "", exitDone, []string{"orders@1.21"}, "journal", "restore", "--group", "orders", "--from-data", data, "--from-archive", url, "--out", dir("four"))
}

// Proves RJ-13: receivers are saved to files and put into the data directory of another node, also in front of what is held there.
func TestJournalExportAndImport(t *testing.T) {
	data, _ := dataDirectory(t)
	root := t.TempDir()
	files, other := filepath.Join(root, "files"), filepath.Join(root, "other")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	wantRun(t, "", exitDone, []string{"4 receivers saved"}, "journal", "export", "orders/a", "--data", data, "--to", files)
	wantRun(t, "", exitDone, []string{"4 receivers were there already"}, "journal", "export", "orders/a", "--data", data, "--to", files)
	late := filepath.Join(root, "late")
	if err := os.MkdirAll(late, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"000003.rcv", "000004.rcv"} {
		if err := os.Rename(filepath.Join(files, f), filepath.Join(late, f)); err != nil {
			t.Fatal(err)
		}
	}
	wantRun(t, "", exitDone, []string{"2 receivers taken"}, "journal", "import", late, "--data", other)
	wantRun(t, "", exitDone, []string{"2 receivers taken", "entries 1 to"}, "journal", "import", files, "--data", other)
	wantRun(t, "", exitDone, []string{"0 receivers taken", "2 receivers were there already"}, "journal", "import", late, "--data", other)
	for n := 1; n <= 4; n++ {
		name := fmt.Sprintf("journals/orders/a/%06d.rcv", n)
		a, err := os.ReadFile(filepath.Join(data, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimRight(string(a), "\x00") != strings.TrimRight(string(b), "\x00") {
			t.Errorf("receiver %d differs", n)
		}
	}
	wantRun(t, "", exitDone, []string{"4 receivers are sound"}, "journal", "verify", filepath.Join(other, "journals/orders/a"))
	if err := os.Remove(filepath.Join(files, "000002.rcv")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(other, "journals")); err != nil {
		t.Fatal(err)
	}
	wantRun(t, "", exitDone, nil, "journal", "import", files, "--data", other)
	wantRun(t, "", exitFailure, []string{"journal continues at sequence"}, "journal", "import", late, "--data", other)
}

// Proves HB-2: a position of one node's local files is a point to restore them to; those of several nodes are not mixed.
func TestRestoreOfLocalFiles(t *testing.T) {
	for _, c := range []struct {
		to    string
		group ident.GroupName
		valid bool
	}{
		{"local/a@1.5", "local", true}, {"1.5", "local", true}, {"orders@1.5", "local", false}, {"localx@1.5", "local", false},
		{"local/a@1.5", "orders", false}, {"orders@1.5", "orders", true}, {"stock@1.5", "orders", false},
	} {
		if p, err := parsePoint(c.to, c.group, time.Now()); (err == nil) != c.valid || c.valid && p.Position.History != 5 {
			t.Errorf("--group %s --to %s: %+v, %v", c.group, c.to, p, err)
		} else if named := strings.HasPrefix(c.to, "local/"); c.valid && (p.Of == "a") != named {
			t.Errorf("--to %s is of node %q", c.to, p.Of)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	code, _, told := run(t, "", "journal", "restore", "--group", "local", "--from-data", t.TempDir(), "--from-data", t.TempDir(), "--out", out)
	if code != exitUsage || !strings.Contains(told, "name one --from-data") {
		t.Errorf("exit code %d: %s", code, told)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}
