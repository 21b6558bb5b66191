package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// Space is how much room a journal has, as it was looked at last.
type Space struct {
	journal.Space
	Free   int64         // bytes free on the disk; 0: not known
	Runway time.Duration // until it is full at the rate of the last minutes; core.RunwayUnknown, core.RunwayEndless
}

// rooms are what was seen of the room of each journal held, by author.
type rooms struct {
	began time.Time

	mu sync.Mutex
	of map[ident.NodeID]*room
}

type room struct {
	space  journal.Space
	free   int64
	full   bool // as it was told
	growth core.Growth
	at     time.Duration
}

// look takes a reading of one journal. told is true when it became full, or free again.
func (s *rooms) look(author ident.NodeID, space journal.Space, free int64) (full, told bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of, s.began = make(map[ident.NodeID]*room), time.Now()
	}
	r := s.of[author]
	if r == nil {
		r = &room{}
		s.of[author] = r
	}
	r.space, r.free, r.at = space, free, time.Since(s.began)
	r.growth.See(r.at, written(space))
	full = space.Full != nil
	told = full != r.full
	r.full = full
	return full, told
}

// last returns the newest reading of one journal.
func (s *rooms) last(author ident.NodeID) Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of[author]
	if r == nil {
		return Space{Runway: core.RunwayUnknown}
	}
	room := r.free
	if room > 0 {
		room += r.space.Unused // what is set aside is the journal's already
	}
	return Space{Space: r.space, Free: r.free, Runway: r.growth.Runway(r.at, written(r.space), room, r.space.Limit)}
}

// written is what a journal has written. What it sets aside comes in large steps, and says nothing about its rate.
func written(s journal.Space) int64 { return s.Held - s.Unused }

// limitsOf are the bounds of a journal of the group: of the node's own, or of a copy.
func limitsOf(s fsm.GroupSpec, own bool) journal.Limits {
	return journal.Limits{
		ReceiverBytes: s.ReceiverBytes, SpareBytes: int64(s.Blocks) * fsm.BlockBytes, MaximumBytes: core.Cap(s, own), MaxAge: s.ReceiverAge,
	}
}

// bound gives the journals held, and those to come, the bounds in force.
func (r *Replica) bound(a fsm.Assignment) {
	if a.Group != nil {
		r.shelf.limit(a.Group.Spec)
	}
}

// tight tells whether a journal here takes more than what retention brings it down to.
func (r *Replica) tight(spec fsm.GroupSpec) bool {
	limit := core.Cap(spec, true)
	if limit == 0 {
		return false
	}
	for _, j := range r.shelf.all() {
		if v, _ := j.View(); v.Bytes > limit-limit/4 {
			return true
		}
	}
	return false
}

// survey looks at the room of every journal held, and tells of what became full or has room again.
func (r *Replica) survey() {
	for _, j := range r.shelf.all() {
		r.inspect(j, j.Space())
	}
}

// free returns how many bytes are free on the data disk; 0 when that is not known.
func (r *Replica) free() int64 {
	usage, err := r.o.FS.GetDiskUsage(r.o.Dir)
	if err != nil {
		return 0
	}
	return int64(min(usage.AvailBytes, math.MaxInt64))
}

// inspect takes a reading of one journal and raises its events.
func (r *Replica) inspect(j *journal.Journal, space journal.Space) {
	full, told := r.rooms.look(j.ID().Node, space, r.free())
	switch {
	case !told:
	case full:
		r.event(Event{Kind: EventJournalFull, Journal: j.ID(), Detail: FullText(space.Full, r.Kept(j.ID().Node))})
	default:
		r.event(Event{Kind: EventJournalFree, Journal: j.ID(), Detail: fmt.Sprintf("journal %s has room again: it takes %.1f MiB", j.ID(), float64(space.Held)/(1<<20))})
	}
}

// full returns the journals that the status shows as full.
func (s Status) full() (out []JournalStatus) {
	for _, j := range s.Journals {
		if j.Space.Full != nil {
			out = append(out, j)
		}
	}
	return out
}

// Full says which journals here have no room, "" when all have. writes: of those, only the one that writes go to.
func (s Status) Full(writes bool) string {
	for _, j := range s.full() {
		if !writes || j.Local && s.Role == RolePrimary {
			return FullText(j.Space.Full, j.Kept)
		}
	}
	return ""
}

// squeeze drops the absent node that keeps the oldest receiver of the own journal, when that or a copy of it is full, where the group's policy says so. It
// returns why it did nothing, for the log.
func (p *primary) squeeze(ctx context.Context, a fsm.Assignment) (why string) {
	if p.own.Space().Full == nil && !p.targets.crowded() {
		return ""
	}
	receivers := p.own.Receivers()
	if len(receivers) < 2 {
		return "it has no detached receiver"
	}
	view, _ := p.own.View()
	node, why := core.DecideDrop(a, core.OldestReceiver{
		Author: p.r.o.Node, First: receivers[0].First, Last: receivers[0].Last, Runs: view.Runs, Flushed: p.r.data.Flushed(),
	}, func(n ident.NodeID) bool { return p.targets.gone(n, p.r.o.Timing.DropAfter) })
	if node == "" {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, p.r.o.Timing.Propose)
	defer cancel()
	reason := fmt.Sprintf("journal %s is full, and its receivers from %s on were kept for %s, which is absent", p.own.ID(), receivers[0].Number, node)
	res, err := p.control.Propose(ctx, fsm.Command{Drop: &fsm.Drop{Group: p.r.o.Group, Epoch: p.epoch, Node: node, Reason: reason}})
	if err != nil || res.Refused != "" {
		p.r.log.Warn("proposed to drop a node, not applied or outcome unknown", "peer", node, "refused", res.Refused, "detail", res.Detail, "error", err)
		return "the drop of node " + string(node) + " is not applied yet"
	}
	p.r.log.Warn("dropped a node: it needs priming before it takes part again", "peer", node, "reason", reason)
	return ""
}

// gone tells whether a node was not heard, from itself or from a copy that a backup feeds, or made no progress, for so long, and nobody waits for it.
func (t *targets) gone(n ident.NodeID, least time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	tg := t.nodes[n]
	return tg != nil && !t.roster.IsGrowing(n) && !fed(tg.ship[t.p.r.o.Node]) && t.roster.Absent(n, t.now()) >= least
}

// crowded tells whether a copy of the primary's journal takes nothing for want of room.
func (t *targets) crowded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tg := range t.nodes {
		if s := tg.ship[t.p.r.o.Node]; s != nil && s.state.Code == wire.CodeFull.String() {
			return true
		}
	}
	return false
}

// Disconnected says why a node's copies, as far as it reported them, cannot go on from what is kept here; "" when they can.
func (r *Replica) Disconnected(n *fsm.Node) string {
	flushed := n.Flushed[r.o.Group]
	for _, j := range r.shelf.all() {
		view, _ := j.View()
		if author := j.ID().Node; author != n.ID && view.First > 1 && n.Copies[r.o.Group][author]+1 < view.First {
			return fmt.Sprintf("its copy of %s ends at %s, and what is kept begins at %s", j.ID(), n.Copies[r.o.Group][author], view.First)
		}
	}
	if !r.table().Contains(flushed) {
		return fmt.Sprintf("its store is at %s, outside the history", flushed)
	}
	return ""
}

// age attaches a new receiver when the present one is older than the group wants.
func (p *primary) age() error {
	if !p.serving.Load() || !p.own.Due(p.r.o.Host.Clock.Now()) {
		return nil
	}
	leave, err := p.r.gate.enter(p.epoch)
	if err != nil {
		return nil // the role is over
	}
	defer leave()
	info, err := p.own.ChangeReceiver(p.epoch)
	if errors.Is(err, journal.ErrFull) {
		return nil
	}
	if err != nil {
		return journalFailed(p.own, err)
	}
	p.r.event(Event{Kind: EventReceiver, Epoch: p.epoch, Journal: p.own.ID(), First: info.First, Detail: "attached for the age of the one before"})
	return nil
}
