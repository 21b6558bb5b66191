package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// closingOf is the closing of a group in the epoch of its primary.
type closingOf struct {
	id    uint64
	epoch ident.Epoch
}

// closings lists the groups that a node has to answer for as primary.
func closings(st *fsm.State, self ident.NodeID, life ident.Incarnation) map[ident.GroupName]closingOf {
	all := map[ident.GroupName]closingOf{}
	for name, g := range st.Groups {
		if g.Closing != nil && g.Phase == fsm.PhaseOpened && g.Holds(self, life) {
			all[name] = closingOf{g.Closing.ID, g.Epoch}
		}
	}
	return all
}

// closer answers for the groups that this node is the primary of and that are to be deleted. Until the state shows that a group stays, this
// node answers nothing for it any more once it has looked: the group may be deleted by then, and its records another one's.
type closer struct {
	control interface {
		State() (*fsm.State, <-chan struct{})
		Withhold(g ident.GroupName, e ident.Epoch, yes bool)
		Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
	}
	self ident.NodeID
	life ident.Incarnation
	part func(ident.GroupName) closingPart

	withheld map[ident.GroupName]closingOf
}

// closingPart is the primary's part of a group.
type closingPart interface {
	Drain(ctx context.Context) error
	FirstHeld() (*replica.Held, error)
}

// answerClosings runs a closer until ctx ends.
func (n *Node) answerClosings(ctx context.Context) error {
	if n.config.Kind != fsm.KindData {
		return nil
	}
	c := &closer{control: n.cluster, self: n.config.Node, life: n.directory.life, part: func(g ident.GroupName) closingPart {
		if rep := n.replicas.get(g); rep != nil {
			return rep
		}
		return nil
	}}
	c.run(ctx, func(g ident.GroupName, holds string, err error) {
		n.log.Info("looked into a group that is to be deleted", "group", g, "holds", holds, "error", err)
	})
	return nil
}

// run answers, group beside group, until ctx ends. What fails is tried again while the closing lasts.
func (c *closer) run(ctx context.Context, tell func(g ident.GroupName, holds string, err error)) {
	c.withheld = map[ident.GroupName]closingOf{}
	var looks sync.WaitGroup
	defer looks.Wait()
	type look struct {
		group ident.GroupName
		of    closingOf
		said  bool
	}
	ended := make(chan look)
	drained := make(chan look)
	busy, said := map[ident.GroupName]bool{}, map[ident.GroupName]closingOf{}
	for {
		st, changed := c.control.State()
		due := closings(st, c.self, c.life)
		for name, of := range c.withheld {
			if due[name] != of && !busy[name] { // one that is under way may yet answer
				c.control.Withhold(name, of.epoch, false)
				delete(c.withheld, name)
			}
		}
		maps.DeleteFunc(said, func(name ident.GroupName, of closingOf) bool { return due[name] != of })
		for name, of := range due {
			if busy[name] || said[name] == of {
				continue
			}
			busy[name] = true
			again := c.withheld[name] == of
			looks.Go(func() {
				in, cancel := context.WithTimeout(ctx, answerTime)
				defer cancel()
				holds, err := c.answer(in, name, of, again, func() {
					select {
					case drained <- look{group: name, of: of}:
					case <-ctx.Done():
					}
				})
				tell(name, holds, err)
				if err != nil {
					_ = sleep(ctx, answerWait) // the end of ctx is seen below
				}
				select {
				case ended <- look{name, of, err == nil}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-changed:
		case l := <-drained:
			c.withheld[l.group] = l.of
		case l := <-ended:
			delete(busy, l.group)
			if l.said {
				said[l.group] = l.of
			}
		case <-ctx.Done():
			return
		}
	}
}

// answer looks whether a group holds records, and says so. This node's state shows the closing, so the sequencer takes nothing more: when
// what it took before is in the store, the look is exact, and stays so in this epoch. Before the look this node stops to answer reads.
// again: all that was done for the same closing before, and only the answer may be missing.
func (c *closer) answer(ctx context.Context, name ident.GroupName, of closingOf, again bool, withheld func()) (holds string, err error) {
	part := c.part(name)
	if part == nil {
		return "", replica.ErrNotAttached
	}
	if !again {
		if err := part.Drain(ctx); err != nil {
			return "", fmt.Errorf("wait for the writes before: %w", err)
		}
		withheld()
		c.control.Withhold(name, of.epoch, true)
	}
	held, err := part.FirstHeld()
	if err != nil {
		return "", fmt.Errorf("look for records: %w", err)
	}
	if held != nil {
		holds = heldText(name, held)
	}
	res, err := c.control.Propose(ctx, fsm.Command{AnswerClosing: &fsm.AnswerClosing{Closing: of.id, Group: name, Epoch: of.epoch, Node: c.self, Holds: holds}})
	if err == nil && res.Refused != "" {
		err = errors.New(res.Detail)
	}
	return holds, err
}

func heldText(group ident.GroupName, h *replica.Held) string {
	return fmt.Sprintf("group %s holds records, such as key %.100q of file %.100q", group, h.Key, h.File)
}
