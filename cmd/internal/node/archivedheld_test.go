package node

import (
	"testing"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/internal/ident"
)

// What was read back is forgotten once the receiver is not here any more: the list does not grow for ever. Proves HB-6.
func TestArchiverForgetsWhatIsGone(t *testing.T) {
	n := &Node{}
	n.replicas = newReplicas(n, nil)
	a := &archiver{node: n, held: map[archive.Name]bool{}, newest: map[ident.JournalID]ident.ReceiverNumber{}}
	name := archive.Name{Cluster: "c", Journal: ident.JournalID{Group: "orders", Node: "a"}, Number: 7}
	a.held[name] = true
	if err := a.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Holds(name) || len(a.held) != 0 {
		t.Errorf("held: %v", a.held)
	}
}
