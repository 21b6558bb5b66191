package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// Replica is one group's copy on this node: its journals, its part of the store, and the role session that runs.
type Replica struct {
	o    Options
	log  hclog.Logger
	data *store.Group

	gate       gate // what was promised, and the last gate of everything that changes a journal
	promised   promiseFile
	unpromised bool // a promise waits for space on the disk, and that was told; whoever is alone in the gate has it
	shelf      *shelf
	visitors   visitors // shipping sessions that other nodes have here
	sources    sources  // who fed this copy last
	feeding    feeding  // what this backup feeds others
	known      known    // what this life knows to be committed
	fresh      freshness
	undos      undoLog // what was undone in this life
	retreat    retreat // how far the store could be taken back
	moved      pulse   // the store's position, or what is held, changed
	ships      atomic.Uint64
	recalls    recalls
	replays    atomic.Pointer[journal.Journal] // opened by the first role session that needs it

	control atomic.Pointer[Control]
	roles   chan struct{} // one token: at most one role session at a time
	primary atomic.Pointer[primary]
	turn    turn
	server  server
	picture picture // what Status shows of the session
	rooms   rooms
	permits permits
	handing sync.WaitGroup // queues of sessions whose role was handed over
	closing sync.Once
	closed  atomic.Bool
	retired atomic.Bool // the group was deleted: nothing is promised any more
	err     error       // of Close
}

// turn is what primary sessions of this life leave to the next one. Whoever has the role token uses it.
type turn struct {
	conducted ident.Epoch // newest epoch in which a session proposed changes of the set or a Handover, or could have
	attached  ident.Epoch // newest epoch for which a takeover attached a receiver to the local journal
}

// Open opens every journal of the group found on disk, which recovers them, and deposits J IN in the local journal when
// there is one. What it holds is applied and served once a role session runs.
func Open(o Options) (*Replica, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	r := &Replica{o: o, log: o.Logger.With("group", o.Group, "node", o.Node), roles: make(chan struct{}, 1)}
	r.data = o.Store.Group(o.Group)
	r.shelf = newShelf(&r.o)
	r.promised = promiseFile{fs: o.FS, dir: o.FS.PathJoin(o.Dir, promisesDir), name: string(o.Group)}
	if err := r.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open group %s: %w", o.Group, err), r.shelf.close())
	}
	r.recoverReplays()
	return r, nil
}

func (r *Replica) recover() error {
	e, err := r.promised.load()
	if err != nil {
		return err
	}
	r.gate.promised.Store(uint64(e))
	if err := r.o.FS.RemoveAll(r.o.FS.PathJoin(r.o.Dir, recallDir, string(r.o.Group))); err != nil {
		return fmt.Errorf("remove what was read back from the archive: %w", err)
	}
	if err := r.shelf.load(); err != nil {
		return err
	}
	if len(r.shelf.all()) > 0 {
		r.server.recovers()
	}
	own, ok := r.shelf.get(r.o.Node)
	if !ok {
		return nil
	}
	v, _ := own.View()
	if v.Last == 0 {
		return nil
	}
	h, err := own.Deposit(journal.Draft{
		Entries: []entry.Entry{{Code: entry.Journal, Type: entry.IPL}}, Session: e, Before: v.After, Flags: entry.FlagLocal,
	})
	if errors.Is(err, journal.ErrFull) { // what is held can be served and shipped all the same
		r.log.Error("no J IN deposited: free space in the data directory", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("deposit J IN: %w", err)
	}
	r.log.Info("local journal recovered", "end", v.Last, "history", v.After, "torn", v.Torn, "ipl", h.First, "store", r.data.Position())
	return nil
}

// Close ends everything and closes the journals. Role sessions and shipping sessions must have ended; it is idempotent.
func (r *Replica) Close() error {
	r.closing.Do(func() {
		r.closed.Store(true)
		r.roles <- struct{}{} // waits for the role session, for good
		r.permits.work.Wait() // its context is the session's
		r.handing.Wait()      // not for long
		r.err = r.shelf.close()
		if j := r.replays.Load(); j != nil {
			r.err = errors.Join(r.err, j.Close())
		}
	})
	return r.err
}

// Attach tells the replica where the control plane is. Sessions of other nodes are admitted from then on. Role sessions
// attach theirs by themselves.
func (r *Replica) Attach(c Control) { r.control.Store(&c) }

// Journals returns the journals held, ordered by author.
func (r *Replica) Journals() []*journal.Journal { return r.shelf.all() }

// Journal returns the journal that node wrote, if it is held here; for Replays the one of what was replayed here.
func (r *Replica) Journal(node ident.NodeID) (*journal.Journal, bool) {
	if node == Replays {
		j := r.replays.Load()
		return j, j != nil
	}
	return r.shelf.get(node)
}

// Digest reads the whole content of this node's copy at one position.
func (r *Replica) Digest(ctx context.Context) (store.Digest, error) { return r.data.Digest(ctx) }

// begin takes the role token for a session and attaches its control plane.
func (r *Replica) begin(ctx context.Context, c Control) (end func(), err error) {
	select {
	case r.roles <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if r.closed.Load() {
		<-r.roles
		return nil, ErrClosed
	}
	r.Attach(c)
	a, _ := c.Assignment()
	r.bound(a)
	return func() { <-r.roles }, nil
}

// assignment returns the present state of the group and a channel closed at its next change. Group is nil when no control
// plane is attached or it does not know the group.
func (r *Replica) assignment() (fsm.Assignment, <-chan struct{}) {
	c := r.control.Load()
	if c == nil {
		return fsm.Assignment{Self: r.o.Node, Life: r.o.Life}, nil
	}
	return (*c).Assignment()
}

// table returns the history as this node knows it.
func (r *Replica) table() ident.HistoryTable {
	if a, _ := r.assignment(); a.Group != nil {
		return a.Group.History
	}
	return nil
}

func (r *Replica) event(e Event) {
	e.Time, e.Node, e.Group = r.o.Host.Clock.Now(), r.o.Node, r.o.Group
	r.o.Events(e)
}

// own returns the local journal and makes it when it is missing.
func (r *Replica) own() (*journal.Journal, error) { return r.shelf.open(r.o.Node) }

// storeFailed makes an error of the store fatal, except a position that was not as assumed.
func storeFailed(err error) error {
	var position *store.PositionError
	if err == nil || errors.As(err, &position) {
		return err
	}
	return &FatalError{Part: "the store", Err: err}
}

// journalFailed makes an error of a journal fatal when the journal does not work any more. One that is rotten somewhere works: the
// session ends, and goes well again once the place was repaired from another node's copy.
func journalFailed(j interface {
	ID() ident.JournalID
	View() (journal.View, <-chan struct{})
}, err error) error {
	if err == nil {
		return nil
	}
	if v, _ := j.View(); v.Err != nil {
		return &FatalError{Part: "journal " + j.ID().String(), Err: v.Err}
	}
	return fmt.Errorf("journal %s: %w", j.ID(), err)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
