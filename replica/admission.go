package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// visitors are the shipping sessions that other nodes have here: at most one counts per journal, the newest.
type visitors struct {
	mu      sync.Mutex
	current map[ident.NodeID]*visit // by author of the journal
	stalls  map[ident.NodeID]*core.Stall
	called  pulse     // somebody was admitted
	over    bool      // nobody is admitted any more
	began   time.Time // of what their times count from
}

// uptimeLocked is a clock that only goes forward. The caller holds mu.
func (s *visitors) uptimeLocked() time.Duration {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	return time.Since(s.began)
}

// visit is one admitted session. It is a remote.Admission.
type visit struct {
	r       *Replica
	hello   wire.Hello
	journal *journal.Journal

	mu   sync.Mutex
	last wire.Progress // newest one heard
	at   time.Time     // when, or when it was said to hold still
	said claim         // newest Level heard that counts
}

// caller says who a Hello comes from.
func caller(h wire.Hello) core.Caller {
	return core.Caller{From: h.From, Author: h.Journal.Node, Epoch: h.Epoch, Life: h.Life, Session: h.Session}
}

// refusal turns a ruling into what the session is told; nil when it is admitted.
func refusal(r core.Ruling, h wire.Hello) error {
	switch r.Verdict {
	case core.Fenced:
		return &FencedError{Have: r.Have, Want: h.Epoch}
	case core.TooEarly:
		return &remote.Refusal{Code: wire.CodeEpoch, Text: r.Text}
	case core.NotSource:
		return &remote.Refusal{Code: wire.CodeNotSource, Text: r.Text}
	}
	return nil
}

// Admit judges a shipping session of another node. An epoch above the promised one is promised first, durably. It returns
// a *remote.Refusal or a *FencedError to turn the session away.
func (r *Replica) Admit(ctx context.Context, h wire.Hello) (remote.Admission, error) {
	if r.closed.Load() {
		return nil, &remote.Refusal{Code: wire.CodeStopping, Text: "the node is shutting down"}
	}
	a, err := r.admissible(ctx, h)
	if err != nil {
		return nil, err
	}
	j, err := r.shelf.open(h.Journal.Node)
	if err != nil {
		return nil, &remote.Refusal{Code: wire.CodeFailed, Text: err.Error()}
	}
	v := &visit{r: r, hello: h, journal: j}
	// Alone inside the gate: an older session can neither be in the middle of a removal now nor begin one later.
	err = r.promise(ctx, h.Epoch, func() error { return r.visitors.add(v, a.Group, r.o.Node) })
	if err != nil {
		return nil, err
	}
	if a.Group.IsDropped(r.o.Node) { // after add: whatever session was there before is over
		v.Close()
		return nil, &remote.Refusal{Code: wire.CodePriming, Text: fmt.Sprintf(
			"node %s was dropped from group %s for a full journal: prime it anew, or readmit it if its copy still connects", r.o.Node, r.o.Group)}
	}
	return v, nil
}

// knowsSoon is how long a session at an epoch that is not known here waits until it is: Raft's leader knows it a moment earlier, and the
// source would come back later than that.
const knowsSoon = 200 * time.Millisecond

// admissible judges a Hello by the state, as soon as that has heard of its epoch, or is late.
func (r *Replica) admissible(ctx context.Context, h wire.Hello) (fsm.Assignment, error) {
	late := time.NewTimer(knowsSoon)
	defer late.Stop()
	for over := false; ; {
		a, changed := r.assignment()
		if h.Journal.Group != r.o.Group || a.Group == nil {
			return a, &remote.Refusal{Code: wire.CodeGroup, Text: fmt.Sprintf("group %s is not known here yet", h.Journal.Group)}
		}
		ruling := core.Admissible(a.Group, r.gate.epoch(), r.o.Node, caller(h))
		if over || ruling.Verdict != core.TooEarly || changed == nil {
			return a, refusal(ruling, h)
		}
		select {
		case <-changed:
		case <-late.C:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
}

// add makes v the session that counts for its journal, by the state g of node self.
func (s *visitors) add(v *visit, g *fsm.Group, self ident.NodeID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return &remote.Refusal{Code: wire.CodeGroup, Text: fmt.Sprintf("group %s was deleted", v.r.o.Group)}
	}
	old := s.current[v.hello.Journal.Node]
	// Nobody else ships it: what the feeder may have by now is better than nothing.
	if old != nil && s.stalls[v.hello.Journal.Node].Rests(v.hello.From, s.uptimeLocked()) && core.MayFeed(g, v.hello.From, self) {
		return &remote.Refusal{Code: wire.CodeSilent, Text: fmt.Sprintf(
			"node %s had nothing of %s while the primary went on: node %s takes it from the primary for now, look at the disk of node %s",
			v.hello.From, v.hello.Journal, self, v.hello.From)}
	}
	if old != nil {
		if core.Outdated(caller(old.hello), caller(v.hello)) {
			return &FencedError{Have: old.hello.Epoch, Want: v.hello.Epoch}
		}
		if core.Yields(g, self, caller(old.hello), caller(v.hello)) && !s.leavesLocked(old, v) {
			return &remote.Refusal{Code: wire.CodeFed, Text: fmt.Sprintf("node %s feeds node %s with %s", old.hello.From, self, v.hello.Journal)}
		}
	}
	if s.current == nil {
		s.current = make(map[ident.NodeID]*visit)
	}
	s.current[v.hello.Journal.Node] = v
	s.called.fire()
	return nil
}

// leavesLocked tells whether the primary, which calls by v, is taken instead of the feeder that has the session old: that brings nothing.
// The caller holds mu.
func (s *visitors) leavesLocked(old, v *visit) bool {
	author := v.hello.Journal.Node
	if s.stalls == nil {
		s.stalls = make(map[ident.NodeID]*core.Stall)
	}
	if s.stalls[author] == nil {
		s.stalls[author] = new(core.Stall)
	}
	view, _ := v.journal.View()
	if !s.stalls[author].Leaves(old.hello.From, view.Last, v.hello.End, s.uptimeLocked(), v.r.o.Timing.Patience) {
		return false
	}
	v.r.log.Warn("the feeder brings nothing, the primary has more: this copy is fed by the primary for now", "peer", old.hello.From,
		"journal", v.hello.Journal, "seq", view.Last, "primary_seq", v.hello.End)
	return true
}

// end lets no session count any more.
func (s *visitors) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	clear(s.current)
}

func (s *visitors) counts(v *visit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current[v.hello.Journal.Node] == v
}

// from returns the session that counts for author's journal; nil when there was none or it is over.
func (s *visitors) from(author ident.NodeID) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current[author]
}

// Journal returns the copy the session appends to.
func (v *visit) Journal() *journal.Journal { return v.journal }

// Enter is the last gate: nothing is promised and no newer session is admitted before leave is called.
func (v *visit) Enter() (leave func(), err error) {
	leave, err = v.r.gate.enter(v.hello.Epoch)
	if err != nil {
		return nil, err
	}
	if !v.r.visitors.counts(v) {
		leave()
		return nil, &FencedError{Have: v.hello.Epoch, Want: v.hello.Epoch}
	}
	return leave, nil
}

// Removable tells whether what lies beyond after may go.
func (v *visit) Removable(after ident.Sequence, h wire.Hello) error {
	a, _ := v.r.assignment()
	if a.Group == nil {
		return &remote.Refusal{Code: wire.CodeGroup, Text: "the group is not known here any more"}
	}
	c := v.r.cutRule(a.Group, v.journal.ID().Node)
	c.Free = core.FreeHere(a.Group, v.r.o.Node, caller(h), h.Free)
	view, _ := v.journal.View()
	kept, why, err := c.Removable(after, view.Last, headers(v.journal))
	switch {
	case err != nil:
		return &remote.Refusal{Code: wire.CodeCorrupt, Text: err.Error()}
	case why != "":
		return &remote.Refusal{Code: wire.CodeDiverged, Text: fmt.Sprintf("%s at %s cannot be removed yet: %s", v.journal.ID(), kept.After(), why)}
	}
	return nil
}

// headers reads the headers of a journal's bundles.
func headers(j *journal.Journal) core.HeaderAt {
	return func(seq ident.Sequence) (entry.Header, error) {
		b, err := j.BundleAt(seq)
		return b.Header, err
	}
}

// Progress hears how far the source is.
func (v *visit) Progress(p wire.Progress) {
	v.mu.Lock()
	first := v.at.IsZero()
	v.last, v.at = p, time.Now()
	v.mu.Unlock()
	a, _ := v.r.assignment()
	v.learn(a.Group)
	if first {
		v.r.sources.tell(v, a.Group)
	}
}

// Level hears that nothing that was committed at asOf lies beyond at.
func (v *visit) Level(at ident.Position, asOf time.Time) {
	v.mu.Lock()
	v.at = time.Now()
	v.mu.Unlock()
	a, _ := v.r.assignment()
	v.learn(a.Group)
	if at.Epoch == v.hello.Epoch && core.Trusts(a.Group, caller(v.hello), at) {
		v.mu.Lock()
		v.said = claim{at, asOf}
		v.mu.Unlock()
		v.r.fresh.say(v.hello.Epoch, at, asOf)
		v.r.known.changed.fire()
	}
}

// learn takes the committed end last heard for known, if it may be trusted. It is repeated when the state changes.
func (v *visit) learn(g *fsm.Group) {
	v.mu.Lock()
	p, at := v.last, v.at
	v.mu.Unlock()
	if core.Trusts(g, caller(v.hello), p.Position) {
		v.r.known.learn(v.hello.Epoch, p.Position, at)
	}
}

// Held says what this node holds and has applied. The held end counts for this journal only where it connects to the
// store or the base through all journals held.
func (v *visit) Held() (held, applied ident.Position, changed <-chan struct{}) {
	changed = v.r.moved.wait()
	applied = v.r.data.Position()
	if v.r.picture.needsPriming.Load() != nil {
		return ident.Position{}, applied, changed // nothing that this store could ever reach
	}
	view, _ := v.journal.View()
	grove := core.NewGrove(v.r.table(), applied, v.r.shelf.runs(true)...)
	return grove.End(view.DurableAfter), applied, changed
}

// Close ends the admission.
func (v *visit) Close() {
	s := &v.r.visitors
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current[v.hello.Journal.Node] == v {
		delete(s.current, v.hello.Journal.Node)
	}
}

// cutRule makes the rule for one author's copy, from what is held at this moment. It is made and used inside the gate.
func (r *Replica) cutRule(g *fsm.Group, author ident.NodeID) core.CutRule {
	c := core.CutRule{Group: g, Undo: r.undos.guard(g.History, r.data.Position(), r.data.Flushed())}
	if a, _ := r.assignment(); a.Group != nil && g.History.Contains(r.data.Position()) {
		a.Group = g
		c.Spent = core.Spent(a, r.data.Flushed())
	}
	for _, b := range r.shelf.runs(true) {
		if b.Author != author {
			c.Other = append(c.Other, b)
		}
	}
	return c
}
