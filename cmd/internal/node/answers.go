package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// Bounds of answers to plans.
const (
	answersAtOnce = 8                      // groups that are looked into side by side
	answerTime    = 5 * time.Second        // of one look into a group, for all plans that ask for it
	answerWait    = 100 * time.Millisecond // after one that failed
)

// question is a plan that a group is asked about, in the epoch of its primary.
type question struct {
	plan  uint64
	group ident.GroupName
	epoch ident.Epoch
}

// inquiry is what one group is asked at a time.
type inquiry struct {
	group ident.GroupName
	epoch ident.Epoch
	plans []fsm.Plan
}

func (q *inquiry) question(p *fsm.Plan) question { return question{p.ID, q.group, q.epoch} }

// asked lists what a node has to answer as primary, by group. What it has answered is left out: its state may not show that yet.
func asked(st *fsm.State, self ident.NodeID, answered map[question]bool) (all []inquiry) {
	by := map[ident.GroupName]int{}
	for _, p := range st.Planned {
		for _, name := range p.Ask {
			g := st.Groups[name]
			if g == nil || g.Phase != fsm.PhaseOpened || g.Primary != self || answered[question{p.ID, name, g.Epoch}] {
				continue
			}
			i, ok := by[name]
			if !ok {
				i = len(all)
				by[name] = i
				all = append(all, inquiry{group: name, epoch: g.Epoch})
			}
			all[i].plans = append(all[i].plans, p)
		}
	}
	slices.SortFunc(all, func(a, b inquiry) int { return cmp.Compare(a.group, b.group) })
	return all
}

// next chooses the groups that are looked into now: those behind the last one first, so that some that cannot answer do not keep the others
// from it.
func next(all []inquiry, busy map[ident.GroupName]bool, last ident.GroupName) []inquiry {
	behind := slices.IndexFunc(all, func(q inquiry) bool { return q.group > last })
	if behind > 0 {
		all = slices.Concat(all[behind:], all[:behind])
	}
	all = slices.DeleteFunc(all, func(q inquiry) bool { return busy[q.group] })
	return all[:min(len(all), max(0, answersAtOnce-len(busy)))]
}

// answerPlans answers for the groups that this node is the primary of, whenever a group is planned that may take records from
// them, until ctx ends.
func (n *Node) answerPlans(ctx context.Context) error {
	if n.config.Kind == fsm.KindData {
		answering(ctx, n.config.Node, n.cluster.State, n.answer)
	}
	return nil
}

// answering has groups looked into, some of them side by side, until ctx ends. One that fails is looked into again.
func answering(ctx context.Context, self ident.NodeID, state func() (*fsm.State, <-chan struct{}), answer func(context.Context, inquiry) ([]question, error)) {
	type look struct {
		group ident.GroupName
		done  []question
	}
	var looks sync.WaitGroup
	defer looks.Wait()
	ended := make(chan look, answersAtOnce) // so that nobody waits at the end
	busy, answered := map[ident.GroupName]bool{}, map[question]bool{}
	var last ident.GroupName
	for {
		st, changed := state()
		open := map[question]bool{}
		for _, q := range asked(st, self, nil) {
			for i := range q.plans {
				open[q.question(&q.plans[i])] = true
			}
		}
		for q := range answered {
			if !open[q] {
				delete(answered, q)
			}
		}
		for _, q := range next(asked(st, self, answered), busy, last) {
			busy[q.group], last = true, q.group
			looks.Go(func() {
				in, cancel := context.WithTimeout(ctx, answerTime)
				defer cancel()
				done, err := answer(in, q)
				if err != nil {
					_ = sleep(ctx, answerWait) // the end of ctx is seen below
				}
				ended <- look{q.group, done}
			})
		}
		select {
		case <-changed:
		case l := <-ended:
			delete(busy, l.group)
			for _, q := range l.done {
				answered[q] = true
			}
		case <-ctx.Done():
			return
		}
	}
}

// answer looks whether a group holds records of planned ones, and returns what was said. This node's state shows the plans, so the
// sequencer refuses such records from now on; the barrier ends once what it took before is committed and in the store. A later primary has
// seen the plans before it opens. So what is not there now never will be.
func (n *Node) answer(ctx context.Context, q inquiry) (done []question, err error) {
	defer func() {
		if err != nil && !errors.Is(err, context.Canceled) {
			n.log.Debug("plans are not answered yet", "group", q.group, "plans", len(q.plans), "error", err)
		}
	}()
	rep := n.replicas.get(q.group)
	if rep == nil {
		return nil, replica.ErrNotAttached
	}
	if _, err := rep.Write(ctx, replica.Transaction{Program: func(*replica.View) error { return nil }}); err != nil {
		return nil, fmt.Errorf("wait for the writes before: %w", err)
	}
	for i := range q.plans {
		p := &q.plans[i]
		holds, err := heldFor(ctx, n.selection(), rep, q.group, p.Spec.Name)
		if err != nil {
			return done, fmt.Errorf("look for records: %w", err)
		}
		res, err := n.cluster.Propose(ctx, fsm.Command{AnswerPlan: &fsm.AnswerPlan{Plan: p.ID, Group: q.group, Epoch: q.epoch, Node: n.config.Node, Holds: holds}})
		if err != nil {
			return done, err
		}
		done = append(done, q.question(p))
		n.log.Info("answered for a planned group", "group", q.group, "planned", p.Spec.Name, "holds", holds, "refused", res.Refused)
	}
	return done, nil
}

func foundText(group, to ident.GroupName, file string, key []byte) string {
	return fmt.Sprintf("group %s holds records that would be group %s's, such as key %.100q of file %q", group, to, key, file)
}
