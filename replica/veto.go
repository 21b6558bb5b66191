package replica

import (
	"context"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Doomed is a receiver that is about to be deleted.
type Doomed struct {
	Journal  ident.JournalID
	Receiver journal.ReceiverInfo
}

// permits asks, in the background, whether receivers may be deleted: whoever is asked may take long, and nothing waits for it.
type permits struct {
	work sync.WaitGroup

	mu    sync.Mutex
	of    map[ident.NodeID]*permit // by author
	asked bool                     // the goroutine runs: one at a time
}

// permit is what was said of one journal's oldest receivers.
type permit struct {
	upTo   ident.ReceiverNumber // may go
	oldest ident.ReceiverNumber // held when it was asked last
	denied ident.ReceiverNumber // was vetoed last; 0: none
	why    string               // what was said then
	again  time.Time            // when it is asked for again
}

// grant returns how many of the given receivers, oldest first, may be deleted now, and asks for the rest.
func (r *Replica) grant(ctx context.Context, id ident.JournalID, receivers []journal.ReceiverInfo) int {
	if r.o.Veto == nil {
		return len(receivers)
	}
	s := &r.permits
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[ident.NodeID]*permit)
	}
	p := s.of[id.Node]
	if p == nil {
		p = &permit{}
		s.of[id.Node] = p
	}
	if len(receivers) > 0 {
		if receivers[0].Number < p.oldest {
			p.upTo = 0 // they were put back: what was said of them is over
		}
		p.oldest = receivers[0].Number
	}
	n := 0
	for n < len(receivers) && receivers[n].Number <= p.upTo {
		n++
	}
	if n < len(receivers) && !s.asked && !time.Now().Before(p.again) && ctx.Err() == nil {
		s.asked = true
		rest := append([]journal.ReceiverInfo(nil), receivers[n:]...)
		s.work.Go(func() { r.ask(ctx, id, p, rest) })
	}
	return n
}

// ask asks for receivers, oldest first, until one is vetoed.
func (r *Replica) ask(ctx context.Context, id ident.JournalID, p *permit, receivers []journal.ReceiverInfo) {
	s := &r.permits
	for _, x := range receivers {
		err := r.o.Veto(ctx, Doomed{Journal: id, Receiver: x})
		if ctx.Err() != nil {
			break // nobody said anything
		}
		s.mu.Lock()
		before := p.denied
		if err == nil {
			p.upTo, p.denied, p.why, p.again = x.Number, 0, "", time.Time{}
		} else {
			p.denied, p.why, p.again = x.Number, err.Error(), time.Now().Add(r.o.Timing.VetoRetry)
		}
		s.mu.Unlock()
		if err == nil {
			continue
		}
		if before != x.Number {
			r.event(Event{Kind: EventVetoed, Journal: id, First: x.First, Last: x.Last, Detail: "receiver " + x.Number.String() + " is not deleted: " + err.Error()})
		}
		break
	}
	s.mu.Lock()
	s.asked = false
	s.mu.Unlock()
}
