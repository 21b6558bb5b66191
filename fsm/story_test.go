package fsm

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

func steps(o Operation) string {
	var out []string
	for _, s := range o.Steps {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

func names[T ~string](in []T) string {
	var out []string
	for _, n := range in {
		out = append(out, string(n))
	}
	return strings.Join(out, " ")
}

func TestCreateAndOpen(t *testing.T) {
	f := created(t)
	g := f.group()
	if g.Epoch != 1 || g.Phase != PhasePromoted || g.Primary != "a" || g.Incarnation != lifeA || names(g.InSync) != "a" || g.OpenEpoch != 0 {
		t.Fatalf("created: %+v", g)
	}
	if g.Spec.Delivery != DeliverySync || g.Spec.Secondaries != 1 {
		t.Fatalf("the spec was not normalized: %+v", g.Spec)
	}
	if r := f.renew("a", lifeA); names(r.Covers) != "g" {
		t.Fatalf("a renewal of the promoted node covers %v", r.Covers)
	}
	f = opened(t)
	g = f.group()
	if g.Phase != PhaseOpened || g.OpenEpoch != 1 || g.OpenNode != "a" || names(g.InSync) != "a b" || g.SetVersion != 2 {
		t.Fatalf("opened: %+v", g)
	}
	if c := g.Switches[0]; c.Kind != CertificateCreate || c.SW != position(1, 1) || c.Opened.IsZero() || c.Loss != LossNone {
		t.Fatalf("certificate: %+v", c)
	}
	again := f.bytes()
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("g", "a"), Incarnation: lifeA}}) // the proposer did not learn its outcome
	f.must(register("a", KindData))
	f.must(Command{CreateCluster: &CreateCluster{Cluster: "id", Name: "demo"}})
	if f.Applied -= 3; f.bytes() != again {
		t.Fatal("a repeated creation changed something")
	}
}

// TestFailover tells the story of a failover whose first choice dies. Proves CL-1, CL-7.
func TestFailover(t *testing.T) {
	f := opened(t)
	r := f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Renewal: 1, Reason: "lease of a ran out"}})
	if r.Operation != 1 || r.Epoch != 2 {
		t.Fatalf("fence: %+v", r)
	}
	g := f.group()
	if g.Phase != PhaseFenced || g.Primary != "a" || g.OpenEpoch != 1 || Role(g, f.Nodes["a"]) != RoleSecondary {
		t.Fatalf("fenced: %+v", g)
	}
	if r := f.renew("a", lifeA); len(r.Covers) != 0 || len(r.Ended) != 0 {
		t.Fatalf("a renewal after the fence: %+v", r)
	}
	assigned, _ := f.Assign("g", "b", lifeB)
	if !assigned.PromiseDue() || assigned.IsPrimary() {
		t.Fatal("b owes a promise")
	}
	f.report("b", lifeB, position(1, 9))
	f.report("c", lifeC, position(1, 8))
	if assigned, _ = f.Assign("g", "b", lifeB); assigned.PromiseDue() {
		t.Fatal("b has promised")
	}
	r = f.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB, Loss: LossNone}})
	if r.Operation != 1 {
		t.Fatalf("promote: %+v", r)
	}
	g = f.group()
	if g.Phase != PhasePromoted || g.Primary != "b" || names(g.InSync) != "a b" || g.SetVersion != 2 {
		t.Fatalf("the set stays as it was: %+v", g)
	}
	if !g.Operation.Committed || steps(*g.Operation) != "fence reports promote recover" {
		t.Fatalf("operation: %+v", g.Operation)
	}
	if r := f.renew("b", lifeB); names(r.Covers) != "g" {
		t.Fatalf("the promoted life is covered: %+v", r)
	}

	// b dies before it opens. Its next life is not the one that was promoted.
	if r := f.renew("b", 0xb2); names(r.Ended) != "g" || len(r.Covers) != 0 {
		t.Fatalf("the next life of b: %+v", r)
	}
	r = f.must(Command{Fence: &Fence{Group: "g", Epoch: 2, Renewal: 99, Reason: "b restarted"}}) // no renewal covers: no need to compare
	if r.Operation != 1 || r.Epoch != 3 || len(f.group().Reports) != 0 || f.group().Operation.Committed {
		t.Fatalf("second fence: %+v, %+v", r, f.group())
	}
	f.report("a", lifeA, position(1, 9))
	f.report("b", 0xb2, position(2, 10))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 3, To: "b", Incarnation: 0xb2, Loss: LossNone}})
	f.must(Command{Open: &Open{Group: "g", Epoch: 3, Node: "b", Incarnation: 0xb2, InSync: []ident.NodeID{"b"},
		Rows: []ident.HistoryRow{row(2, "b", 10), row(3, "b", 11)}}})
	g = f.group()
	if len(g.History) != 3 || g.History.EpochAt(10) != 2 || g.Operation != nil || len(g.Reports) != 0 || g.SetVersion != 3 {
		t.Fatalf("opened: %+v", g)
	}
	op, ok := f.Operation(1)
	if !ok || op.State != OperationDone || op.To != "b" || op.From != "a" || op.Epoch != 3 || op.Ended.IsZero() ||
		steps(op) != "fence reports promote recover fence reports promote recover open" {
		t.Fatalf("operation: %+v", op)
	}
	if len(g.Switches) != 3 {
		t.Fatalf("certificates: %+v", g.Switches)
	}
	if c := g.Switches[1]; c.Epoch != 2 || !c.Opened.IsZero() || !c.SW.IsZero() {
		t.Fatalf("certificate of the epoch that never opened: %+v", c)
	}
	if c := g.Switches[2]; c.Kind != CertificateFailover || c.OldEpoch != 1 || c.From != "a" || c.SW != position(3, 11) || len(c.Candidates) != 2 || c.Operation != 1 || names(c.InSync) != "a b" {
		t.Fatalf("certificate: %+v", c)
	}
}

func TestForcedFailover(t *testing.T) {
	f := opened(t)
	// An operator fences a living primary in favour of a standby.
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Force: true, To: "c", AllowLoss: true, Reason: "site lost"}})
	f.report("c", lifeC, position(1, 5))
	to, loss, _, ok, why := ChooseCandidate(f.group(), f.Nodes, func(ident.NodeID) bool { return false }, true)
	if to != "c" || !ok {
		t.Fatal(why)
	}
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "c", Incarnation: lifeC, Loss: loss}})
	if c := f.group().Switches[1]; c.Loss == LossNone || !strings.Contains(c.Loss, "g@1.5") {
		t.Fatalf("certificate: %+v", c)
	}
	// What was allowed for c does not extend to whoever comes after it.
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 2, Renewal: f.Nodes["c"].Renewal, Reason: "c died"}})
	if op := f.group().Operation; op.AllowLoss || op.To != "" || op.ID != 1 {
		t.Fatalf("operation: %+v", op)
	}
}

// TestSwitchover tells the story of a planned switch-over. Proves CL-5.
func TestSwitchover(t *testing.T) {
	f := draining(t)
	r := f.must(Command{Handover: handoverToB()})
	if r.Epoch != 2 || r.Operation != 1 || names(r.Ended) != "g" {
		t.Fatalf("handover: %+v", r)
	}
	g := f.group()
	if g.Phase != PhaseOpened || g.Epoch != 2 || g.Primary != "b" || g.Incarnation != lifeB || g.OpenEpoch != 2 || g.OpenNode != "b" || g.SetVersion != 3 {
		t.Fatalf("handed over: %+v", g)
	}
	if last := g.History.Last(); last != row(2, "b", 10) || g.History.Contains(position(1, 10)) {
		t.Fatalf("history: %+v", g.History)
	}
	if r := f.renew("a", lifeA); len(r.Covers) != 0 {
		t.Fatalf("a is still covered: %+v", r)
	}
	if r := f.renew("b", lifeB); names(r.Covers) != "g" {
		t.Fatalf("b is not covered: %+v", r)
	}
	f.must(Command{FinishSwitch: &FinishSwitch{Group: "g", Operation: 1, Node: "b", First: 42, Detail: "paused 40ms"}})
	g = f.group()
	if g.Operation != nil || g.History.Last().First != 42 || g.Switches[1].Opened.IsZero() || g.Switches[1].SW != position(2, 10) {
		t.Fatalf("finished: %+v", g)
	}
	op, _ := f.Operation(1)
	if op.State != OperationDone || op.Epoch != 2 || steps(op) != "prepare hold drain handover open" || op.Steps[4].Detail != "paused 40ms" {
		t.Fatalf("operation: %+v", op)
	}
}

func TestSwitchoverEnds(t *testing.T) {
	f := draining(t)
	f.must(Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: 1, Reason: "max pause"}})
	if op, _ := f.Operation(1); op.State != OperationRolledBack || op.Error != "max pause" || f.group().Operation != nil || f.group().Epoch != 1 {
		t.Fatalf("aborted: %+v", op)
	}

	f = draining(t)
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1, Renewal: 1, Reason: "a died"}})
	if op, _ := f.Operation(1); op.State != OperationRolledBack || f.group().Operation.ID != 2 {
		t.Fatalf("fenced before the commit point: %+v", op)
	}

	f = handed(t)
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 2, Renewal: f.Nodes["b"].Renewal, Reason: "b died"}})
	if op, _ := f.Operation(1); op.State != OperationFailed || !op.Committed {
		t.Fatalf("fenced after the commit point: %+v", op)
	}
	// Nobody got b's SW: a opens at the same place, and b's epoch is not in the history.
	f.report("a", lifeA, position(1, 9))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 3, To: "a", Incarnation: lifeA}})
	f.must(Command{Open: &Open{Group: "g", Epoch: 3, Node: "a", Incarnation: lifeA, Rows: []ident.HistoryRow{row(3, "a", 10)}, InSync: []ident.NodeID{"a"}}})
	if h := f.group().History; h.Contains(position(2, 10)) || !h.Contains(position(3, 10)) || len(h) != 2 {
		t.Fatalf("history: %+v", h)
	}
}

func TestLives(t *testing.T) {
	f := opened(t)
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("h", "a"), Incarnation: lifeA}})
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("i", "b"), Incarnation: lifeB}})
	if r := f.renew("a", lifeA); names(r.Covers) != "g h" {
		t.Fatalf("covers: %v", r.Covers)
	}
	release := Command{Release: &Release{Node: "a", Incarnation: lifeA}}
	for range 2 { // idempotent
		if r := f.must(release); names(r.Ended) != "g h" {
			t.Fatalf("ended: %v", r.Ended)
		}
	}
	if f.Nodes["a"].Lives(lifeA) {
		t.Fatal("a released life lives")
	}
	r := f.renew("a", 0xa2)
	if names(r.Ended) != "g h" || len(r.Covers) != 0 || f.Nodes["a"].Released || !f.Nodes["a"].Lives(0xa2) {
		t.Fatalf("next life: %+v", r)
	}
	if r := f.renew("a", 0xa2); len(r.Ended) != 0 || len(r.Covers) != 0 {
		t.Fatalf("only the first renewal of a life ends the older covers: %+v", r)
	}
	// A promotes its second life; a late command of the first must not end that cover.
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 1}})
	f.report("a", 0xa2, position(1, 9))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 2, To: "a", Incarnation: 0xa2}})
	if r := f.renew("a", lifeA); r.Refused != RefusedIncarnation || len(r.Ended) != 0 {
		t.Fatalf("a past life renewed: %+v", r)
	}
	if r := f.do(release); r.Refused != RefusedIncarnation {
		t.Fatalf("a past life was released: %+v", r)
	}
	// b's first life releases i, and only i.
	if r := f.must(Command{Release: &Release{Node: "b", Incarnation: lifeB}}); names(r.Ended) != "i" {
		t.Fatalf("ended: %v", r.Ended)
	}
	// What a life that nobody has heard of left on its way does not end the cover of one that came after it.
	if r := f.renew("a", 0xa1); r.Refused != RefusedIncarnation || len(r.Ended) != 0 || f.Nodes["a"].Incarnation != 0xa2 {
		t.Fatalf("a life between two others renewed: %+v", r)
	}
}

func TestChangeSet(t *testing.T) {
	f := opened(t)
	f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 2, Add: "c", Reason: "SRSHADOWGAIN"}})
	if g := f.group(); names(g.InSync) != "a b c" || g.SetVersion != 3 {
		t.Fatalf("grown: %+v", g)
	}
	f.must(Command{ChangeSet: &ChangeSet{Group: "g", Epoch: 1, Version: 3, Remove: "b", Reason: "SRSHADOWLOST"}})
	if g := f.group(); names(g.InSync) != "a c" || g.SetVersion != 4 || Role(g, f.Nodes["b"]) != RoleStandby {
		t.Fatalf("shrunk: %+v", g)
	}
}

func TestBounds(t *testing.T) {
	f := opened(t)
	for i := range maxPast + 5 {
		r := f.must(Command{StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon}})
		if r.Operation != uint64(i+1) {
			t.Fatalf("operation %d", r.Operation)
		}
		f.must(Command{AbortSwitch: &AbortSwitch{Group: "g", Operation: r.Operation}})
	}
	if len(f.Past) != maxPast || f.Past[0].ID != 6 {
		t.Fatalf("%d past operations from %d", len(f.Past), f.Past[0].ID)
	}
	epoch := ident.Epoch(1)
	for len(f.group().Switches) < maxSwitches || f.group().Switches[0].Epoch == 1 {
		f.must(Command{Fence: &Fence{Group: "g", Epoch: epoch, Force: true}})
		epoch++
		f.report("a", lifeA, position(1, 9))
		f.must(Command{Promote: &Promote{Group: "g", Epoch: epoch, To: "a", Incarnation: lifeA}})
	}
	if n := len(f.group().Switches); n != maxSwitches {
		t.Fatalf("%d certificates", n)
	}
}
