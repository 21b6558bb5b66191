package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// writeJournal leaves a journal of two receivers on disk.
func writeJournal(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journals", "default", "a")
	j, err := journal.Open(journal.Options{
		FS: vfs.Default, Dir: dir, ID: ident.JournalID{Group: "default", Node: "a"}, Cluster: "c1",
		ReceiverBytes: 1 << 20, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := j.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	var before ident.Position
	deposit := func(entries ...entry.Entry) {
		t.Helper()
		h, err := j.Deposit(journal.Draft{Entries: entries, Session: 1, Before: before, FactEpoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		before = h.After()
		if err := j.WaitDurable(t.Context(), h.Last()); err != nil {
			t.Fatal(err)
		}
	}
	deposit(entry.Entry{Code: entry.User, Type: entry.Switch, Data: []byte(`{"epoch":1}`)})
	deposit(
		entry.Entry{Code: entry.Record, Type: entry.Put, File: "orders", Key: []byte("k1"), After: &entry.Image{Value: []byte("three apples")}},
		entry.Entry{Code: entry.Record, Type: entry.Put, File: "orders", Key: []byte{0xff, 0}, After: &entry.Image{Value: []byte{1, 2}}},
	)
	if _, err := j.ChangeReceiver(1); err != nil {
		t.Fatal(err)
	}
	deposit(entry.Entry{Code: entry.Record, Type: entry.Update, File: "orders", Key: []byte("k1"),
		Before: &entry.Image{Position: ident.Position{Epoch: 1, History: 2}, Time: 1, Value: []byte("three apples")}, After: &entry.Image{Value: []byte("four pears")}})
	return dir
}

func TestDumpReadsReceiversWithoutANode(t *testing.T) {
	dir := writeJournal(t)
	nobody := "127.0.0.1:1"
	wantRun(t, nobody, 0, []string{
		"# receiver 000001 of journal default/a, cluster c1, begins with entry 1 after the beginning",
		"J PR", "U SW", "default@1.1", `{"epoch":1}`, "R PT", "orders", "k1", "three apples (12 B)", `"\xff\x00"`,
		"J NR", "# receiver 000002", "R UP", "default@1.4", "four pears (10 B) +before",
	}, "journal", "dump", dir)
	wantRun(t, nobody, 0, []string{"# bundle at byte 4096", "before three apples"}, "journal", "dump", dir, "--bundles", "--full")
	wantRun(t, nobody, 0, []string{"2 receivers are sound", "entries 1 to"}, "journal", "verify", dir)
	_, out, _ := run(t, nobody, "journal", "dump", filepath.Join(dir, "000001.rcv"), "-o", "json")
	if !strings.Contains(out, `"position":"default@1.2","code":"R","type":"PT"`) || !strings.Contains(out, `"key_base64":"/wA="`) {
		t.Errorf("JSON:\n%s", out)
	}
}

// What is readable before a damaged place is printed, and the place is named.
func TestDumpNamesDamage(t *testing.T) {
	dir := writeJournal(t)
	file := filepath.Join(dir, "000001.rcv")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), "three apples")
	damage := func(change func(b []byte) []byte) {
		t.Helper()
		if err := os.WriteFile(file, change([]byte(string(whole))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(func(b []byte) []byte { b[at] ^= 1; return b })
	wantRun(t, "", exitFailure, []string{"U SW", "receiver 000001 is corrupt at byte", "checksum"}, "journal", "dump", file)
	wantRun(t, "", exitFailure, []string{"receiver 000001 is corrupt at byte"}, "journal", "verify", dir)
	damage(func(b []byte) []byte { b[len(b)-1] = 1; return b })
	wantRun(t, "", exitFailure, []string{"bytes behind the last bundle"}, "journal", "verify", file)
	damage(func(b []byte) []byte { b[20] ^= 1; return b })
	wantRun(t, "", exitFailure, []string{"receiver header"}, "journal", "dump", file)
	damage(func(b []byte) []byte { return b[:at] })
	wantRun(t, "", exitFailure, []string{"U SW", "corrupt"}, "journal", "dump", file)
	damage(func(b []byte) []byte { return b })
	if err := os.Remove(filepath.Join(dir, "000002.rcv")); err != nil {
		t.Fatal(err)
	}
	wantRun(t, "", 0, []string{"1 receiver is sound"}, "journal", "verify", dir)
}

func TestVerifyFindsAMissingReceiver(t *testing.T) {
	dir := writeJournal(t)
	raw, err := os.ReadFile(filepath.Join(dir, "000001.rcv"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "000002.rcv")), os.WriteFile(filepath.Join(dir, "000003.rcv"), raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantRun(t, "", exitFailure, []string{"000003.rcv does not continue the receiver before it"}, "journal", "verify", dir)
}
