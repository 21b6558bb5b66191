package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// recallWorld is a journal whose receivers are all archived, and a feed of it for a target.
type recallWorld struct {
	t       testing.TB
	fs      vfs.FS
	archive *stacks
	whole   *journal.Journal
	names   []archive.Name // of its detached receivers, oldest first
	feed    *feed
}

func openFor(t testing.TB, fs vfs.FS, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(journal.Options{FS: fs, Dir: dir, ID: ident.JournalID{Group: orders, Node: "a"}, Cluster: testCluster,
		ReceiverBytes: 64 << 10, RingBytes: 1 << 20, Host: host.Real(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// newRecallWorld makes a journal with so many detached receivers on one disk, and the feed's window on another.
func newRecallWorld(t testing.TB, detached int, window vfs.FS) *recallWorld {
	t.Helper()
	w := &recallWorld{t: t, fs: window, archive: newStacks(), whole: openFor(t, vfs.NewMem(), "whole")}
	if err := w.whole.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	w.write(detached)
	w.names = w.archive.save(t, w.whole)
	r := &Replica{o: Options{Cluster: testCluster, Group: orders, Archive: w.archive}, log: hclog.NewNullLogger()}
	w.feed = &feed{r: r, whole: w.whole, window: openFor(t, window, "window")}
	return w
}

// write fills so many receivers more, and begins one.
func (w *recallWorld) write(receivers int) {
	w.t.Helper()
	for k := range receivers + 1 {
		for range 3 {
			v, _ := w.whole.View()
			e := entry.Entry{Code: entry.Record, Type: entry.Put, File: "f", Key: []byte("k"), After: &entry.Image{Value: make([]byte, 900)}}
			if _, err := w.whole.Deposit(journal.Draft{Entries: []entry.Entry{e}, Session: 1, FactEpoch: 1, Before: v.After}); err != nil {
				w.t.Fatal(err)
			}
		}
		if k < receivers {
			if _, err := w.whole.ChangeReceiver(1); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	v, _ := w.whole.View()
	if err := w.whole.WaitDurable(w.t.Context(), v.Last); err != nil {
		w.t.Fatal(err)
	}
}

// gone deletes all detached receivers of the whole journal.
func (w *recallWorld) gone() {
	w.t.Helper()
	all := w.whole.Receivers()
	if err := w.whole.DeleteReceivers(all[len(all)-2].Number); err != nil {
		w.t.Fatal(err)
	}
}

// numbers lists what the window holds.
func (w *recallWorld) numbers() (out []ident.ReceiverNumber) {
	for _, i := range w.feed.window.Receivers() {
		out = append(out, i.Number)
	}
	return out
}

// Proves HB-6, I9: what the window has got of the archive is on this disk before it counts. The disk does not sync any more once the
// receiver's bundles come; the one who waits gives up at its end.
func TestWhatIsReadBackIsDurable(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stuck, freed := make(chan struct{}), make(chan struct{})
	disk := vfs.NewCrashableMem()
	w := newRecallWorld(t, 2, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			select {
			case <-stuck:
				<-freed
			default:
			}
		}
		return nil
	})))
	if err := w.feed.append(ctx, w.names[0]); err != nil {
		t.Fatal(err)
	}
	if j := openFor(t, disk.CrashClone(vfs.CrashCloneCfg{}), "window"); true {
		if v, _ := j.View(); v.Last != w.names[0].Last {
			t.Fatalf("after a power cut the window ends at %s, not %s", v.Last, w.names[0].Last)
		}
	}
	w.archive.read = func(_ archive.Name, at int64, rest []byte) (error, bool) {
		if at == journal.HeaderSize {
			close(stuck)
		}
		if len(rest) == 0 {
			cancel() // every bundle was appended
		}
		return nil, false
	}
	err := w.feed.append(ctx, w.names[1])
	close(freed)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("it counts although the disk did not sync it: %v", err)
	}
	if w.archive.open != 0 {
		t.Fatalf("%d receivers are still open", w.archive.open)
	}
}

// Proves HB-6: a receiver out of the archive is appended whole or not at all as far as anybody is told: what is damaged, too short,
// another's, or cannot be read is said, with its name, and what was opened is closed.
func TestReadBackReceiverIsChecked(t *testing.T) {
	gone := errors.New("gone")
	damaged := func(err error) bool { var d *archive.DamagedError; return errors.As(err, &d) }
	for _, c := range []struct {
		name  string
		spoil func(w *recallWorld, n *archive.Name, cancel func())
		want  func(error) bool
	}{
		{"nothing", func(*recallWorld, *archive.Name, func()) {}, func(err error) bool { return err == nil }},
		{"not there", func(w *recallWorld, _ *archive.Name, _ func()) {
			w.archive.fetched = func(archive.Name) error { return gone }
		}, func(err error) bool { return errors.Is(err, gone) }},
		{"header", func(w *recallWorld, n *archive.Name, _ func()) { w.archive.content[*n][9] ^= 1 }, damaged},
		{"byte", func(w *recallWorld, n *archive.Name, _ func()) { w.archive.content[*n][journal.HeaderSize+100] ^= 1 }, damaged},
		{"short", func(w *recallWorld, n *archive.Name, _ func()) {
			b := w.archive.content[*n]
			h, err := entry.DecodeHeader(b[journal.HeaderSize:])
			if err != nil {
				w.t.Fatal(err)
			}
			w.archive.content[*n] = b[:journal.HeaderSize+h.Length]
		}, damaged},
		{"chain", func(w *recallWorld, n *archive.Name, _ func()) { w.rename(n, func(n *archive.Name) { n.Chain++ }) }, damaged},
		{"last", func(w *recallWorld, n *archive.Name, _ func()) { w.rename(n, func(n *archive.Name) { n.Last-- }) }, damaged},
		{"reading", func(w *recallWorld, _ *archive.Name, _ func()) {
			w.archive.read = func(_ archive.Name, at int64, _ []byte) (error, bool) { return gone, at > journal.HeaderSize }
		}, func(err error) bool { return damaged(err) && errors.Is(err, gone) }},
		{"closing", func(w *recallWorld, _ *archive.Name, _ func()) { w.archive.closing = gone }, func(err error) bool { return errors.Is(err, gone) }},
		{"over", func(w *recallWorld, _ *archive.Name, cancel func()) { cancel() }, func(err error) bool { return errors.Is(err, context.Canceled) }},
		{"journal fails", func(w *recallWorld, _ *archive.Name, _ func()) { _ = w.feed.window.Close() }, func(err error) bool { return err != nil && !damaged(err) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := newRecallWorld(t, 2, vfs.NewMem())
			n := w.names[0]
			c.spoil(w, &n, cancel)
			err := w.feed.append(ctx, n)
			if !c.want(err) {
				t.Fatalf("%v", err)
			}
			if w.archive.open != 0 {
				t.Fatalf("%d receivers are still open", w.archive.open)
			}
			receivers, size := w.feed.r.Recalled()
			if err == nil && (receivers != 1 || size != int64(len(w.archive.content[n]))) || err != nil && receivers != 0 && c.name != "closing" {
				t.Fatalf("counted: %d receivers, %d bytes (%v)", receivers, size, err)
			}
			if v, _ := w.feed.window.View(); err == nil && (v.Durable != n.Last || v.Confirmed != n.Last) {
				t.Fatalf("durable %s, with its author %s; the receiver ends at %s", v.Durable, v.Confirmed, n.Last)
			}
		})
	}
}

// rename files the receiver under another name.
func (w *recallWorld) rename(n *archive.Name, change func(*archive.Name)) {
	b := w.archive.content[*n]
	delete(w.archive.content, *n)
	change(n)
	w.archive.content[*n] = b
}

// Proves HB-6: of the window goes what the target has whole on its disk, and nothing else; who lacks more than may wait is waited for.
func TestRoomInTheWindow(t *testing.T) {
	over, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("ended")
	cancel(ended)
	for _, c := range []struct {
		receiver  int // of which the target has the last sequence, less
		less      ident.Sequence
		ahead     int
		left      []ident.ReceiverNumber
		waits     bool
		wokenUpBy int // receiver whose end lets it go on
	}{
		{0, 0, 5, []ident.ReceiverNumber{1, 2, 3, 4, 5}, false, 0},
		{0, 0, 4, []ident.ReceiverNumber{1, 2, 3, 4, 5}, true, 1},
		{1, 1, 4, []ident.ReceiverNumber{1, 2, 3, 4, 5}, true, 1},
		{1, 0, 4, []ident.ReceiverNumber{2, 3, 4, 5}, false, 0},
		{3, 1, 3, []ident.ReceiverNumber{3, 4, 5}, false, 0},
		{3, 0, 2, []ident.ReceiverNumber{4, 5}, false, 0},
		{3, 0, 1, []ident.ReceiverNumber{4, 5}, true, 4},
		{4, 0, 0, []ident.ReceiverNumber{5}, true, 5},
	} {
		w := newRecallWorld(t, 5, vfs.NewMem())
		for _, n := range w.names {
			if err := w.feed.append(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		if c.receiver > 0 {
			w.feed.acked.Store(uint64(w.names[c.receiver-1].Last - c.less))
		}
		err := w.feed.room(over, c.ahead)
		if c.waits != errors.Is(err, ended) || !c.waits && err != nil || !slices.Equal(w.numbers(), c.left) {
			t.Errorf("%+v: left %v, %v", c, w.numbers(), err)
		}
		if !c.waits {
			continue
		}
		went := make(chan error, 1)
		go func() { went <- w.feed.room(t.Context(), c.ahead) }()
		for i := max(0, c.receiver-1); i < c.wokenUpBy; i++ { // it may not have begun to wait yet: then it looks itself
			w.feed.acked.Store(uint64(w.names[i].Last))
			w.feed.moved.fire()
		}
		if err := <-went; err != nil {
			t.Errorf("%+v: after the target has got more: %v", c, err)
		}
	}
}

// Proves HB-6: the way from what a target needs to what is held here. Where two receivers of one number claim the place, the one
// that the next continues is taken, and that one's header is asked; what is missing is named.
func TestWayThroughTheArchive(t *testing.T) {
	numbers := func(way []archive.Name) (out []ident.ReceiverNumber) {
		for _, n := range way {
			out = append(out, n.Number)
		}
		return out
	}
	w := newRecallWorld(t, 5, vfs.NewMem())
	w.gone()
	_, end, _, ok := w.whole.RecallPoint()
	if !ok || end.Sequence != w.names[4].Last {
		t.Fatalf("held from %s", end.Sequence)
	}
	forked := w.names[2]
	forked.Chain++
	w.archive.put(forked, []byte("another's"))
	for _, c := range []struct {
		from ident.Sequence
		want []ident.ReceiverNumber
	}{
		{1, []ident.ReceiverNumber{1, 2, 3, 4, 5}}, {w.names[1].Last, []ident.ReceiverNumber{2, 3, 4, 5}}, {w.names[1].Last + 1, []ident.ReceiverNumber{3, 4, 5}},
		{end.Sequence, []ident.ReceiverNumber{5}}, {end.Sequence + 1, nil},
	} {
		way, err := w.feed.way(t.Context(), c.from)
		if err != nil || !slices.Equal(numbers(way), c.want) || slices.Contains(way, forked) {
			t.Errorf("from %s: %v %v, want %v", c.from, numbers(way), err, c.want)
		}
		if w.archive.open != 0 {
			t.Fatalf("%d receivers are still open", w.archive.open)
		}
	}
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		spoil func()
		heal  func()
		from  ident.Sequence
		want  func(error) bool
	}{
		"fetch":  {func() { w.archive.fetched = func(archive.Name) error { return gone } }, func() { w.archive.fetched = nil }, 1, func(err error) bool { return errors.Is(err, gone) }},
		"close":  {func() { w.archive.closing = gone }, func() { w.archive.closing = nil }, 1, func(err error) bool { return errors.Is(err, gone) }},
		"header": {func() { w.archive.content[w.names[3]][9] ^= 1 }, func() { w.archive.content[w.names[3]][9] ^= 1 }, 1, func(err error) bool { return err != nil }},
		"list":   {func() { w.archive.listing = gone }, func() { w.archive.listing = nil }, 1, func(err error) bool { return errors.Is(err, gone) }},
	} {
		c.spoil()
		if way, err := w.feed.way(t.Context(), c.from); !c.want(err) {
			t.Errorf("%s: %v %v", name, numbers(way), err)
		}
		c.heal()
	}
	w.archive.listing = gone
	if way, err := w.feed.way(t.Context(), end.Sequence+1); err != nil || way != nil {
		t.Errorf("nothing is needed, so nobody is asked: %v %v", numbers(way), err)
	}
	if err := w.feed.fill(t.Context(), nil); !errors.Is(err, gone) {
		t.Errorf("an archive that cannot be listed: %v", err)
	}
	w.archive.listing = nil
	if err := w.feed.append(t.Context(), w.names[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.feed.append(t.Context(), w.names[2]); err == nil || w.archive.open != 0 {
		t.Errorf("a receiver that does not continue the window: %v", err)
	}
	delete(w.archive.content, w.names[1])
	var missing *archive.MissingError
	if _, err := w.feed.way(t.Context(), 1); !errors.As(err, &missing) || missing.Number != 2 {
		t.Errorf("a gap: %v", err)
	}
	w.feed.whole = openFor(t, vfs.NewMem(), "empty")
	if way, err := w.feed.way(t.Context(), 1); err != nil || way != nil {
		t.Errorf("nothing is held: %v %v", numbers(way), err)
	}
}

// Proves HB-6, TR-4: a target may be any number of receivers behind, and this disk holds a few of them: nothing is fetched while more
// than two wait. What is archived and deleted here meanwhile follows, without a gap, and it ends when the target has it all.
func TestFillKeepsAFewReceivers(t *testing.T) {
	const behind, later = 8, 4
	w := newRecallWorld(t, behind, vfs.NewMem())
	w.gone()
	var order []ident.ReceiverNumber
	w.archive.fetched = func(n archive.Name) error {
		order = append(order, n.Number)
		acked := ident.Sequence(w.feed.acked.Load())
		waiting := 0
		for _, i := range w.feed.window.Receivers() {
			if i.Last > acked {
				waiting++
			}
		}
		if waiting > recallAhead {
			t.Errorf("receiver %s is fetched while %d wait", n.Number, waiting)
		}
		if held := w.feed.window.Receivers(); len(held) > recallAhead+1 {
			t.Errorf("receiver %s is fetched while the window has %d", n.Number, len(held))
		}
		if n.Number == behind {
			w.write(later)
			w.archive.save(t, w.whole)
			w.gone()
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var target sync.WaitGroup
	target.Go(func() { // the target: it has what the window has, a bundle at a time
		for ctx.Err() == nil {
			v, changed := w.feed.window.View()
			if acked := w.feed.acked.Load(); acked < uint64(v.Durable) {
				w.feed.acked.Store(acked + 1)
				w.feed.moved.fire()
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	way, err := w.feed.way(ctx, 1)
	if err == nil {
		err = w.feed.fill(ctx, way)
	}
	_, end, _, _ := w.whole.RecallPoint()
	v, _ := w.feed.window.View()
	if acked := ident.Sequence(w.feed.acked.Load()); err != nil || v.Last != end.Sequence || v.Chain != end.Chain || acked < v.Last {
		t.Errorf("the window ends at %s, the target at %s, held is from %s (%v)", v.Last, acked, end.Sequence+1, err)
	}
	cancel()
	target.Wait()
	if want := ident.ReceiverNumber(len(order)); want < behind+later || !slices.IsSortedFunc(order, cmp.Compare) || order[0] != 1 || order[len(order)-1] != want {
		t.Errorf("fetched %v", order)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := w.feed.fill(over, w.names); err != nil {
		t.Errorf("a session that is over is no failure of the archive: %v", err)
	}
	w.archive.fetched = func(archive.Name) error { return io.ErrClosedPipe }
	if err := w.feed.fill(t.Context(), w.names[:1]); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an archive that fails: %v", err)
	}
}

// Proves HB-6, TR-4, I7: for who is away receivers leave the disk only once they were read back from the archive. The one who comes
// back is fed what it lacks out of it, gets the same to the byte, and becomes level and a member as if nothing had ever left.
func TestFedFromTheArchive(t *testing.T) {
	s := newStacks()
	s.unread = true
	c := newClusterWith(t, "", s, fsm.GroupSpec{KeepReceivers: 1}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	a.mustPut("k", "before")
	c.level("b")
	c.renew("a", "b")
	c.nodes["b"].stop()
	c.inSync("a")
	for i := range 24 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat(string(rune('a'+i)), 20<<10))
	}
	own, _ := a.rep.Journal("a")
	names := s.save(t, own)
	if len(names) < 5 {
		t.Fatalf("only %d receivers", len(names))
	}
	c.renew("a")
	c.goesOn("a")
	if held := own.Receivers(); held[0].Number != names[0].Number {
		t.Fatalf("receiver %s left although nothing was read back from the archive", names[0].Number)
	}
	s.mu.Lock()
	s.unread = false
	s.mu.Unlock()
	c.eventually("what the archive has leaves the disk", func() bool { return len(own.Receivers()) == 2 })
	if s.open != 0 {
		t.Fatalf("%d receivers are open", s.open)
	}
	b := c.start("b")
	c.inSync("a", "b")
	c.level("b")
	end := own.Receivers()[0].First - 1
	if e, ok := a.event(EventRecalled); !ok || e.Journal != own.ID() || e.First != names[0].First || e.Last != end || e.Peer != "b" {
		t.Errorf("told: %+v %v", e, ok)
	}
	if receivers, size := a.rep.Recalled(); receivers < int64(len(names)-1) || size < 24*20<<10/2 {
		t.Errorf("counted: %d receivers, %d bytes", receivers, size)
	}
	copied, _ := b.rep.Journal("a")
	for _, n := range names {
		if chain, ok, err := copied.ChainAt(n.Last); !ok || err != nil || chain != n.Chain {
			t.Errorf("the copy has chain %s at %s, archived is %s (%v %v)", chain, n.Last, n.Chain, ok, err)
		}
	}
	c.eventually("what was read back is gone", func() bool {
		left, err := a.fs.List(a.fs.PathJoin("data", recallDir, string(orders), "b"))
		return err != nil || len(left) == 0
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != 0 {
		t.Errorf("%d receivers are still open", s.open)
	}
}

// mapped is a control plane that only knows an assignment.
type mapped struct {
	Control
	a fsm.Assignment
}

func (m mapped) Assignment() (fsm.Assignment, <-chan struct{}) { return m.a, nil }

// Proves HB-6: a session whose target needs more than is held ends, and the archive feeds the target from there, once. What could not
// help is not asked again for a while, and the status says why.
func TestWhoAsksTheArchive(t *testing.T) {
	w := newRecallWorld(t, 2, vfs.NewMem())
	w.gone()
	r := w.feed.r
	ts := &targets{p: &primary{r: r, control: mapped{}}}
	tg, s, ended := &target{node: "b"}, &shipment{author: "a"}, 0
	ask := ts.recaller(tg, s, w.whole)
	if err := ask(t.Context(), 5); err != nil || ts.takeRecall(s) != 5 || ts.takeRecall(s) != 0 {
		t.Fatalf("before the session can be ended: %v", err)
	}
	s.cancel = func() { ended++ }
	if err := ask(t.Context(), 6); err != nil || ended != 1 || ts.takeRecall(s) != 6 {
		t.Fatalf("%v, ended %d times", err, ended)
	}
	refused := func(why string, ask func(context.Context, ident.Sequence) error, from ident.Sequence) {
		t.Helper()
		if err := ask(t.Context(), from); !errors.Is(err, errNotRecalled) || ended != 1 || ts.takeRecall(s) != 0 {
			t.Errorf("%s: %v, ended %d times", why, err, ended)
		}
	}
	refused("an empty copy that may begin here", ask, 1)
	refused("a journal that holds nothing", ts.recaller(tg, s, openFor(t, vfs.NewMem(), "empty")), 5)
	changed := ts.changed.wait()
	ts.unfed(tg, s, errors.New("nobody answers"))
	select {
	case <-changed:
	default:
		t.Error("nobody hears that the archive did not help")
	}
	if tg.reason != "nobody answers" || !s.rest.After(time.Now()) {
		t.Errorf("reason %q, rest until %s", tg.reason, s.rest)
	}
	refused("while it rests", ask, 5)
	s.rest = time.Now().Add(-time.Second)
	if err := ask(t.Context(), 7); err != nil || ended != 2 || ts.takeRecall(s) != 7 {
		t.Errorf("after the rest: %v", err)
	}
	r.o.Archive = nil
	if ts.recaller(tg, s, w.whole) != nil {
		t.Error("an archive that is not there is asked")
	}
}

// Proves HB-6: how many detached receivers stay here although they are archived.
func TestWhatStaysBesideTheArchive(t *testing.T) {
	none, two := 0, 2
	w := newRecallWorld(t, 4, vfs.NewMem())
	for _, c := range []struct {
		archive     Archive
		local       *int
		keep        int // keep_receivers of the group
		stays, most int
	}{
		{nil, nil, 1, -1, 3}, {nil, &none, 1, -1, 3}, {nil, &none, -1, -1, 0}, // without an archive only the group's policy counts
		{w.archive, nil, 1, 1, 3}, {w.archive, nil, -1, -1, 0},
		{w.archive, &none, 1, 0, 4}, {w.archive, &none, -1, 0, 4}, {w.archive, &two, -1, 2, 2}, {w.archive, &two, 1, 2, 3},
	} {
		r := &Replica{o: Options{Archive: c.archive, KeepLocal: c.local}}
		g := &fsm.Group{Spec: fsm.GroupSpec{Name: orders, KeepReceivers: c.keep}}
		detached := w.whole.Receivers()[:4]
		if stays, most := r.keepLocal(g), r.most(g, detached, 1<<20); stays != c.stays || most != c.most {
			t.Errorf("%+v: %d stay, %d go", c, stays, most)
		}
	}
}
