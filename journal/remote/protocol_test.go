package remote

import (
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Proves CL-7: a session between nodes of different protocols ends before anything is offered or removed, whichever side is the newer
// one; a build from before there was a number is told so, and its offers are not taken.
func TestSessionOfOtherProtocol(t *testing.T) {
	for _, x := range []struct{ source, target ident.Protocol }{{3, 3}, {0, 0}, {4, 3}, {3, 4}, {0, 3}, {3, 0}} {
		src, dst := newJournal(t), newJournal(t)
		src.deposit(3, 1, "v")
		s := newStage(dst)
		addr := s.serve(t, func(o *ServeOptions) { o.Protocol = x.target })
		r := ship(t, src, addr, func(o *SourceOptions) { o.Protocol = x.source })
		if x.source == x.target {
			r.caughtUp(t, src)
			continue
		}
		state := r.refused(t, wire.CodeVersion)
		if !strings.Contains(state.Reason, "inter-node protocol "+x.target.String()) || !strings.Contains(state.Reason, "node b") {
			t.Errorf("protocol %s to %s: %s", x.source, x.target, state.Reason)
		}
		if dst.end() != 0 {
			t.Errorf("protocol %s to %s: something was shipped", x.source, x.target)
		}
	}
}

// A target of a build from before the protocol takes any version: it is the source that ends the session, at the first offer.
func TestOfferOfAnOldTarget(t *testing.T) {
	p := &shipment{s: &source{o: SourceOptions{Protocol: 3, Target: "b"}}}
	offer := wire.Offer{Points: []wire.Point{{}}, Last: true}
	if err := p.goesOn(offer); err == nil || !strings.Contains(err.Error(), "wrong_version") {
		t.Errorf("an offer that nobody compared: %v", err)
	}
	offer.Checked = true
	if err := p.goesOn(offer); err != nil {
		t.Error(err)
	}
}
