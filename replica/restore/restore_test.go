package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"gocloud.dev/blob/memblob"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

const (
	testCluster = ident.ClusterID("c1")
	orders      = ident.GroupName("orders")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// moment is the end of a transaction of the recorded history.
type moment struct {
	position ident.Position
	node     ident.NodeID
	sequence ident.Sequence
	time     int64
	digest   string
	inside   []ident.Position // facts of the transaction before its last one
}

// world writes the journals of a few nodes, as primaries that follow one another, and records the history.
type world struct {
	t        testing.TB
	rng      *rand.Rand
	fs       *vfs.MemFS
	journals map[ident.NodeID]*journal.Journal
	live     *store.Group
	close    func() error
	epoch    ident.Epoch
	primary  ident.NodeID
	at       ident.Position // of the history
	clock    int64
	moments  []moment
	undone   []ident.Position
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), fs: vfs.NewMem(), journals: map[ident.NodeID]*journal.Journal{}, clock: 1_700_000_000_000_000_000}
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "live"})
	must(t, err)
	w.live, w.close = s.Group(orders), s.Close
	return w
}

func (w *world) journal(n ident.NodeID) *journal.Journal {
	if j := w.journals[n]; j != nil {
		return j
	}
	j, err := journal.Open(journal.Options{FS: w.fs, Dir: fmt.Sprintf("data/journals/orders/%s", n), ID: ident.JournalID{Group: orders, Node: n}, Cluster: testCluster, ReceiverBytes: 6 << 10})
	must(w.t, err)
	must(w.t, j.SetState(journal.Active))
	w.journals[n] = j
	return j
}

// deposit writes a bundle of the present primary behind before. committed is what it says of its own journal.
func (w *world) deposit(before ident.Position, entries []entry.Entry) entry.Bundle {
	j := w.journal(w.primary)
	w.clock += 1000
	v, _ := j.View()
	h, err := j.Deposit(journal.Draft{Entries: entries, Session: w.epoch, FactEpoch: w.epoch, Before: before, Committed: v.Committed, Time: w.clock})
	must(w.t, err)
	b, err := j.BundleAt(h.First)
	must(w.t, err)
	return b
}

// transactions makes some, of one to four changes, with their times.
func (w *world) transactions() []entry.Entry {
	var out []entry.Entry
	for range 1 + w.rng.IntN(3) {
		label := ident.Sequence(len(out) + 1)
		w.clock += 1000
		for range 1 + w.rng.IntN(4) {
			e := entry.Entry{Code: entry.Record, Type: entry.Put, File: fmt.Sprint("f", w.rng.IntN(2)), Key: fmt.Appendf(nil, "k%d", w.rng.IntN(20)), Transaction: label, Time: w.clock,
				After: &entry.Image{Value: bytes.Repeat([]byte{byte(w.rng.IntN(256))}, w.rng.IntN(300))}}
			if w.rng.IntN(5) == 0 {
				e.Type, e.After, e.Before = entry.Delete, nil, &entry.Image{}
			}
			out = append(out, e)
		}
	}
	return out
}

// commit lands a bundle in the recorded history, transaction by transaction, and says so in the journal.
func (w *world) commit(b entry.Bundle) {
	w.t.Helper()
	entries, err := b.All()
	must(w.t, err)
	for i := 0; i < len(entries); {
		k := i + 1
		for k < len(entries) && entries[k].Transaction == entries[i].Transaction {
			k++
		}
		var changes []store.Change
		m := moment{node: w.primary}
		for _, e := range entries[i:k] {
			m.inside = append(m.inside, e.Position)
			m.position, m.sequence, m.time = e.Position, e.Sequence, e.Time
			if e.Code == entry.Record {
				changes = append(changes, store.Change{File: e.File, Key: e.Key, Put: e.After})
			}
		}
		m.inside = m.inside[:len(m.inside)-1]
		must(w.t, w.live.Apply(w.at, m.position, changes))
		w.at = m.position
		d, err := w.live.Digest(w.t.Context())
		must(w.t, err)
		m.digest = d.Sum
		w.moments = append(w.moments, m)
		i = k
	}
	w.journal(w.primary).Mark(b.Last(), b.Last())
}

// turn makes node primary of a new epoch, which begins with SW. What it deposits before SW is committed says, as a primary does,
// that everything below is: the lost end of an earlier turn stands there, too.
func (w *world) turn(node ident.NodeID) {
	w.epoch++
	w.primary = node
	sw := w.deposit(w.at, []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: []byte("{}")}})
	w.journal(node).Mark(sw.First-1, sw.First-1)
	early := w.deposit(sw.After(), w.transactions())
	w.commit(sw)
	w.commit(early)
}

// run plays a history: turns of nodes, writes, ends that never get committed and are left behind by the next turn.
func (w *world) run(turns int) {
	nodes := []ident.NodeID{"a", "b", "c"}
	for turn := range turns {
		w.turn(nodes[w.rng.IntN(len(nodes))])
		for range 2 + w.rng.IntN(8) {
			w.commit(w.deposit(w.at, w.transactions()))
		}
		if turn == turns-1 {
			break
		}
		before := w.at
		for range w.rng.IntN(4) { // lost: the next primary does not have it
			b := w.deposit(before, w.transactions())
			before = b.After()
			w.undone = append(w.undone, before)
		}
	}
	for _, j := range w.journals { // what is committed is said by the next bundle only
		_, err := j.ChangeReceiver(w.epoch)
		must(w.t, err)
	}
	w.flush()
}

func (w *world) flush() {
	for _, j := range w.journals {
		v, _ := j.View()
		must(w.t, j.WaitDurable(w.t.Context(), v.Last))
	}
}

// stop closes the journals: a data directory without a node is left.
func (w *world) stop() {
	for _, j := range w.journals {
		must(w.t, j.Close())
	}
	must(w.t, w.close())
}

// archived puts all detached receivers into an archive.
func (w *world) archived() *archive.Archive {
	a := archive.New(memblob.OpenBucket(nil), archive.Options{})
	for _, j := range w.journals {
		for _, r := range j.Receivers() {
			if r.Attached {
				continue
			}
			chain, _, err := j.ChainAt(r.Last)
			must(w.t, err)
			c, err := j.Content(r.Number)
			must(w.t, err)
			_, err = a.Save(w.t.Context(), archive.Name{Cluster: testCluster, Journal: j.ID(), Number: r.Number, First: r.First, Last: r.Last, Chain: chain},
				func() io.Reader { return c.Section() })
			must(w.t, err)
			must(w.t, c.Close())
		}
	}
	return a
}

// Proves HB-6: whatever position of a history is asked for, with switch-overs and ends that were undone, from the archive or from a
// data directory, the content is the one that was recorded then; a transaction is never cut.
func TestRestoreToEveryPosition(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		w := newWorld(t, seed)
		w.run(2 + int(seed))
		from := w.archived()
		w.stop()
		try := 0
		restore := func(o Options) (Result, error) {
			try++
			o.Group, o.FS, o.Out = orders, w.fs, fmt.Sprintf("out%d-%d", seed, try)
			return Run(t.Context(), o)
		}
		expect := func(what string, r Result, err error, m moment) {
			t.Helper()
			if err != nil || r.Digest != m.digest || r.Position != m.position.Format(orders) {
				t.Fatalf("seed %d, %s: %+v %v, want %s %s", seed, what, r, err, m.position, m.digest)
			}
		}
		for i, m := range w.moments {
			if len(w.moments) > 60 && w.rng.IntN(len(w.moments)) > 60 {
				continue
			}
			o := Options{Archive: from}
			if i%2 == 0 {
				o = Options{Data: []string{"data"}}
			}
			o.To.Position = m.position
			r, err := restore(o)
			expect("position", r, err, m)
			if i%5 == 0 {
				o.To = Target{Time: time.Unix(0, m.time)}
				r, err = restore(o)
				expect("time", r, err, m)
				o.To = Target{Node: m.node, Sequence: m.sequence}
				r, err = restore(o)
				expect("sequence", r, err, m)
			}
			if n := len(m.inside); n > 0 && i > 0 && i%3 == 0 {
				o.To = Target{Position: m.inside[n-1]}
				r, err = restore(o)
				expect("in a transaction", r, err, w.moments[i-1])
			}
		}
		for _, p := range w.undone {
			if slices.ContainsFunc(w.moments, func(m moment) bool { return m.position == p }) {
				t.Fatalf("%s is both", p)
			}
			if _, err := restore(Options{Data: []string{"data"}, To: Target{Position: p}}); !errors.Is(err, ErrTarget) {
				t.Errorf("seed %d: %s was undone and restored: %v", seed, p, err)
			}
		}
		r, err := restore(Options{Archive: from, Data: []string{"data"}})
		expect("the end", r, err, w.moments[len(w.moments)-1])
		n := 0
		again, err := Records(t.Context(), w.fs, r.Out, func(Record) error { n++; return nil })
		if err != nil || uint64(n) != r.Records || again.Digest != r.Digest {
			t.Errorf("%d records read, %v; %+v", n, err, r)
		}
		if _, err := Run(t.Context(), Options{Group: orders, FS: w.fs, Out: r.Out, Archive: from}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("restored over a restore: %v", err)
		}
		must(t, from.Close())
	}
}

// The end of the newest epoch counts only as far as it is known to be committed, and beyond when asked for.
func TestRestoreBeyondWhatIsCommitted(t *testing.T) {
	w := newWorld(t, 9)
	w.turn("a")
	w.commit(w.deposit(w.at, w.transactions()))
	known := w.at
	b := w.deposit(w.at, w.transactions()) // says that what went before is committed, and is not itself
	w.flush()
	w.stop()
	o := Options{Group: orders, FS: w.fs, Out: "out1", Data: []string{"data"}}
	r, err := Run(t.Context(), o)
	if err != nil || r.Position != known.Format(orders) || r.Beyond != uint64(b.Facts) {
		t.Fatalf("%+v %v", r, err)
	}
	o.Out, o.Uncommitted = "out2", true
	if r, err = Run(t.Context(), o); err != nil || r.Position != b.After().Format(orders) {
		t.Fatalf("%+v %v", r, err)
	}
}

// A receiver that is missing, or damaged, is named; it may come from elsewhere.
func TestRestoreNamesWhatIsMissing(t *testing.T) {
	w := newWorld(t, 3)
	w.turn("a")
	for range 60 {
		w.commit(w.deposit(w.at, w.transactions()))
	}
	_, err := w.journal("a").ChangeReceiver(1)
	must(t, err)
	w.flush()
	if n := len(w.journal("a").Receivers()); n < 4 {
		t.Fatalf("%d receivers", n)
	}
	from := w.archived()
	defer from.Close()
	w.stop()
	path := "data/journals/orders/a/000002.rcv"
	f, err := w.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.WriteAt([]byte("rot"), 4500)
	must(t, errors.Join(err, f.Close()))
	o := Options{Group: orders, FS: w.fs, Out: "out1", Data: []string{"data"}}
	_, err = Run(t.Context(), o)
	var gap *GapError
	if !errors.As(err, &gap) || !strings.Contains(err.Error(), "receivers 000002 to 000002 of journal orders/a") || !strings.Contains(err.Error(), path) {
		t.Fatalf("damaged: %v", err)
	}
	must(t, w.fs.Remove("data/journals/orders/a/000001.rcv"))
	must(t, w.fs.Remove(path))
	if _, err = Run(t.Context(), o); !errors.As(err, &gap) || !strings.Contains(err.Error(), "receivers 000001 to 000002 of journal orders/a") {
		t.Fatalf("missing: %v", err)
	}
	o.Archive = from
	r, err := Run(t.Context(), o)
	if err != nil || r.Digest != w.moments[len(w.moments)-1].digest {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := Run(t.Context(), Options{Group: "other", FS: w.fs, Out: "out3", Archive: from}); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
}

// Proves HB-2: what is restored of the local files of a node has positions of that node's history, and a position of another node's is refused.
func TestLocalPositionsNameTheirNode(t *testing.T) {
	fs := vfs.NewMem()
	j, err := journal.Open(journal.Options{FS: fs, Dir: "data/journals/local/a", ID: ident.JournalID{Group: "local", Node: "a"}, Cluster: testCluster, ReceiverBytes: 6 << 10})
	must(t, err)
	must(t, j.SetState(journal.Active))
	h, err := j.Deposit(journal.Draft{Session: 1, FactEpoch: 1, Time: 1_700_000_000_000_000_000, Entries: []entry.Entry{
		{Code: entry.User, Type: entry.Switch, Data: []byte("{}")},
		{Code: entry.Record, Type: entry.Put, File: "notes", Key: []byte("k"), Transaction: 1, After: &entry.Image{Value: []byte("v")}},
	}})
	must(t, err)
	j.Mark(h.Last(), h.Last())
	_, err = j.Deposit(journal.Draft{Session: 1, FactEpoch: 1, Before: ident.Position{Epoch: 1, History: 2}, Committed: h.Last(), Time: 1_700_000_000_000_001_000, Entries: []entry.Entry{
		{Code: entry.Record, Type: entry.Put, File: "notes", Key: []byte("l"), Transaction: 1, After: &entry.Image{Value: []byte("v")}},
	}})
	must(t, err)
	must(t, j.Close())
	o := Options{Group: "local", Local: true, Data: []string{"data"}, FS: fs, Out: "out"}
	r, err := Run(t.Context(), o)
	if err != nil || r.Position != "local/a@1.2" || !strings.HasPrefix(r.Committed, "local/a@") || r.Records != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	o.Out, o.To = "other", Target{Position: ident.Position{Epoch: 1, History: 2}, Of: "b"}
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "node b") {
		t.Errorf("a position of another node: %v", err)
	}
	o.To.Of = "a"
	if r, err := Run(t.Context(), o); err != nil || r.Position != "local/a@1.2" {
		t.Errorf("%+v, %v", r, err)
	}
}
