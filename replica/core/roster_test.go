package core

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves RJ-9, S9: an acknowledgement counts only in the session that brought it, and towards a growth only in one that
// began after every removal that Free had allowed was over.
func TestAcknowledgementsBelongToTheirSession(t *testing.T) {
	r := NewRoster("a")
	r.Add("b", "a")
	r.Add("b", "c")
	want := Acked{Durable: 9, Held: pos(2, 9)}
	live := Standing{Phase: ShipLive, Over: true}

	r.Began("b", "a")
	if r.Heard("b", "c", want, pos(2, 8)) || r.Acked("b") != (Acked{}) {
		t.Fatal("an acknowledgement for another journal counts")
	}
	if !r.Heard("b", "a", want, pos(2, 8)) || r.Acked("b") != want || !r.Holds("b", want) {
		t.Fatalf("acknowledged %+v", r.Acked("b"))
	}
	r.Began("b", "a")
	if r.Acked("b") != (Acked{}) || r.Holds("b", want) || !r.Applied("b").IsZero() {
		t.Fatalf("a new session begins with %+v", r.Acked("b"))
	}

	anew, began := r.Wait("b", 0)
	if !began || !slices.Equal(anew, []Renewal{{"b", "c"}}) {
		t.Fatalf("sessions of copies begin anew: %v", anew)
	}
	if _, again := r.Wait("b", 0); again {
		t.Fatal("it is waited for already")
	}
	r.Heard("b", "a", want, pos(2, 8))
	if ok, _ := r.HoldsFresh("b", want); ok {
		t.Fatal("a copy's session may still remove what the acknowledgement rests on")
	}
	r.Stands("b", "a", live)
	r.Stands("b", "c", live)
	if ok, anew := r.HoldsFresh("b", want); ok || !slices.Equal(anew, []Renewal{{"b", "a"}}) {
		t.Fatalf("acknowledged before the copy was settled: %t, anew %v", ok, anew)
	}
	if ok, anew := r.HoldsFresh("b", want); ok || anew != nil {
		t.Fatal("restarted again before the new session began")
	}
	r.Began("b", "a")
	if ok, _ := r.HoldsFresh("b", want); ok {
		t.Fatal("the new session has not acknowledged yet")
	}
	r.Heard("b", "a", want, pos(2, 8))
	if ok, _ := r.HoldsFresh("b", want); !ok {
		t.Fatal("acknowledged in the session that counts")
	}
	free := &fsm.Group{Phase: fsm.PhaseOpened, OpenEpoch: 2}
	if r.Free("b", "c", free, 2) {
		t.Fatal("nobody says Free to a node that is waited for")
	}
	r.Forget("b", 0, 0)
	if !r.Free("b", "c", free, 2) || r.Free("b", "c", nil, 2) || r.Free("b", "c", free, 3) {
		t.Fatal("free: opened, at this epoch, not waited for")
	}
	r.Wait("b", 0)
	if ok, _ := r.HoldsFresh("b", want); ok {
		t.Fatal("a removal may be under way again")
	}
}

// A growth that is given up again and again rests for longer each time, and until the node has shown progress.
func TestGrowthThatFailsRests(t *testing.T) {
	r := NewRoster("a")
	r.Add("b", "a")
	nodes := map[ident.NodeID]*fsm.Node{"b": {Kind: fsm.KindData}}
	g := &fsm.Group{History: ident.HistoryTable{row(1, "a", 1)}, InSync: []ident.NodeID{"a"}}
	look := func(now time.Duration) Member {
		ms, _ := r.Members(now, Outlook{
			Assignment: fsm.Assignment{Self: "a", Group: g, Nodes: nodes}, Last: pos(1, 9),
			Alive: func(ident.NodeID) bool { return true }, Outstanding: func(Acked) bool { return false },
		})
		return ms[0]
	}
	now := time.Duration(0)
	for _, rest := range []time.Duration{GrowRest, 2 * GrowRest, 4 * GrowRest} {
		r.Wait("b", now)
		r.GiveUp("b", now)
		if m := look(now + rest - 1); !m.Resting || m.Growing {
			t.Fatalf("after %s: %+v", rest-1, m)
		}
		if m := look(now + rest); m.Resting || m.Progress {
			t.Fatalf("after %s, without progress: %+v", rest, m)
		}
		now += rest
	}
	r.Heard("b", "a", Acked{Durable: 3, Held: pos(1, 3)}, pos(1, 3))
	if m := look(now); !m.Progress || m.Lag != 6 {
		t.Fatalf("it has acknowledged something new: %+v", m)
	}
}

// A growth whose outcome is not known is waited for until Raft shows a later set.
func TestProposedGrowthIsKeptUntilDecided(t *testing.T) {
	r := NewRoster("a")
	r.Add("b", "a")
	r.Wait("b", 0)
	r.Propose("b", 4)
	proposed := func() bool { return r.nodes["b"].proposed > 0 }
	r.Settle(&fsm.Group{SetVersion: 4, InSync: []ident.NodeID{"a"}})
	if !r.IsGrowing("b") || !proposed() {
		t.Fatal("it may still be applied")
	}
	r.Settle(&fsm.Group{SetVersion: 5, InSync: []ident.NodeID{"a"}})
	if !r.IsGrowing("b") || proposed() {
		t.Fatal("a later version without it: it was refused")
	}
	r.Settle(&fsm.Group{SetVersion: 6, InSync: []ident.NodeID{"a", "b"}})
	if r.IsGrowing("b") || len(r.Growing()) != 0 {
		t.Fatal("it is in the set")
	}
}
