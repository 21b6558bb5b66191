package node

import (
	"testing"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// A node that starts has nothing to compare before it has opened its copies: it must not count anybody as compared with. A damaged copy, which
// stays closed, holds nothing up. Proves BX-7.
func TestChainsWaitForTheCopies(t *testing.T) {
	n := &Node{replicas: &replicas{open: map[ident.GroupName]*replica.Replica{}}}
	c := newChains(n)
	st := &fsm.State{Groups: map[ident.GroupName]*fsm.Group{"one": {}, "two": {}}}
	if c.opened(st) {
		t.Error("no copy is open")
	}
	n.replicas.open["one"] = &replica.Replica{}
	if c.opened(st) {
		t.Error("the copy of two is not open")
	}
	n.damages.set("two", client.RotPlace{})
	if !c.opened(st) {
		t.Error("one is open, and two is damaged")
	}
	n.damages.clear("two")
	n.replicas.open["two"] = &replica.Replica{}
	if !c.opened(st) || !c.opened(&fsm.State{}) {
		t.Error("all are open")
	}
}
