package replica

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica/core"
)

// aheadPatience is how long the target of a switch-over tries to bring the primary the beginning of its receivers. Writes go on meanwhile.
const aheadPatience = 500 * time.Millisecond

// ahead brings the primary, while a switch-over to this node is prepared, what the local journal has and no copy: the changes to the
// receiver that was attached when this node ceased to be primary, and to the one that was attached for the switch-over. A copy takes several
// syncs for each, one after the other, and the acknowledgement of SW, for which everybody waits, would come after them. The primary
// ships it on. It is a help only: whoever does not have it yet takes it with SW. It belongs to one backup session.
type ahead struct {
	r       *Replica
	control Control

	op      uint64 // the switch-over for which it ships, or has shipped; 0: none
	began   time.Time
	stop    context.CancelFunc // of what ships; nil: nothing does
	wg      sync.WaitGroup
	durable atomic.Uint64 // up to here the primary has it on disk
	changed pulse
}

// reached tells whether the primary has all of the journal on its disk, or had time to. It begins to ship when asked first.
func (s *ahead) reached(ctx context.Context, a fsm.Assignment, own *journal.Journal) bool {
	if op := a.Group.Operation.ID; s.op != op {
		s.end()
		s.op, s.began = op, time.Now()
		s.durable.Store(0)
		s.begin(ctx, a, own)
	}
	view, _ := own.View()
	if !core.BroughtAhead(ident.Sequence(s.durable.Load()), view.Last, time.Since(s.began), aheadPatience) {
		return false
	}
	if !core.ShipsAhead(a.Group, a.Self, s.op, true) {
		s.end()
	}
	return true
}

func (s *ahead) begin(ctx context.Context, a fsm.Assignment, own *journal.Journal) {
	r, primary := s.r, a.Group.Primary
	ship, stop := context.WithCancel(ctx)
	s.stop = stop
	o := remote.SourceOptions{
		Cluster: r.o.Cluster, Self: r.o.Node, Protocol: r.o.Protocol, Target: primary, Life: r.o.Life, Epoch: core.AheadEpoch(a.Group),
		Journal: own, Network: r.o.Network, Logger: r.log, Sessions: &r.ships, Heartbeat: r.o.Timing.Heartbeat, Timeout: r.o.Timing.Timeout,
		Addr: func() string {
			a, _ := s.control.Assignment()
			if n := a.Nodes[primary]; n != nil {
				return n.Addresses.Ship
			}
			return ""
		},
		OnAck: func(k wire.Ack) {
			if s.durable.Swap(uint64(k.Durable)) != uint64(k.Durable) {
				s.changed.fire()
			}
		},
		Relay: &remote.Relay{}, // nobody believes a committed end that does not come from the primary
	}
	s.wg.Go(func() {
		defer stop()
		if err := remote.RunSource(ship, o); err != nil {
			r.log.Debug("the beginning of the receivers was not brought ahead", "peer", primary, "journal", own.ID(), "error", err)
		}
	})
}

// end stops shipping, and joins what does.
func (s *ahead) end() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
		s.wg.Wait()
	}
}
