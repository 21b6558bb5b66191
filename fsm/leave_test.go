package fsm

import "testing"

// TestLeave: an announced stop moves nothing, keeps roles away from the node, and ends with its life. Proves BX-1.
func TestLeave(t *testing.T) {
	f := opened(t)
	leave := Command{Leave: &Leave{Node: "b", Incarnation: lifeB}}
	f.must(leave)
	f.must(leave) // again
	if g := f.group(); !f.Nodes["b"].IsLeaving() || !g.InSet("b") || g.Primary != "a" || !f.Nodes["b"].Lives(lifeB) {
		t.Fatalf("%+v, %+v", f.Nodes["b"], g)
	}
	for _, automatic := range []bool{false, true} {
		c := Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon, Automatic: automatic}}
		if r := f.do(c); r.Refused != RefusedCandidate {
			t.Errorf("a switch-over to it, automatic %t: %+v", automatic, r)
		}
	}
	if r := f.renew("b", lifeB); r.Refused != "" || !f.Nodes["b"].IsLeaving() {
		t.Errorf("it renews: %+v, leaving %t", r, f.Nodes["b"].IsLeaving())
	}
	f.renew("b", 0xb2)
	if f.Nodes["b"].IsLeaving() {
		t.Error("its next life is leaving, too")
	}
	if r := f.do(leave); r.Refused != RefusedIncarnation {
		t.Errorf("a late announcement of the past life: %+v", r)
	}
	f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: 1, Deadline: noon}})
}

// TestLeavingIsChosenLast: a node that is being stopped is promoted only if nobody else may be.
func TestLeavingIsChosenLast(t *testing.T) {
	for _, c := range []struct {
		leaving bool
		want    string
	}{{false, "b"}, {true, "c"}} {
		nodes := opened(t).Nodes
		b := *nodes["b"]
		b.Leaving = c.leaving
		nodes["b"] = &b
		g := fenced(t).group()
		e := *g
		e.InSync = append(e.InSync[:1:1], "b", "c")
		e.Reports = []Report{{Node: "b", Epoch: 2, Incarnation: lifeB, Received: position(1, 9)}, {Node: "c", Epoch: 2, Incarnation: lifeC, Received: position(1, 9)}}
		if to, _, _, ok, why := ChooseCandidate(&e, nodes, nil, true); !ok || string(to) != c.want {
			t.Errorf("leaving %t: %s, %t, %s; want %s", c.leaving, to, ok, why, c.want)
		}
	}
}
