package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// primary is one primary session: one epoch, in the life of the node that was promoted for it.
type primary struct {
	r       *Replica
	control Control
	epoch   ident.Epoch
	own     *journal.Journal
	sw      located // of this epoch, once it is deposited

	began, recovered time.Time // of the takeover, for the steps of its operation

	queue   *queue
	flights flights
	overlay overlay
	expirer expirer
	targets *targets
	conduct conductor

	seals  host.Turn   // held while a bundle is sealed
	held   bool        // under seals: no bundle is sealed
	paused atomic.Bool // on_no_sync hold, and no in-sync secondary is well
	refuse atomic.Bool // on_no_sync refuse, and no in-sync secondary is well
	writes atomic.Pointer[core.Writes]
	doubt  atomic.Bool // a member of the set is away or makes no progress: it may be taken out

	serving    atomic.Bool  // opened, and the store has reached SW
	sequences  atomic.Bool  // writes may be sequenced, at the latest when it serves
	stopped    atomic.Bool  // reads wait: a handover is proposed
	owed       atomic.Int64 // committed, and not answered yet
	entryBytes atomic.Int64 // size of an entry of the newest bundle
	newest     atomic.Int64 // time of the newest bundle, unix nanoseconds
	turned     pulse        // serving, stopped, held, paused or refuse changed
	landed     pulse        // something was committed or answered
	cramped    pulse        // the journal refused something for want of room
	stop       context.CancelCauseFunc
}

// RunPrimary plays the primary for the epoch that the group has promoted this life for, or handed over to it: takeover and
// Open, or SW after a Handover; then it serves until the epoch, the primary or the life changes, or ctx ends, and returns
// nil. An error says why it could not go on; a *FatalError means that this life of the node cannot. An epoch is conducted
// by one session only: called again for it, RunPrimary has the group fenced.
func (r *Replica) RunPrimary(ctx context.Context, c Control) error {
	end, err := r.begin(ctx, c)
	if err != nil {
		return nothingIfOver(ctx, err)
	}
	defer end()
	a, _ := c.Assignment()
	if a.Group == nil || a.Group.Primary != a.Self || a.Group.Phase == fsm.PhaseFenced {
		return nil
	}
	if a.Group.Incarnation != a.Life {
		return fmt.Errorf("epoch %s of group %s belongs to another life of this node: it waits for the next fence", a.Group.Epoch, r.o.Group)
	}
	if r.turn.conducted >= a.Group.Epoch {
		return nothingIfOver(ctx, r.giveBack(ctx, c, a.Group.Epoch))
	}
	session, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p := &primary{seals: host.NewTurn(), r: r, control: c, epoch: a.Group.Epoch, queue: &queue{max: r.o.QueueBytes}, stop: stop, began: r.o.Host.Clock.Now()}
	p.targets = newTargets(p)
	p.conduct.p, p.expirer.p = p, p
	p.doubt.Store(true) // until the conductor has looked: writes may be sequenced before the set has answered anything
	r.picture.begin(RolePrimary, p.epoch)
	r.primary.Store(p)
	err = p.run(session)
	r.primary.Store(nil)
	p.serving.Store(false)
	p.turned.fire()
	p.handOn()
	if cause := context.Cause(session); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	if errors.Is(err, errRoleOver) || errors.Is(err, context.Canceled) {
		err = nil
	}
	err = nothingIfOver(ctx, err)
	r.picture.end(err)
	return err
}

// giveBack has the group fenced at an epoch that an earlier session of this life conducted, and returns once its own state
// shows that the epoch is over. What that session proposed may still be applied, any time: nothing is answered before the
// fence, and after it that is refused.
func (r *Replica) giveBack(ctx context.Context, c Control, e ident.Epoch) error {
	why := "its session as primary ended"
	if s := r.picture.session.Load(); s != nil && s.err != "" {
		why += ": " + s.err
	}
	r.log.Warn("giving the epoch back", "epoch", e, "reason", why)
	for {
		a, changed := c.Assignment()
		if a.Group == nil || a.Group.Epoch != e {
			return nil
		}
		f := fsm.Fence{Group: r.o.Group, Epoch: e, Force: true, Automatic: true, Reason: fmt.Sprintf("node %s gives epoch %s back: %s", a.Self, e, why)}
		if a.Group.Spec.AutoFailover == fsm.FailoverOff || a.Pause != nil {
			f.To = a.Self // the role may not move by itself
		}
		limited, cancel := context.WithTimeout(ctx, r.o.Timing.Propose)
		res, err := c.Propose(limited, fsm.Command{Fence: &f})
		cancel()
		if err != nil || res.Refused != "" {
			r.log.Debug("proposed a fence, not applied or outcome unknown", "epoch", e, "refused", res.Refused, "detail", res.Detail, "error", err)
		}
		if res.Refused != "" {
			changed = nil // a refusal is a change of the state, too: not a reason to ask again at once
		}
		if err := waitAny(ctx, r.o.Timing.Tick, changed, nil); err != nil {
			return err
		}
	}
}

// errRoleOver ends a session whose epoch, primary or life is not the group's any more.
var errRoleOver = errors.New("the primary role is over")

// mine tells whether the group still belongs to this session.
func (p *primary) mine(a fsm.Assignment) bool {
	return core.Mine(a.Group, p.epoch, a.Self, a.Life)
}

// fail ends the session.
func (p *primary) fail(err error) { p.stop(err) }

// run establishes the epoch and serves it.
func (p *primary) run(ctx context.Context) (err error) {
	parts := &parts{stop: p.stop}
	c := &committer{p: p}
	defer func() {
		p.stop(err)
		parts.wait()
		c.giveUp()
	}()
	parts.start(ctx, p.watch)
	if p.own, err = p.r.own(); err != nil {
		return err
	}
	// After a Handover everything before SW is decided, so sessions are made while this node promises and deposits SW. A takeover first
	// makes up its journal.
	a, _ := p.control.Assignment()
	early := p.mine(a) && core.BeginningOf(a.Group, false) == core.HandedRole
	if early {
		parts.start(ctx, p.targets.run)
	}
	if err := p.r.promise(ctx, p.epoch, nil); err != nil {
		return err
	}
	if err := p.establish(ctx); err != nil {
		return err
	}
	p.recovered = p.r.o.Host.Clock.Now()
	if !early {
		parts.start(ctx, p.targets.run)
	}
	if a, err = p.openedState(ctx); err != nil {
		return err
	}
	if err := p.reachSwitch(ctx, a.Group, c); err != nil {
		return err
	}
	p.r.turn.conducted = p.epoch // from here on proposals may outlive this session
	p.learnTime()
	parts.start(ctx, c.run)
	parts.start(ctx, p.conduct.run)
	parts.start(ctx, p.janitor)
	view, _ := p.own.View()
	// Writes may follow SW while that is on its way to the members: they are committed after it. Where an earlier session left something
	// behind SW, the store does not have yet what they are sequenced by.
	ahead := core.SequencesAhead(a.Group) && view.Last == p.sw.Last()
	if ahead {
		p.sequence(ctx, parts)
	}
	if err := p.awaitLanded(ctx, view.After); err != nil {
		return err
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	if !ahead {
		p.sequence(ctx, parts)
	}
	parts.start(ctx, p.expirer.run)
	if err := p.settleCopies(); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// settleCopies makes every journal but the local one INACTIVE. Nobody waits for that: writes are served meanwhile.
func (p *primary) settleCopies() error {
	for _, j := range p.r.shelf.all() {
		if j != p.own {
			if err := setState(j, journal.Inactive); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts are the goroutines of a session. The first that fails ends the others.
type parts struct {
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
}

func (s *parts) start(ctx context.Context, run func(context.Context) error) {
	s.wg.Go(func() {
		if err := run(ctx); err != nil {
			s.stop(err)
		}
	})
}

func (s *parts) wait() { s.wg.Wait() }

// watch ends the session when the group belongs to somebody else.
func (p *primary) watch(ctx context.Context) error {
	for {
		a, changed := p.control.Assignment()
		if !p.mine(a) {
			return errRoleOver
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// reachSwitch brings the store into the history and up to where this epoch begins, and puts into flight what follows.
func (p *primary) reachSwitch(ctx context.Context, g *fsm.Group, c *committer) error {
	r := p.r
	if err := r.reconcile(ctx, g); err != nil {
		return err
	}
	row, ok := g.History.Row(p.epoch)
	if !ok || row.SW != p.sw.Fact.History {
		return fmt.Errorf("epoch %s has its row at %s, not at %s", p.epoch, row.SW, p.sw.Fact.History)
	}
	a := applier{r: r}
	defer a.close()
	for idle := 0; r.data.Position().History < p.sw.Before.History; idle++ {
		moved, err := a.run(ctx, g.History, p.sw.Before)
		if err != nil {
			return err
		}
		if moved {
			idle = 0
			continue
		}
		if err := errors.Join(r.shelf.failed(), pause(ctx, time.Millisecond)); err != nil {
			return err
		}
		if idle > 1000 { // everything is durable, so this is a hole
			return fmt.Errorf("%w: nothing here continues %s below SW %s", ErrNeedsPriming, r.data.Position(), p.sw.Fact)
		}
	}
	floor, err := core.CommitFloor(g, p.epoch, p.sw.Before, p.sw.After())
	if err != nil {
		return err
	}
	c.floor = floor
	return p.refly(ctx)
}

// refly puts SW and all that follows it in the local journal into flight, as far as the store does not have it. After SW
// there is something only when an earlier session of the same life had this epoch.
func (p *primary) refly(ctx context.Context) error {
	view, _ := p.own.View()
	at := p.r.data.Position()
	for seq := p.sw.First; seq <= view.Last && ctx.Err() == nil; {
		b, err := p.own.BundleAt(seq)
		if err != nil {
			return journalFailed(p.own, err)
		}
		if b.Facts > 0 && b.After().History > at.History {
			f, err := flightOf(b)
			if err != nil {
				return err
			}
			p.flights.push(f)
		}
		seq = b.Last() + 1
	}
	return ctx.Err()
}

// sequence lets writes be sequenced.
func (p *primary) sequence(ctx context.Context, parts *parts) {
	p.sequences.Store(true)
	parts.start(ctx, (&sequencer{p: p, overlay: &p.overlay}).run)
}

// awaitLanded waits until everything up to end is committed and in the store.
func (p *primary) awaitLanded(ctx context.Context, end ident.Position) error {
	for {
		landed := p.landed.wait()
		if p.r.data.Position().History >= end.History {
			return nil
		}
		select {
		case <-landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// serve opens the gates: the state shows the epoch opened and the store has reached SW. The lease is checked at each reply.
func (p *primary) serve(ctx context.Context) error {
	r := p.r
	r.picture.reconciled.Store(true)
	r.picture.resync.Store(nil)
	r.picture.needsPriming.Store(nil)
	p.serving.Store(true)
	p.turned.fire()
	r.log.Info("serving as primary", "epoch", p.epoch, "sw", p.sw.Fact, "seq", p.sw.First)
	r.tellPrimary(p)
	return ctx.Err()
}

// janitor trims copies, deletes receivers that nobody needs, changes one that is old, and makes room in a full journal.
func (p *primary) janitor(ctx context.Context) error {
	tick := time.NewTicker(p.r.o.Timing.Retention)
	defer tick.Stop()
	for {
		a, changed := p.control.Assignment()
		cramped := p.cramped.wait()
		if p.mine(a) {
			p.r.bound(a)
			if err := p.r.trim(ctx, a.Group); err != nil {
				return err
			}
			if err := p.r.retain(ctx, a); err != nil {
				return err
			}
			if err := p.age(); err != nil {
				return err
			}
			p.r.survey()
			if err := p.r.tendReplays(a); err != nil {
				return err
			}
			if why := p.squeeze(ctx, a); why != "" {
				p.r.log.Debug("the journal is full and nobody is dropped", "journal", p.own.ID(), "reason", why)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-cramped:
		case <-tick.C:
		}
	}
}

// admits tells whether bundles may be sealed now.
func (p *primary) admits() bool {
	return p.sequences.Load() && !p.paused.Load() && !p.refuse.Load() && !p.stopped.Load()
}

// sealing keeps hold away while a bundle is sealed; false when writes are held.
func (p *primary) sealing() (leave func(), ok bool) {
	p.seals.Lock()
	if p.held {
		p.seals.Unlock()
		return nil, false
	}
	return p.seals.Unlock, true
}

// hold makes writes wait. On return none is being sealed.
func (p *primary) hold(on bool) {
	p.seals.Lock()
	p.held = on
	p.seals.Unlock()
	p.r.picture.held.Store(on)
	p.turned.fire()
}

// decline answers requests that were taken but not sequenced.
func (p *primary) decline(taken []*request, why error) {
	for _, r := range taken {
		r.position = ident.Position{}
		close(r.sequenced)
		p.queue.answer(r, outcome{err: why})
	}
}

// dropped answers requests that were taken but not sequenced, and returns what ends the session.
func (p *primary) dropped(taken []*request, err error) error {
	p.decline(taken, ErrNotPrimary)
	return err
}

// lost answers requests whose bundle may have been deposited although an error was returned.
func (p *primary) lost(taken []*request, err error) error {
	for _, r := range taken {
		close(r.sequenced)
		p.unanswered(r)
	}
	return err
}

// unanswered ends a sequenced request that cannot be confirmed any more.
func (p *primary) unanswered(r *request) {
	if r.refused != nil || r.position.IsZero() {
		p.queue.answer(r, outcome{err: ErrNotPrimary}) // nothing of it was sequenced
		return
	}
	p.queue.answer(r, outcome{err: &UnknownOutcomeError{Position: r.position, Reason: ErrNotPrimary}})
}

// Write makes a transaction happen. It waits while a switch-over holds writes or the primary is not ready yet. Errors that
// match ErrNotPrimary, ErrNotSequenced, ErrNoSync, ErrCondition, ErrKeyReused, ErrInvalid, ErrTooLarge, ErrJournalFull or ErrQueueFull, or
// are a *ProgramError, mean that it was not done; *UnknownOutcomeError means that it may have been.
func (r *Replica) Write(ctx context.Context, t Transaction) (Receipt, error) {
	if err := t.validate(); err != nil {
		return Receipt{}, err
	}
	q := newRequest(t.size())
	q.writes, q.conditions, q.program, q.once = t.Writes, t.Conditions, t.Program, t.Once
	return r.submit(ctx, q)
}

// Deposit deposits a user entry, U typ, with the given payload. Errors are those of Write.
func (r *Replica) Deposit(ctx context.Context, typ entry.Type, data []byte) (Receipt, error) {
	return r.DepositOnce(ctx, typ, data, nil)
}

// DepositOnce is Deposit for a request that is done once; nil: a repeated one is done again.
func (r *Replica) DepositOnce(ctx context.Context, typ entry.Type, data []byte, once *Once) (Receipt, error) {
	if once != nil {
		if err := once.validate(); err != nil {
			return Receipt{}, err
		}
	}
	switch {
	case typ == entry.Switch || typ == (entry.Type{}):
		return Receipt{}, fmt.Errorf("%w: an entry of type %q is not for applications", ErrInvalid, typ.String())
	case len(data) > entry.MaxValue:
		return Receipt{}, fmt.Errorf("%w: payload of %d bytes, at most %d", ErrTooLarge, len(data), entry.MaxValue)
	}
	size := int64(len(data)) + 128
	if once != nil {
		size += once.size(0)
	}
	q := newRequest(size)
	q.user, q.once = &entry.Entry{Code: entry.User, Type: typ, Data: data}, once
	return r.submit(ctx, q)
}

func (r *Replica) submit(ctx context.Context, q *request) (Receipt, error) {
	p := r.primary.Load()
	if p == nil {
		return Receipt{}, ErrNotPrimary
	}
	return p.submit(ctx, q)
}

func (p *primary) submit(ctx context.Context, q *request) (Receipt, error) {
	if p.refuse.Load() {
		return Receipt{}, ErrNoSync
	}
	if err := p.queue.push(ctx, q); err != nil {
		return Receipt{}, err
	}
	receipt, err := p.queue.await(ctx, q)
	if receipt.Replayed {
		p.r.find(&receipt)
	}
	return receipt, err
}

// ChangeReceiver attaches a new receiver to the local journal of the serving primary.
func (r *Replica) ChangeReceiver(ctx context.Context) (journal.ReceiverInfo, error) {
	p := r.primary.Load()
	if p == nil || !p.serving.Load() {
		return journal.ReceiverInfo{}, ErrNotPrimary
	}
	leave, err := r.gate.enter(p.epoch)
	if err != nil {
		return journal.ReceiverInfo{}, errors.Join(ErrNotPrimary, err)
	}
	defer leave()
	info, err := p.own.ChangeReceiver(p.epoch)
	if errors.Is(err, journal.ErrFull) {
		return info, fmt.Errorf("%w: %w", ErrJournalFull, err)
	}
	if err != nil {
		return info, journalFailed(p.own, err)
	}
	r.event(Event{Kind: EventReceiver, Epoch: p.epoch, Journal: p.own.ID(), First: info.First})
	return info, ctx.Err()
}
