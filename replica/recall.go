package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// Archive is where detached receivers are kept beside this node's disk. Its methods may be called from any goroutine.
type Archive interface {
	// Holds tells whether the receiver is archived and this life of the node has read it back. It waits for nothing.
	Holds(n archive.Name) bool
	// List returns what is archived of a journal.
	List(ctx context.Context, id ident.JournalID) ([]archive.Name, error)
	// Fetch opens an archived receiver; what it yields is not checked.
	Fetch(ctx context.Context, n archive.Name) (io.ReadCloser, error)
}

// recallDir is the directory in the data directory that holds what is read back for targets. It is emptied when the group is opened.
const recallDir = "recall"

const (
	recallAhead = 2                // receivers that wait for a target, beside the one that it takes
	recallRest  = 10 * time.Second // until the archive is asked again after it could not help
)

// recalls counts what was read back in this life.
type recalls struct{ receivers, bytes atomic.Int64 }

// Group returns the name of the group.
func (r *Replica) Group() ident.GroupName { return r.o.Group }

// Recalled tells how many receivers, and bytes of them, were read back from the archive for targets in this life.
func (r *Replica) Recalled() (receivers, bytes int64) {
	return r.recalls.receivers.Load(), r.recalls.bytes.Load()
}

// nameOf returns the name that a detached receiver has in the archive; ok is false when it is not held any more.
func nameOf(cluster ident.ClusterID, j *journal.Journal, i journal.ReceiverInfo) (archive.Name, bool) {
	chain, ok, err := j.ChainAt(i.Last)
	return archive.Name{Cluster: cluster, Journal: j.ID(), Number: i.Number, First: i.First, Last: i.Last, Chain: chain}, ok && err == nil
}

// ArchiveName returns the name that a detached receiver of a journal held here has in the archive. ok is false while it is not
// certain that its author has the same on its disk: what is not may still be replaced there.
func (r *Replica) ArchiveName(j *journal.Journal, i journal.ReceiverInfo) (name archive.Name, ok bool) {
	if v, _ := j.View(); i.Attached || i.Last > core.CopyEnd(v.Durable, v.Confirmed) {
		return archive.Name{}, false
	}
	return nameOf(r.o.Cluster, j, i)
}

// keepLocal returns how many detached receivers of a journal stay here although they are archived; -1: all.
func (r *Replica) keepLocal(g *fsm.Group) int {
	switch {
	case r.o.Archive == nil:
		return -1
	case r.o.KeepLocal != nil:
		return *r.o.KeepLocal
	}
	return g.Spec.KeepReceivers
}

// most returns how many of a journal's oldest detached receivers go at most. total is what the whole journal takes.
func (r *Replica) most(g *fsm.Group, detached []journal.ReceiverInfo, total int64) int {
	n := core.Surplus(g.Spec, sizes(detached), total)
	if local := r.keepLocal(g); local >= 0 {
		n = max(n, len(detached)-local)
	}
	return n
}

// spare returns how many of the receivers may go when only the archive has them for those who are away: at least n, at most most.
func (r *Replica) spare(a fsm.Assignment, j *journal.Journal, receivers []journal.ReceiverInfo, n, most int) int {
	c := r.control.Load()
	if c == nil || r.o.Archive == nil {
		return n
	}
	view, _ := j.View()
	for n < most {
		i := receivers[n]
		name, ok := nameOf(r.o.Cluster, j, i)
		if !ok || !core.Spare(a, j.ID().Node, r.data.Flushed(), view.First, (*c).Alive, view.Runs, i.First, i.Last) || !r.o.Archive.Holds(name) {
			break
		}
		n++
	}
	return n
}

// recaller returns what a session asks when its target needs what j does not hold any more; nil without an archive. When the
// archive may have it, the session is ended and the shipment goes on with a feed.
func (t *targets) recaller(tg *target, s *shipment, j *journal.Journal) func(context.Context, ident.Sequence) error {
	if t.p.r.o.Archive == nil {
		return nil
	}
	return func(_ context.Context, from ident.Sequence) error {
		a, _ := t.p.control.Assignment()
		_, _, start, ok := j.RecallPoint()
		if !ok || !core.RecallNeeded(a, tg.node, s.author, from, start) {
			return errNotRecalled
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if time.Now().Before(s.rest) {
			return errNotRecalled
		}
		s.recall = from
		if s.cancel != nil {
			s.cancel()
		}
		return nil
	}
}

var errNotRecalled = errors.New("the archive does not help")

// unfed notes that the archive could not help. The sessions say then what they say without one.
func (t *targets) unfed(tg *target, s *shipment, err error) {
	r := t.p.r
	r.log.Warn("a target cannot be fed from the archive", "peer", tg.node, "journal", s.author, "error", err)
	t.mu.Lock()
	s.rest = time.Now().Add(recallRest)
	tg.reason = err.Error()
	t.mu.Unlock()
	t.changed.fire()
}

// takeRecall returns from where the archive has to feed the target; 0: it needs not.
func (t *targets) takeRecall(s *shipment) ident.Sequence {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := s.recall
	s.recall = 0
	return from
}

// feed is what a target gets from the archive: a journal of its own, of which only the receivers around the target's end are
// there. New ones are appended at its end, and those that the target has on its disk are deleted, so that a target may be
// any number of receivers behind and this disk holds a few of them. To the target it is the journal itself: the same bytes.
type feed struct {
	r      *Replica
	tg     *target
	whole  *journal.Journal // what is held here
	window *journal.Journal
	acked  atomic.Uint64 // the target's durable end
	moved  pulse         // acked
}

// feed feeds a target from the archive until its copy reaches what is held here. It returns when that is so, when the target needs
// something earlier, or when ctx ends; an error says why the archive cannot help.
func (t *targets) feed(ctx context.Context, tg *target, s *shipment, from ident.Sequence) (err error) {
	r := t.p.r
	whole, _ := r.shelf.get(s.author)
	f := &feed{r: r, tg: tg, whole: whole}
	way, err := f.way(ctx, from)
	if err != nil || len(way) == 0 {
		return err
	}
	dir := r.o.FS.PathJoin(r.o.Dir, recallDir, string(r.o.Group), string(tg.node), string(s.author))
	if err := r.o.FS.RemoveAll(dir); err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	f.window, err = journal.Open(journal.Options{
		FS: r.o.FS, Dir: dir, ID: whole.ID(), Cluster: r.o.Cluster, ReceiverBytes: r.o.ReceiverBytes, RingBytes: 1 << 20, Host: r.o.Host, Logger: r.o.Logger,
	})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.window.Close(), r.o.FS.RemoveAll(dir))
	}()
	if err := f.append(ctx, way[0]); err != nil {
		return err
	}
	r.log.Info("a target is fed from the archive", "peer", tg.node, "journal", whole.ID(), "from", from, "receivers", len(way))
	r.event(Event{Kind: EventRecalled, Epoch: t.p.epoch, Journal: whole.ID(), First: way[0].First, Last: way[len(way)-1].Last, Peer: tg.node})

	session, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	s.cancel = cancel
	t.mu.Unlock()
	var filling sync.WaitGroup
	var filled error
	filling.Go(func() {
		filled = f.fill(session, way[1:])
		cancel()
	})
	err = remote.RunSource(session, t.sourceOptions(tg, s, f.window, func(o *remote.SourceOptions) {
		o.Author = false // it ends where the archive was read to, not where the author is
		heard := o.OnAck
		o.OnAck = func(a wire.Ack) {
			f.acked.Store(uint64(a.Durable))
			f.moved.fire()
			heard(a)
		}
		o.OnState = func(st remote.SessionState) {
			if st.Phase == remote.PhaseLive {
				st.Phase = remote.PhaseCatchup // level with the window is not level
			}
			t.stands(tg, s, st)
		}
	}))
	cancel()
	filling.Wait()
	return errors.Join(err, filled)
}

// way returns the receivers from the one with sequence from up to what is held here.
func (f *feed) way(ctx context.Context, from ident.Sequence) ([]archive.Name, error) {
	number, end, _, _ := f.whole.RecallPoint()
	if from > end.Sequence { // an empty journal has no end
		return nil, nil
	}
	names, err := f.r.o.Archive.List(ctx, f.whole.ID())
	if err != nil {
		return nil, err
	}
	return archive.Way(names, archive.Name{Journal: f.whole.ID(), Number: number, Last: end.Sequence, Chain: end.Chain}, from, func(n archive.Name) (ident.Chain, error) {
		in, err := f.r.o.Archive.Fetch(ctx, n)
		if err != nil {
			return 0, err
		}
		s, err := journal.NewStream(in)
		if err := errors.Join(err, in.Close()); err != nil {
			return 0, err
		}
		return s.Header().Chain, nil
	})
}

// fill appends one receiver after the other as the target takes them, until the target has all up to what is held here.
func (f *feed) fill(ctx context.Context, way []archive.Name) error {
	for {
		for _, n := range way {
			if err := f.room(ctx, recallAhead); err != nil {
				return nothingIfOver(ctx, err)
			}
			if err := f.append(ctx, n); err != nil {
				return nothingIfOver(ctx, err)
			}
		}
		v, _ := f.window.View()
		var err error
		if way, err = f.way(ctx, v.Last+1); err != nil { // what was held may have gone to the archive meanwhile
			return nothingIfOver(ctx, err)
		}
		if len(way) == 0 {
			return nothingIfOver(ctx, f.room(ctx, 0))
		}
	}
}

// room deletes what the target has on its disk, and waits until it lacks at most ahead receivers.
func (f *feed) room(ctx context.Context, ahead int) error {
	for {
		moved := f.moved.wait()
		acked := ident.Sequence(f.acked.Load())
		lacks := 0
		var passed ident.ReceiverNumber
		for _, i := range f.window.Receivers() {
			if i.Last > acked {
				lacks++
			} else {
				passed = i.Number
			}
		}
		if passed > 0 {
			if err := f.window.DeleteReceivers(passed); err != nil {
				return err
			}
		}
		if lacks <= ahead {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// append fetches a receiver and appends it to the window, which checks every byte.
func (f *feed) append(ctx context.Context, n archive.Name) (err error) {
	in, err := f.r.o.Archive.Fetch(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	s, err := journal.NewStream(in)
	if err != nil {
		return &archive.DamagedError{Name: n, Err: err}
	}
	if err := f.window.BeginReceiver(s.Raw()); err != nil {
		return err
	}
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return &archive.DamagedError{Name: n, Err: err}
		}
		if _, err := f.window.AppendRaw(b.Raw); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if s.Last() != n.Last || s.Chain() != n.Chain {
		return &archive.DamagedError{Name: n, Err: fmt.Errorf("it ends at sequence %s with chain %s", s.Last(), s.Chain())}
	}
	f.window.Mark(n.Last, 0) // what was archived is on its author's disk
	f.r.recalls.receivers.Add(1)
	f.r.recalls.bytes.Add(s.Bytes())
	return f.window.WaitDurable(ctx, n.Last)
}
