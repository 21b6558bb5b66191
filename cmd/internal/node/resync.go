package node

import (
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// resyncs follows, on the primary, the target that is furthest behind, so that monitors see how a returning node gets on.
type resyncs struct {
	now func() time.Time

	mu     sync.Mutex
	groups map[ident.GroupName]*progress
}

// progress is the way of one target back to the set.
type progress struct {
	node    ident.NodeID
	epoch   ident.Epoch
	started time.Time
	from    ident.Position
	lastAt  ident.Position
	last    time.Time
	rate    float64 // entries per second, smoothed
}

func newResyncs(now func() time.Time) *resyncs {
	return &resyncs{now: now, groups: map[ident.GroupName]*progress{}}
}

// follow returns the progress of the target furthest behind, nil when all targets follow live.
func (r *resyncs) follow(g *fsm.Group, s replica.Status) *client.Resync {
	r.mu.Lock()
	defer r.mu.Unlock()
	var t *replica.TargetStatus
	for i := range s.Targets {
		x := &s.Targets[i]
		if x.State == replica.TargetCatchup && (t == nil || x.LagEntries > t.LagEntries) {
			t = x
		}
	}
	if t == nil {
		delete(r.groups, g.Spec.Name)
		return nil
	}
	now := r.now()
	p := r.groups[g.Spec.Name]
	if p == nil || p.node != t.Node || p.epoch != s.Epoch {
		p = &progress{node: t.Node, epoch: s.Epoch, started: now, from: t.AppliedAt, lastAt: t.AppliedAt, last: now}
		r.groups[g.Spec.Name] = p
	}
	if span := now.Sub(p.last).Seconds(); span >= 0.2 {
		rate := float64(distance(p.lastAt, t.AppliedAt)) / span
		if p.rate == 0 {
			p.rate = rate
		}
		p.rate += (rate - p.rate) / 2
		p.lastAt, p.last = t.AppliedAt, now
	}
	out := &client.Resync{Node: string(t.Node), Phase: client.ResyncCatchup, From: p.from.Format(g.Spec.Name), To: s.Applied.Format(g.Spec.Name),
		At: t.AppliedAt.Format(g.Spec.Name), Rate: p.rate, ETA: -1, Started: p.started}
	if t.LagEntries == 0 {
		out.Phase = client.ResyncReplay
	}
	if whole := distance(p.from, s.Applied); whole > 0 {
		out.Percent = min(100, 100*float64(distance(p.from, t.AppliedAt))/float64(whole))
	}
	if p.rate > 0 {
		out.ETA = float64(distance(t.AppliedAt, s.Applied)) / p.rate
	}
	return out
}

// distance is how many facts lie between two positions of one history; 0 when the second is not later.
func distance(a, b ident.Position) uint64 {
	if b.History <= a.History {
		return 0
	}
	return uint64(b.History - a.History)
}
