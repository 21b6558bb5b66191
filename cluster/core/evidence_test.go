package core

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// The leader tells when it saw the primary last and what spoke against it first; the fence carries both.
func TestEvidence(t *testing.T) {
	st := opened(t)
	g, n := st.Groups[group], st.Nodes["a"]
	s := NewSightings()
	wall := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(now time.Duration, dead bool, cover time.Duration) Evidence {
		return s.Against(g, n, dead, cover, 10*time.Second, now, wall.Add(now))
	}
	if e := at(11*time.Second, false, time.Second); !e.Noticed.IsZero() || e.What != "" || !e.LastSeen.Equal(wall.Add(10*time.Second)) {
		t.Errorf("all is well: %+v", e)
	}
	if e := at(11500*time.Millisecond, true, time.Second); !e.Noticed.Equal(wall.Add(11500*time.Millisecond)) || !strings.Contains(e.What, "gossip") {
		t.Errorf("gossip lost it: %+v", e)
	}
	first := at(12*time.Second, true, 0)
	if !first.Noticed.Equal(wall.Add(11500*time.Millisecond)) || !strings.Contains(first.What, "gossip") {
		t.Errorf("the first evidence counts, not the last: %+v", first)
	}
	if e := at(13*time.Second, false, time.Second); !e.Noticed.IsZero() {
		t.Errorf("it was a false alarm: %+v", e)
	}
	if e := at(14*time.Second, false, 0); !e.Noticed.Equal(wall.Add(14*time.Second)) || !strings.Contains(e.What, "lease") {
		t.Errorf("a new alarm: %+v", e)
	}

	v := View{State: st, Now: wall, Dead: nobody, Silent: nobody}
	v.Groups = map[ident.GroupName]GroupView{group: {Evidence: first}}
	cmd, ok := v.fence(g)
	if !ok || !cmd.Fence.LastSeen.Equal(first.LastSeen) || !cmd.Fence.Noticed.Equal(first.Noticed) || cmd.Fence.Evidence != first.What {
		t.Errorf("the fence says %+v", cmd.Fence)
	}

	must(t, st, fsm.Command{Release: &fsm.Release{Node: "a", Incarnation: 1}})
	n = st.Nodes["a"]
	if e := NewSightings().Against(g, n, false, time.Second, 0, time.Minute, wall); !strings.Contains(e.What, "released") || !e.LastSeen.IsZero() || !e.Noticed.Equal(wall) {
		t.Errorf("released: %+v", e)
	}
}

// A primary whose silence was the reason for the fence is not waited for, also before gossip has lost it; another member is.
func TestSilentPrimaryIsNotWaitedFor(t *testing.T) {
	st := opened(t)
	must(t, st, fsm.Command{Fence: &fsm.Fence{Group: group, Epoch: 1, Force: true}})
	must(t, st, promised("b", 2, 5))
	silent := func(n ident.NodeID) bool { return n == "a" }
	v := View{State: st, Dead: nobody, Silent: silent, Groups: map[ident.GroupName]GroupView{group: {}}}
	if cmd, ok := v.promote(st.Groups[group]); ok {
		t.Errorf("c lives and has not reported, and %+v", cmd)
	}
	must(t, st, promised("c", 3, 5))
	cmd, ok := v.promote(st.Groups[group])
	if !ok || cmd.Promote == nil || cmd.Promote.To != "b" || !strings.Contains(cmd.Promote.Why, "2 of 3") {
		t.Errorf("decided %+v", cmd)
	}
	v.Silent = nobody
	if cmd, ok := v.promote(st.Groups[group]); ok {
		t.Errorf("a renews, so it is waited for: %+v", cmd)
	}
}

func nobody(ident.NodeID) bool { return false }
