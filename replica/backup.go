package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// backup is one backup session: it follows whoever is primary. It lasts across epochs.
type backup struct {
	r       *Replica
	control Control
	applier applier

	prepared  uint64         // switch-over for which a receiver was attached
	aside     uint64         // switch-over to another node for which a file was made
	level     ident.Position // of that switch-over: applied up to here means no lag
	owes      ident.Epoch    // opened epoch whose report still lacks the entries that live on
	retention time.Time      // when receivers were looked at last
	started   time.Time
	from      ident.Position // where the store was when this node fell behind
	recovered bool           // it was level since
	feeder    *feeder        // what it ships to other backups
	epoch     ident.Epoch    // seen last
	seen      time.Time      // when it began here
	ahead     ahead          // what it brings the primary while a switch-over is prepared
}

// beginsWithin is how long a backup leaves its disk alone after a change of the primary.
const beginsWithin = 250 * time.Millisecond

// RunBackup follows the primary: it brings the store back into the history, applies what is committed and durable here,
// trims copies, and prepares for a planned switch-over to this node. It returns nil when ctx ends, else why it cannot go on;
// a *FatalError means that this life of the node cannot.
func (r *Replica) RunBackup(ctx context.Context, c Control) error {
	end, err := r.begin(ctx, c)
	if err != nil {
		return nothingIfOver(ctx, err)
	}
	defer end()
	b := &backup{r: r, control: c, applier: applier{r: r}, started: time.Now(), from: r.data.Position()}
	defer b.applier.close()
	b.feeder = newFeeder(r, c)
	defer b.feeder.close()
	b.ahead.r, b.ahead.control = r, c
	defer b.ahead.end()
	r.picture.begin(RoleBackup, 0)
	r.server.backsUp()
	err = b.run(ctx)
	r.picture.end(nothingIfOver(ctx, err))
	return nothingIfOver(ctx, err)
}

// nothingIfOver drops the error that only says that ctx ended.
func nothingIfOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		var fatal *FatalError
		if errors.As(err, &fatal) {
			return err
		}
		return nil
	}
	return err
}

func (b *backup) run(ctx context.Context) error {
	tick := time.NewTicker(b.r.o.Timing.Tick)
	defer tick.Stop()
	for {
		a, assigned := b.control.Assignment()
		learned, moved, brought := b.r.known.changed.wait(), b.followed(a.Group), b.ahead.changed.wait()
		if a.Group != nil {
			if err := b.pass(ctx, a); err != nil {
				return err
			}
		}
		b.r.moved.fire() // what is held may have changed with any journal
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-assigned:
		case <-learned:
		case <-moved:
		case <-brought:
		case <-tick.C:
		}
	}
}

// followed returns a channel closed when the primary's journal changes.
func (b *backup) followed(g *fsm.Group) <-chan struct{} {
	if g == nil {
		return nil
	}
	j, ok := b.r.shelf.get(g.OpenNode)
	if !ok {
		return nil
	}
	_, changed := j.View()
	return changed
}

// pass does once whatever there is to do. Every step is safe to repeat.
func (b *backup) pass(ctx context.Context, a fsm.Assignment) error {
	r, g := b.r, a.Group
	r.bound(a)
	if err := r.shelf.failed(); err != nil {
		return err
	}
	if !core.ShipsAhead(g, a.Self, b.ahead.op, false) {
		b.ahead.end()
	}
	if core.OwesPromise(g, r.gate.epoch()) { // before the new primary's session asks for it
		var fenced *FencedError // a newer epoch was promised meanwhile
		var room *PromiseRoomError
		switch err := r.promise(ctx, g.Epoch, nil); {
		case errors.As(err, &room): // what nobody needs here goes all the same: who else makes room on this disk
			return errors.Join(err, r.retain(ctx, a))
		case err != nil && !errors.As(err, &fenced):
			return err
		}
	}
	for _, j := range r.shelf.all() {
		if v := r.visitors.from(j.ID().Node); v != nil {
			v.learn(g)
		}
	}
	if err := r.reconcile(ctx, g); err != nil {
		return b.needsPriming(err)
	}
	if g.History.Contains(r.data.Position()) {
		if err := b.follow(ctx, a); err != nil {
			return err
		}
	}
	if err := r.setAside(g, &b.aside); err != nil {
		return err
	}
	b.strand(g)
	b.show(a)
	b.feeder.look(ctx, a, b.recovered)
	pause := r.o.Timing.Retention
	if r.tight(g.Spec) { // the primary deletes and goes on: its copy here must not be full before this node has deleted, too
		pause = r.o.Timing.Tick
	}
	if time.Since(b.retention) >= pause {
		b.retention = time.Now()
		r.survey()
		if err := r.tendReplays(a); err != nil {
			return err
		}
		return r.retain(ctx, a)
	}
	return nil
}

// follow applies, and does what a reconciled backup does.
func (b *backup) follow(ctx context.Context, a fsm.Assignment) error {
	r, g := b.r, a.Group
	r.picture.reconciled.Store(true)
	if b.applier.echo != nil != g.Spec.JournalReplays {
		b.applier.echo = nil
		if g.Spec.JournalReplays {
			j, err := r.openReplays()
			if err != nil { // it is no reason to stop following
				r.event(Event{Kind: EventNotRecorded, Position: r.data.Position(), Detail: err.Error()})
			}
			b.applier.echo = &echo{r: r, j: j}
		}
	}
	if b.applier.echo != nil {
		b.applier.echo.spec = &g.Spec
	}
	limit := core.ApplyLimit(r.known.committed(g.History), func() ident.Position {
		return core.NewGrove(g.History, r.data.Position(), r.shelf.runs(true)...).Best()
	})
	if _, err := b.applier.run(ctx, g.History, limit); err != nil && !errors.Is(err, errLeftHistory) {
		return b.needsPriming(err)
	}
	if g.Phase != fsm.PhaseOpened || g.Primary == a.Self || !b.underWay(g) {
		return nil // not decided; or decided for another life of this node, which a fence has to end first
	}
	ended, err := r.settleLocal(ctx, g)
	if err != nil {
		return err
	}
	if ended {
		b.owes = g.OpenEpoch
	}
	if err := b.completeReport(ctx, g); err != nil {
		return err
	}
	if err := r.trim(ctx, g); err != nil {
		return err
	}
	if err := b.settleCopies(g); err != nil {
		return err
	}
	if err := b.compare(g); err != nil {
		return err
	}
	if err := r.flushUndo(ctx, g); err != nil {
		return err
	}
	return b.prepare(ctx, a)
}

// underWay tells whether the present epoch is known to have begun, or had time to: after a Handover everybody waits for this node's disk until
// SW is committed, and what nobody waits for leaves it alone.
func (b *backup) underWay(g *fsm.Group) bool {
	if b.epoch != g.OpenEpoch {
		b.epoch, b.seen = g.OpenEpoch, time.Now()
	}
	if handed, err := core.HandedOver(g, g.OpenEpoch); !handed || err != nil {
		return true
	}
	row, _ := g.History.Row(g.OpenEpoch)
	return b.r.known.committed(g.History).History >= row.SW || time.Since(b.seen) >= beginsWithin
}

func (b *backup) needsPriming(err error) error {
	if why := fmt.Sprint(err); errors.Is(err, ErrNeedsPriming) && b.r.picture.needsPriming.Swap(&why) == nil {
		b.r.moved.fire() // it holds nothing that counts any more
		b.r.event(Event{Kind: EventNeedsPriming, Position: b.r.data.Position(), Detail: err.Error()})
	}
	return err
}

// settleCopies makes the journal of the primary ACTIVE and the other copies INACTIVE.
func (b *backup) settleCopies(g *fsm.Group) error {
	for _, j := range b.r.shelf.all() {
		want := journal.Inactive
		switch j.ID().Node {
		case b.r.o.Node:
			continue
		case g.Primary:
			want = journal.Active
		}
		if err := setState(j, want); err != nil {
			return err
		}
	}
	return nil
}

// completeReport adds to the back-out report what lives on: the entries of the local journal that the new primary had but
// did not know to be confirmed. Its SW says which; it may arrive later than Open.
func (b *backup) completeReport(ctx context.Context, g *fsm.Group) error {
	if b.owes == 0 {
		return nil
	}
	if b.owes != g.OpenEpoch {
		b.owes = 0
		return nil
	}
	row, _ := g.History.Row(g.OpenEpoch)
	data, _, _, err := b.r.readSwitch(ident.Position{Epoch: row.Epoch, History: row.SW})
	if errors.Is(err, ErrNeedsPriming) {
		return nil // not here yet
	}
	if err != nil {
		return err
	}
	b.owes = 0
	own, err := b.r.own()
	if err != nil || data.Journal != own.ID().String() {
		return err
	}
	var living []located
	v, _ := own.View()
	for seq := max(data.Last+1, v.First); seq <= min(data.Received, v.Last) && ctx.Err() == nil; {
		bundle, err := own.BundleAt(seq)
		if err != nil {
			return journalFailed(own, err)
		}
		living = append(living, located{Bundle: bundle, author: b.r.o.Node})
		seq = bundle.Last() + 1
	}
	return b.r.backouts().addLiving(g, own.ID(), living)
}

// compare ends the doubt about a torn tail: this node holds everything that the serving primary says is committed.
func (b *backup) compare(g *fsm.Group) error {
	r := b.r
	if !r.shelf.torn() {
		return nil
	}
	epoch, heard := r.known.lastHeard()
	if epoch != g.OpenEpoch || heard.IsZero() {
		return nil
	}
	grove := core.NewGrove(g.History, r.data.Position(), r.shelf.runs(true)...)
	if !grove.Connects(r.known.committed(g.History)) {
		return nil
	}
	r.log.Info("compared with the primary after a torn tail: nothing committed is missing", "peer", g.Primary)
	return r.shelf.compared()
}

// show keeps the status and tells of changes of the role.
func (b *backup) show(a fsm.Assignment) {
	r, g := b.r, a.Group
	at, to := r.data.Position(), r.known.committed(g.History)
	if r.picture.reconciled.Load() && !g.History.Contains(at) {
		r.picture.reconciled.Store(false)
	}
	epoch, heard := r.known.lastHeard()
	reached, asOf := false, time.Time{}
	if g.Phase == fsm.PhaseOpened && g.History.Contains(at) {
		if reached, asOf = r.fresh.reach(g.OpenEpoch, at); reached {
			r.picture.levelAt.Store(asOf.UnixNano())
		}
	}
	level := reached && epoch == g.OpenEpoch && at.History >= to.History
	if level && !r.picture.stranded.Load() { // what is known to be committed may be from before the copy began elsewhere
		r.picture.needsPriming.Store(nil)
	}
	switch {
	case level && !b.recovered:
		b.recovered = true
		r.picture.resync.Store(nil)
	case !level && b.recovered && (epoch != g.OpenEpoch || !g.History.Contains(at)):
		b.recovered, b.started, b.from = false, time.Now(), at // a new primary, or left the history
	}
	if !b.recovered {
		r.picture.resync.Store(b.resync(g, at, to))
	}
	if g.Primary != r.o.Node {
		r.tellBackup(b.control, g.Epoch, level && g.History.Contains(at), heard)
	}
}

func (b *backup) resync(g *fsm.Group, at, to ident.Position) *Resync {
	s := &Resync{Phase: ResyncReplay, From: b.from, To: to, At: at, Started: b.started}
	held := core.NewGrove(g.History, at, b.r.shelf.runs(true)...).Best()
	if held.History < to.History || b.r.visitors.from(g.OpenNode) == nil {
		s.Phase = ResyncCatchup
	}
	if !g.History.Contains(at) {
		s.Phase = ResyncBackout
	}
	if to.History > b.from.History && at.History >= b.from.History {
		done, all := float64(at.History-b.from.History), float64(to.History-b.from.History)
		s.Percent = min(100, 100*done/all)
		if elapsed := time.Since(b.started).Seconds(); elapsed > 0 && done > 0 {
			s.Rate = done / elapsed
			s.ETA = time.Duration(max(0, all-done) / s.Rate * float64(time.Second))
		}
	}
	return s
}

// prepare is what the target of a planned switch-over does first: it attaches a new receiver to its local journal, and
// reports once it has applied what was committed when it was asked. What is left then is drained during the hold.
func (b *backup) prepare(ctx context.Context, a fsm.Assignment) error {
	r, g := b.r, a.Group
	op := g.Operation
	if !core.PreparesSwitch(g, a.Self) {
		return nil
	}
	own, err := r.own()
	if err != nil {
		return err
	}
	if b.prepared != op.ID {
		info, err := own.ChangeReceiver(r.gate.epoch())
		if errors.Is(err, journal.ErrFull) {
			return nil // not prepared: it is tried again until the switch-over is given up
		}
		if err != nil {
			return journalFailed(own, err)
		}
		b.prepared, b.level = op.ID, r.known.committed(g.History)
		r.event(Event{Kind: EventReceiver, Journal: own.ID(), First: info.First, Detail: "attached for a switch-over"})
	}
	if r.source(g, g.OpenNode) != g.OpenNode {
		return nil // another backup feeds this node, or did: the primary comes, and only what it ships is waited for
	}
	if epoch, _ := r.known.lastHeard(); epoch != g.OpenEpoch || r.data.Position().History < b.level.History {
		return nil
	}
	if !b.ahead.reached(ctx, a, own) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timing.Propose)
	defer cancel()
	v, _ := own.View()
	res, err := b.control.Propose(ctx, fsm.Command{AdvanceSwitch: &fsm.AdvanceSwitch{
		Group: r.o.Group, Operation: op.ID, From: fsm.StepPrepare, Node: a.Self,
		Detail: fmt.Sprintf("receiver %s attached, applied up to %s", v.Attached, r.data.Position().Format(r.o.Group)),
	}})
	if err != nil || res.Refused != "" {
		r.log.Debug("prepared, but not recorded yet", "operation", op.ID, "refused", res.Refused, "error", err)
	}
	return nil
}
