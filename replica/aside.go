package replica

import (
	"errors"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// receiversAhead is how many receivers a new primary's journal comes with: the one that was attached when it ceased to be primary, and the
// one that was attached for the switch-over.
const receiversAhead = 2

// setAside makes, while writes still go on, the files into which this node will copy the first bundles of whom a switch-over leads to: the
// acknowledgement of SW, for which everybody waits then, is not kept up by that. done is the operation for which it was made already.
func (r *Replica) setAside(g *fsm.Group, done *uint64) error {
	to := core.SwitchTarget(g)
	if to == "" || to == r.o.Node || g.Operation.ID == *done {
		return nil
	}
	*done = g.Operation.ID
	j, ok := r.shelf.get(to)
	if !ok || r.cramped(g.Spec) {
		return nil
	}
	if err := j.SetAside(receiversAhead); err != nil && !errors.Is(err, journal.ErrFull) { // a full one makes it when it is needed
		return journalFailed(j, err)
	}
	return nil
}

// cramped tells whether the disk has too little left for files that may not be needed: they would be missed by writes.
func (r *Replica) cramped(spec fsm.GroupSpec) bool {
	size := spec.ReceiverBytes
	if size <= 0 {
		size = journal.DefaultReceiverBytes
	}
	free := r.free()
	return free > 0 && free < 4*receiversAhead*size
}
