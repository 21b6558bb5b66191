package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Proves that a failover with accepted loss fences no epoch but that of its forecast: an automatic failover that opened
// meanwhile gave the role to somebody the operator was not shown. One that loses nothing is proposed again. Proves BX-4.
func TestFencingKeepsToItsForecast(t *testing.T) {
	for _, c := range []struct {
		name   string
		accept *fsm.Acceptance
		epochs []ident.Epoch // of the group, at every look and proposal
		want   []ident.Epoch // proposed
		ends   string
	}{
		{"nothing came first", &fsm.Acceptance{}, []ident.Epoch{3}, []ident.Epoch{3}, ""},
		{"another failover came first", &fsm.Acceptance{}, []ident.Epoch{4, 4, 4, 4}, []ident.Epoch{3}, fsm.RefusedEpoch},
		{"without loss: at the newer epoch", nil, []ident.Epoch{3, 4, 4, 4}, []ident.Epoch{3, 4}, ""},
		{"without loss: not without end", nil, []ident.Epoch{3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9}, []ident.Epoch{3, 4, 5, 6, 7}, fsm.RefusedEpoch},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := func() (e ident.Epoch) {
				e, c.epochs = c.epochs[0], c.epochs[1:]
				return e
			}
			var proposed []ident.Epoch
			f := fsm.Fence{Accept: c.accept}
			if c.accept != nil {
				f.Epoch = 3
			}
			res, err := fencing{
				epoch: func() (ident.Epoch, error) { return now(), nil },
				propose: func(f fsm.Fence) (fsm.Result, error) {
					proposed = append(proposed, f.Epoch)
					if f.Epoch != now() {
						return fsm.Result{Refused: fsm.RefusedEpoch}, nil
					}
					return fsm.Result{Operation: 7}, nil
				},
			}.run(f)
			if err != nil || res.Refused != c.ends || !slices.Equal(proposed, c.want) {
				t.Fatalf("proposed at %v, want %v: %+v, %v", proposed, c.want, res, err)
			}
		})
	}
}

// Proves that a pause names the groups whose set cannot become whole before it ends: a secondary that was being restarted when
// it began stays outside. Proves TR-1.
func TestPauseWarnsOfSmallSets(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{"a": {Kind: fsm.KindData}, "b": {Kind: fsm.KindData}, "c": {Kind: fsm.KindData}, "w": {Kind: fsm.KindWitness}}
	for _, c := range []struct {
		name string
		spec fsm.GroupSpec
		at   []ident.NodeID // the set when the pause began
		set  []ident.NodeID // now
		want string
	}{
		{name: "whole", at: []ident.NodeID{"a", "b"}, set: []ident.NodeID{"a", "b"}},
		{name: "whole when it began: its member may return", at: []ident.NodeID{"a", "b"}, set: []ident.NodeID{"a"}},
		{name: "alone", at: []ident.NodeID{"a"}, set: []ident.NodeID{"a"}, want: "group g keeps 0 of 1 in-sync secondaries; outside the set"},
		{name: "alone under hold", spec: fsm.GroupSpec{OnNoSync: fsm.NoSyncHold}, at: []ident.NodeID{"a"}, set: []ident.NodeID{"a"}, want: "kept out of it until the end: b, c; writes wait meanwhile"},
		{name: "alone under refuse", spec: fsm.GroupSpec{OnNoSync: fsm.NoSyncRefuse}, at: []ident.NodeID{"a"}, set: []ident.NodeID{"a"}, want: "writes are refused meanwhile"},
		{name: "a growth had begun", at: []ident.NodeID{"a"}, set: []ident.NodeID{"a", "b"}},
		{name: "one of two", spec: fsm.GroupSpec{Secondaries: 2}, at: []ident.NodeID{"a", "b"}, set: []ident.NodeID{"a", "b"}, want: "keeps 1 of 2 in-sync secondaries"},
		{name: "more are wanted than there are", spec: fsm.GroupSpec{Secondaries: 3}, at: []ident.NodeID{"a", "b", "c"}, set: []ident.NodeID{"a", "b", "c"}},
		{name: "async asks for nobody", spec: fsm.GroupSpec{Delivery: fsm.DeliveryAsync}, at: []ident.NodeID{"a"}, set: []ident.NodeID{"a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Name = "g"
			st := &fsm.State{Nodes: nodes, Pause: &fsm.Pause{Members: map[ident.GroupName][]ident.NodeID{"g": c.at}},
				Groups: map[ident.GroupName]*fsm.Group{"g": {Spec: c.spec.Normalize(), Phase: fsm.PhaseOpened, Primary: "a", InSync: c.set}}}
			got := pauseWarning(st)
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Fatalf("%q, want %q", got, c.want)
			}
		})
	}
}
