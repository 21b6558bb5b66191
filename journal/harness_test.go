package journal

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testCluster = ident.ClusterID("c1")
	testDir     = "data/journals/orders/a"
)

// fixedClock makes receiver headers and bundles the same in every run.
type fixedClock struct{}

func (fixedClock) Now() time.Time      { return time.Unix(1_700_000_000, 1) }
func (fixedClock) Boot() time.Duration { return 0 }

func options(fs vfs.FS) Options {
	h := host.Real()
	h.Clock = fixedClock{}
	return Options{
		FS: fs, Dir: testDir, ID: ident.JournalID{Group: "orders", Node: "a"}, Cluster: testCluster,
		ReceiverBytes: 1 << 16, Host: h,
	}
}

func open(t testing.TB, o Options) *Journal {
	t.Helper()
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// active opens a journal and makes it ACTIVE.
func active(t testing.TB, o Options) *Journal {
	t.Helper()
	j := open(t, o)
	must(t, j.SetState(Active))
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pos(e, h uint64) ident.Position {
	return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
}

// changes makes n changes of records with values of the given size.
func changes(n, size int) []entry.Entry {
	entries := make([]entry.Entry, n)
	for i := range entries {
		entries[i] = entry.Entry{
			Code: entry.Record, Type: entry.Put, File: "orders", Key: fmt.Appendf(nil, "k%d", i),
			After: &entry.Image{Value: make([]byte, size)},
		}
	}
	return entries
}

// deposit appends n changes in epoch e behind the journal's history, or behind before when it is given.
func deposit(t testing.TB, j *Journal, e uint64, n, size int, before ...ident.Position) entry.Header {
	t.Helper()
	v, _ := j.View()
	d := Draft{Entries: changes(n, size), Session: ident.Epoch(e), FactEpoch: ident.Epoch(e), Before: v.After}
	if len(before) > 0 {
		d.Before = before[0]
	}
	h, err := j.Deposit(d)
	must(t, err)
	return h
}

// flush waits until everything is on disk.
func flush(t testing.TB, j *Journal) View {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v, _ := j.View()
	must(t, j.WaitDurable(ctx, v.Last))
	v, _ = j.View()
	return v
}

// reopen closes the journal and opens it again.
func reopen(t testing.TB, j *Journal, o Options) *Journal {
	t.Helper()
	must(t, j.Close())
	return open(t, o)
}

// drain reads all items there are.
func drain(t testing.TB, r *Reader) []Item {
	t.Helper()
	var items []Item
	for {
		item, ok, err := r.TryNext()
		must(t, err)
		if !ok {
			return items
		}
		items = append(items, item)
	}
}

// ship appends items to a copy.
func ship(t testing.TB, to *Journal, items []Item) {
	t.Helper()
	for _, i := range items {
		if i.ReceiverHeader != nil {
			must(t, to.BeginReceiver(i.ReceiverHeader))
			continue
		}
		_, err := to.AppendRaw(i.Raw)
		must(t, err)
	}
}

// copyOf returns a copy of j in its own directory of fs.
func copyOf(t testing.TB, j *Journal, o Options) *Journal {
	t.Helper()
	to := open(t, o)
	r, err := j.Reader(0)
	must(t, err)
	defer r.Close()
	ship(t, to, drain(t, r))
	return to
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return b
}

// overwrite changes bytes of a file.
func overwrite(t testing.TB, fs vfs.FS, path string, at int64, b []byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, category)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func receiverPath(n ident.ReceiverNumber) string { return testDir + "/" + fileName(n) }
