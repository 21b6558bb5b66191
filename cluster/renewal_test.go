package cluster

import (
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A node numbers the renewals of a life, and one of them that arrives late does not set back what is known of its copies. Its next life
// counts anew. Proves RJ-5.
func TestRenewalsAreNumbered(t *testing.T) {
	a := newMachine(t, "a")
	told := bootstrap(fsm.GroupSpec{Name: group, Preferred: "a"})
	ends := func(o *Options) {
		o.Copies = func() map[ident.GroupName]fsm.Ends { return map[ident.GroupName]fsm.Ends{group: {"b": 3}} }
	}
	self := func() *fsm.Node { st, _ := a.State(); return st.Nodes["a"] }
	a.start(told, ends)
	eventually(t, "some renewals", func() bool { n := self(); return n != nil && n.Number > 2 && n.Copies[group]["b"] == 3 })
	late := fsm.Renew{Node: "a", Directory: a.directory, Incarnation: a.life, Number: 1, Copies: map[ident.GroupName]fsm.Ends{group: {"b": 900}}}
	if res := a.propose(fsm.Command{Renew: &late}); !res.Passed {
		t.Fatalf("%+v", res)
	}
	if n := self(); n.Copies[group]["b"] != 3 || n.Number < 3 {
		t.Fatalf("%+v", n)
	}
	last := late
	last.Number = 1 << 30
	a.propose(fsm.Command{Renew: &last})
	life := a.life
	a.stop(false)
	a.start(ends)
	eventually(t, "the next life", func() bool {
		n := self()
		return n != nil && n.Incarnation > life && n.Number > 0 && n.Number < last.Number && n.Copies[group]["b"] == 3
	})
}
