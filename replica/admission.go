package replica

import (
	"context"
	"fmt"
	"sync"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// visitors are the shipping sessions that other nodes have here: at most one counts per journal, the newest.
type visitors struct {
	mu      sync.Mutex
	current map[ident.NodeID]*visit // by author of the journal
}

// visit is one admitted session. It is a remote.Admission.
type visit struct {
	r       *Replica
	hello   wire.Hello
	journal *journal.Journal

	mu   sync.Mutex
	last wire.Progress // newest one heard
}

// admissible judges a Hello by what this node knows of the group and has promised. The promise alone keeps old epochs out;
// the state keeps out whoever is not the primary of its epoch, or is another life of it.
func admissible(g *fsm.Group, promised ident.Epoch, self ident.NodeID, h wire.Hello) error {
	switch {
	case h.Epoch < promised:
		return &FencedError{Have: promised, Want: h.Epoch}
	case h.From == self || h.Journal.Node == self:
		return &remote.Refusal{Code: wire.CodeNotSource, Text: "a node takes neither its own sessions nor its own journal back"}
	case h.Epoch > g.Epoch:
		return &remote.Refusal{Code: wire.CodeEpoch, Text: fmt.Sprintf("epoch %s is not known here yet, only %s: try again", h.Epoch, g.Epoch)}
	case h.Epoch == g.Epoch && g.Phase != fsm.PhaseFenced && g.Primary == h.From:
		if g.Incarnation != h.Life {
			return &remote.Refusal{Code: wire.CodeNotSource, Text: fmt.Sprintf("epoch %s belongs to another life of node %s: wait for the next epoch", h.Epoch, h.From)}
		}
		return nil
	case h.Epoch == g.OpenEpoch && g.OpenNode == h.From && h.Epoch < g.Epoch:
		return nil // until this node promises the newer epoch
	case h.Epoch < g.Epoch:
		return &FencedError{Have: g.Epoch, Want: h.Epoch}
	}
	return &remote.Refusal{Code: wire.CodeNotSource, Text: fmt.Sprintf("node %s is not the primary of epoch %s", h.From, h.Epoch)}
}

// Admit judges a shipping session of another node. An epoch above the promised one is promised first, durably. It returns
// a *remote.Refusal or a *FencedError to turn the session away.
func (r *Replica) Admit(ctx context.Context, h wire.Hello) (remote.Admission, error) {
	if r.closed.Load() {
		return nil, &remote.Refusal{Code: wire.CodeStopping, Text: "the node is shutting down"}
	}
	a, _ := r.assignment()
	if h.Journal.Group != r.o.Group || a.Group == nil {
		return nil, &remote.Refusal{Code: wire.CodeGroup, Text: fmt.Sprintf("group %s is not known here yet", h.Journal.Group)}
	}
	if err := admissible(a.Group, r.gate.epoch(), r.o.Node, h); err != nil {
		return nil, err
	}
	j, err := r.shelf.open(h.Journal.Node)
	if err != nil {
		return nil, &remote.Refusal{Code: wire.CodeFailed, Text: err.Error()}
	}
	v := &visit{r: r, hello: h, journal: j}
	// Alone inside the gate: an older session can neither be in the middle of a removal now nor begin one later.
	err = r.promise(ctx, h.Epoch, func() error { return r.visitors.add(v) })
	if err != nil {
		return nil, err
	}
	return v, nil
}

// add makes v the session that counts for its journal.
func (s *visitors) add(v *visit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.current[v.hello.Journal.Node]; old != nil {
		o, n := old.hello, v.hello
		switch {
		case o.Epoch > n.Epoch:
			return &FencedError{Have: o.Epoch, Want: n.Epoch}
		case o.Epoch == n.Epoch && o.From == n.From && o.Life == n.Life && o.Session >= n.Session:
			return &FencedError{Have: o.Epoch, Want: n.Epoch}
		}
	}
	if s.current == nil {
		s.current = make(map[ident.NodeID]*visit)
	}
	s.current[v.hello.Journal.Node] = v
	return nil
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
	// The source says that it waits for nobody here; this node's own state has to agree.
	free := h.Free && a.Group.Phase == fsm.PhaseOpened && a.Group.OpenEpoch == h.Epoch && !a.Group.InSet(v.r.o.Node)
	c := v.r.cutRule(a.Group, v.journal.ID().Node)
	c.free = free
	view, _ := v.journal.View()
	for seq := view.Last; seq > after; {
		b, err := v.journal.BundleAt(seq)
		if err != nil {
			return &remote.Refusal{Code: wire.CodeCorrupt, Text: err.Error()}
		}
		if why := c.keeps(b.Header); why != "" {
			return &remote.Refusal{Code: wire.CodeDiverged, Text: fmt.Sprintf("%s at %s cannot be removed yet: %s", v.journal.ID(), b.After(), why)}
		}
		seq = b.First - 1
	}
	return nil
}

// Progress hears how far the source is.
func (v *visit) Progress(p wire.Progress) {
	v.mu.Lock()
	v.last = p
	v.mu.Unlock()
	a, _ := v.r.assignment()
	v.learn(a.Group)
}

// learn takes the committed end last heard for known, if this node's own state shows the session's epoch opened: before
// that the same sequences may mean something else. It is repeated when the state changes.
func (v *visit) learn(g *fsm.Group) {
	if g == nil || v.hello.Journal.Node != v.hello.From || g.Phase != fsm.PhaseOpened || g.OpenEpoch != v.hello.Epoch {
		return
	}
	if _, ok := g.History.Row(v.hello.Epoch); !ok {
		return
	}
	v.mu.Lock()
	p := v.last
	v.mu.Unlock()
	if g.History.Contains(p.Position) {
		v.r.known.learn(v.hello.Epoch, p.Position)
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
	grove := newGrove(v.r.table(), applied, v.r.shelf.runs(true)...)
	return grove.end(view.DurableAfter), applied, changed
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

// cutRule decides which bundles of one copy may be removed physically. It is a snapshot, made and used inside the gate.
type cutRule struct {
	group *fsm.Group
	free  bool    // nobody waits for this node
	other []bough // durable in the other journals
	undo  undoGuard
}

func (r *Replica) cutRule(g *fsm.Group, author ident.NodeID) cutRule {
	c := cutRule{group: g, undo: r.undos.guard(g.History, r.data.Position(), r.data.Flushed())}
	for _, b := range r.shelf.runs(true) {
		if b.author != author {
			c.other = append(c.other, b)
		}
	}
	return c
}

// keeps returns why the bundle must stay, "" when it may go: it has no facts; or each of them is durable here in another
// journal; or an Open that this node applied shows them outside the history; or nobody waits for this node. What the
// store may need for an undo stays in any case.
func (c *cutRule) keeps(h entry.Header) string {
	if h.Facts == 0 {
		return ""
	}
	for _, b := range c.other {
		if b.Epoch == h.Fact.Epoch && b.From <= h.Fact.History && h.After().History <= b.To {
			return ""
		}
	}
	inside := live(c.group.History, h.Fact)
	if !inside && c.undo.needs(h.Fact) {
		return "the store may still have to undo it"
	}
	switch {
	case c.free:
		return ""
	case !inside && c.group.Phase == fsm.PhaseOpened && c.group.OpenEpoch > h.Session:
		return ""
	case inside:
		return "it may be part of the history and is durable in no other journal here"
	}
	return "no opened epoch shows it outside the history yet"
}
