package replica

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// Where a target's copy of the primary's journal can be told to begin, beside the number of a receiver.
const (
	StartKnown    = "known"    // the receiver known to the target: where its copy ends. It is the rule without being told
	StartFirst    = "first"    // the first receiver that the primary holds
	StartAttached = "attached" // the receiver that is written at present
)

// Started says where a target's copy goes on.
type Started struct {
	Target   ident.NodeID
	Journal  ident.JournalID
	Receiver ident.ReceiverNumber // the one that was named; 0 with StartKnown
	From     ident.Sequence       // what is shipped to the target begins here
	Kept     bool                 // the target had the start of that receiver, so that its copy goes on where it ends
}

// StartRefusedError says why a copy was not told to begin elsewhere, and what helps. Nothing has changed.
type StartRefusedError struct{ Why, Remedy string }

func (e *StartRefusedError) Error() string { return e.Why }

// startOrder is where one copy is to begin. Its fields are guarded by targets.mu.
type startOrder struct {
	after ident.Sequence
	said  bool // in the present session
	last  string
	done  chan struct{} // closed with the result
	from  ident.Sequence
	err   error
}

// StartCopy has a target's copy of this node's journal begin with a receiver: StartKnown, StartFirst, StartAttached or a number. A copy
// that has that receiver's start goes on where it ends; any other is removed at the target, if everything in it is durable
// elsewhere, and begins there. It returns once that is so. *StartRefusedError, ErrNotPrimary, or the end of ctx: the order is withdrawn.
func (r *Replica) StartCopy(ctx context.Context, target ident.NodeID, from string) (Started, error) {
	p := r.primary.Load()
	if p == nil || !p.serving.Load() {
		return Started{}, ErrNotPrimary
	}
	a, _ := r.assignment()
	if !p.mine(a) || p.control.CheckLease(p.epoch) != nil {
		return Started{}, ErrNotPrimary
	}
	if why := p.mayStart(a, target); why != nil {
		return Started{}, why
	}
	out := Started{Target: target, Journal: p.own.ID()}
	if from == StartKnown {
		out.From, out.Kept = p.targets.withdraw(target), true
		return out, nil
	}
	info, err := named(p.own, from)
	if err != nil {
		return Started{}, err
	}
	out.Receiver = info.Number
	if out.From, err = p.targets.order(ctx, target, info.First-1); err != nil {
		return Started{}, err
	}
	out.Kept = out.From != info.First
	r.log.Info("a copy was told where to begin", "peer", target, "journal", out.Journal, "receiver", info.Number, "seq", out.From, "kept", out.Kept)
	return out, nil
}

// mayStart says why the copy of a target must not be touched now.
func (p *primary) mayStart(a fsm.Assignment, target ident.NodeID) error {
	g, n := a.Group, a.Nodes[target]
	switch {
	case n == nil || n.Kind != fsm.KindData || target == a.Self:
		return &StartRefusedError{fmt.Sprintf("node %s holds no copy of the journal of %s", target, a.Self), "name another data node of the cluster"}
	case g.Operation != nil:
		return &StartRefusedError{fmt.Sprintf("operation %d (%s) is under way in group %s", g.Operation.ID, g.Operation.Kind, g.Spec.Name), "wait until it is finished, or cancel it"}
	case g.IsDropped(target):
		return &StartRefusedError{fmt.Sprintf("node %s was dropped from group %s: nothing is shipped to it", target, g.Spec.Name), "readmit it first (POST …/nodes/NODE/readmit)"}
	case g.InSet(target) && g.Spec.Delivery != fsm.DeliveryAsync || p.targets.waitsFor(target):
		return waitedFor(target)
	}
	return nil
}

func waitedFor(target ident.NodeID) error {
	return &StartRefusedError{fmt.Sprintf("node %s is in the in-sync set, or on its way into it: writes wait for what its copy holds", target),
		"have another node take its place, or set delivery to async for the time being"}
}

// named returns the receiver of a journal that somebody named.
func named(j *journal.Journal, from string) (journal.ReceiverInfo, error) {
	held := j.Receivers()
	if len(held) == 0 {
		return journal.ReceiverInfo{}, &StartRefusedError{fmt.Sprintf("journal %s holds no receiver", j.ID()), "write something first"}
	}
	switch from {
	case StartFirst:
		return held[0], nil
	case StartAttached:
		return held[len(held)-1], nil
	}
	n, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return journal.ReceiverInfo{}, fmt.Errorf("%w: from %q: want %s, %s, %s or the number of a receiver", ErrInvalid, from, StartKnown, StartFirst, StartAttached)
	}
	for _, i := range held {
		if uint64(i.Number) == n {
			return i, nil
		}
	}
	return journal.ReceiverInfo{}, &StartRefusedError{fmt.Sprintf("journal %s does not hold receiver %d, but %s to %s", j.ID(), n, held[0].Number, held[len(held)-1].Number),
		"name one of those, first, attached or known"}
}

func (t *targets) waitsFor(n ident.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.roster.IsGrowing(n)
}

// withdraw ends what was ordered for a target, and returns from where it is shipped to.
func (t *targets) withdraw(n ident.NodeID) ident.Sequence {
	t.mu.Lock()
	defer t.mu.Unlock()
	tg := t.nodes[n]
	if tg == nil || tg.ship[t.p.r.o.Node] == nil {
		return 0
	}
	s := tg.ship[t.p.r.o.Node]
	s.finishLocked(0, &StartRefusedError{"somebody had the copy go on from the receiver known to the target meanwhile", "ask again"})
	return s.state.From
}

// order has the session of the own journal begun anew, and waits until the target's copy begins after the sequence.
func (t *targets) order(ctx context.Context, n ident.NodeID, after ident.Sequence) (ident.Sequence, error) {
	t.mu.Lock()
	tg := t.nodes[n]
	if tg == nil || tg.ship[t.p.r.o.Node] == nil {
		t.mu.Unlock()
		return 0, &StartRefusedError{fmt.Sprintf("nothing is shipped to node %s yet", n), "ask again in a moment"}
	}
	s := tg.ship[t.p.r.o.Node]
	if s.start != nil {
		t.mu.Unlock()
		return 0, &StartRefusedError{fmt.Sprintf("the copy of node %s is being told where to begin already", n), "ask again in a moment"}
	}
	o := &startOrder{after: after, done: make(chan struct{})}
	s.start = o
	if s.cancel != nil {
		s.cancel()
	}
	t.mu.Unlock()
	over := time.NewTicker(t.p.r.o.Timing.Tick)
	defer over.Stop()
	for {
		select {
		case <-o.done:
			return o.from, o.err
		case <-over.C:
			if t.p.r.primary.Load() == t.p {
				continue
			}
		case <-ctx.Done():
		}
		t.mu.Lock()
		err := ErrNotPrimary
		if ctx.Err() != nil {
			err = &StartRefusedError{fmt.Sprintf("node %s did not answer in time", n), "look at the status of the target, and ask again with a longer ?wait="}
			if o.last != "" {
				err.(*StartRefusedError).Why += ": " + o.last
			}
		}
		s.finishLocked(0, err)
		t.mu.Unlock()
		return o.from, o.err
	}
}

// finishLocked ends an order, if there is one. The caller holds targets.mu.
func (s *shipment) finishLocked(from ident.Sequence, err error) {
	if o := s.start; o != nil {
		s.start, o.from, o.err = nil, from, err
		close(o.done)
	}
}

// beginning is asked by a session that has said Free, began told that the target does as it was told.
func (t *targets) beginning(s *shipment) (ident.Sequence, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.start == nil {
		return 0, false
	}
	s.start.said = true
	return s.start.after, true
}

func (t *targets) goesOn(s *shipment, from ident.Sequence) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.finishLocked(from, nil)
}

// unfreeLocked hears what a session says of Free: to a target that writes wait for nothing is said of another beginning. The caller
// holds mu.
func (s *shipment) unfreeLocked(tg *target, free bool) {
	if !free {
		s.finishLocked(0, waitedFor(tg.node))
	}
}

// startStandsLocked hears of a session's state: a target that refuses has its reason. The caller holds mu.
func (s *shipment) startStandsLocked(tg *target, st remote.SessionState) {
	o := s.start
	if o == nil || st.Reason == "" {
		return
	}
	o.last = st.Reason
	if !o.said {
		return
	}
	o.said = false
	switch {
	case st.Phase != remote.PhaseRefused:
	case st.Code == wire.CodeDiverged.String():
		s.finishLocked(0, &StartRefusedError{fmt.Sprintf("node %s keeps what it has: %s", tg.node, st.Reason), "let the node catch up first, or begin with an earlier receiver"})
	case st.Code == wire.CodeFed.String():
		s.finishLocked(0, &StartRefusedError{fmt.Sprintf("node %s takes nothing from here now: %s", tg.node, st.Reason), fmt.Sprintf("give it back to the primary first (understudy group set GROUP feeds=%s:), and ask again", tg.node)})
	case st.Code == wire.CodeMalformed.String():
		s.finishLocked(0, &StartRefusedError{fmt.Sprintf("node %s does not know how to begin elsewhere: %s", tg.node, st.Reason), "run the same release on both nodes"})
	}
}

// Clearable tells whether the whole copy may go, so that it begins with another receiver.
func (v *visit) Clearable(first, common ident.Sequence, h wire.Hello) error {
	r := v.r
	a, _ := r.assignment()
	if a.Group == nil {
		return &remote.Refusal{Code: wire.CodeGroup, Text: "the group is not known here any more"}
	}
	rule := core.StartRule{CutRule: r.cutRule(a.Group, v.journal.ID().Node), Flushed: r.data.Flushed(), First: first, Common: common}
	rule.Free = core.FreeHere(a.Group, r.o.Node, caller(h), h.Free)
	view, _ := v.journal.View()
	for _, run := range view.Runs {
		if why := rule.Keeps(run); why != "" {
			return &remote.Refusal{Code: wire.CodeDiverged, Text: fmt.Sprintf("%s cannot be removed here: %s", v.journal.ID(), why)}
		}
	}
	return nil
}

// strand marks a store that its journals cannot bring level any more since the copy of the primary's journal begins after it, and
// takes the mark back when the copy begins earlier again. The copy is kept current all the same.
func (b *backup) strand(g *fsm.Group) {
	r := b.r
	j, ok := r.shelf.get(g.OpenNode)
	if !ok || g.OpenNode == r.o.Node {
		return
	}
	held, at := j.Receivers(), r.data.Position()
	grove := core.NewGrove(g.History, at, r.shelf.runs(true)...)
	stranded := len(held) > 0 && core.Stranded(g, at, held[0].Start, grove.Connects)
	switch {
	case !stranded && r.picture.stranded.Swap(false):
		r.picture.needsPriming.Store(nil)
		b.r.moved.fire()
	case stranded && (!r.picture.stranded.Load() || r.picture.needsPriming.Load() == nil):
		r.picture.stranded.Store(true)
		_ = b.needsPriming(fmt.Errorf("%w: its copy of the journal of %s begins after %s, and its store stands at %s: "+
			"have the copy begin earlier (POST …/journals/NODE/start, from first) while the primary holds that, or bring the store there by a restore", ErrNeedsPriming, g.OpenNode, held[0].Start, at))
	}
}
