package replica

import (
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// server is what this life of the node has told of itself. A recovery begins with a life that finds journals on its disk or
// backs a group up for the first time, with a takeover by failover, with a back-out, and when a secondary that lost its
// primary is taken out of the set.
type server struct {
	mu         sync.Mutex
	told       core.Server
	recovering bool
	since      time.Time // the recovery began
}

// recovers notes that a recovery begins, if none is under way.
func (s *server) recovers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recoversLocked()
}

func (s *server) recoversLocked() {
	if !s.recovering {
		s.recovering, s.told.Recovering, s.since = true, true, time.Now()
	}
}

// backsUp notes that a backup session begins: a life that was nothing before has its copy to bring up first.
func (s *server) backsUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told.Role == core.ServerUndecided {
		s.recoversLocked()
	}
}

// tellPrimary raises the events of a primary that serves.
func (r *Replica) tellPrimary(p *primary) {
	s := &r.server
	s.mu.Lock()
	defer s.mu.Unlock()
	a, _ := p.control.Assignment() // read here, so that what is told never goes back
	if !p.serving.Load() || !p.mine(a) {
		return
	}
	s.recovering = false
	r.becomes(core.Observe(a, core.OwnFacts{Serving: true}))
}

// tellBackup raises the events of a backup. heard is when the primary was heard last; level says that the store had
// everything that was committed then, in epoch e.
func (r *Replica) tellBackup(c Control, e ident.Epoch, level bool, heard time.Time) {
	s := &r.server
	s.mu.Lock()
	defer s.mu.Unlock()
	a, _ := c.Assignment()
	seen := core.Observe(a, core.OwnFacts{Recovering: s.recovering})
	if s.told.Role == core.ServerSecondary && seen.Role == core.ServerStandby && time.Since(heard) > 3*r.o.Timing.Heartbeat {
		s.recoversLocked()
		seen.Recovering = true
	}
	r.becomes(seen)
	if s.recovering && level && a.Group != nil && a.Group.Epoch == e && heard.After(s.since) {
		if done := core.Observe(a, core.OwnFacts{}); done.Role != core.ServerUndecided {
			s.recovering = false
			r.becomes(done)
		}
	}
}

// becomes raises what changed. The caller holds server.mu.
func (r *Replica) becomes(after core.Server) {
	s := &r.server
	if after.Role == core.ServerUndecided {
		return
	}
	before := s.told
	s.told = after
	for _, e := range core.Transition(before, after) {
		r.event(Event{Kind: EventKind(e.Kind), Peer: e.Peer, Epoch: after.Epoch, Position: r.data.Position(), Shadows: shadows(after)})
	}
	if lost, _ := core.Partners(before, after); after.Role == core.ServerPrimary && before.Role == core.ServerPrimary && len(after.Partners) > 0 {
		for _, n := range lost {
			r.event(Event{Kind: EventSecondaryLost, Peer: n, Epoch: after.Epoch, Position: r.data.Position(), Shadows: shadows(after)})
		}
	}
}

// shadows lists a primary's shadows; "none" when it is alone, "" for others.
func shadows(s core.Server) string {
	if s.Role != core.ServerPrimary {
		return ""
	}
	if len(s.Partners) == 0 {
		return "none"
	}
	names := make([]string, len(s.Partners))
	for i, n := range s.Partners {
		names[i] = string(n)
	}
	return strings.Join(names, ",")
}
