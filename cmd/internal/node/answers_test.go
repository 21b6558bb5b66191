package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// planState has groups g00 to g(n-1), opened here, which are all asked about some plans.
func planState(n int, plans ...uint64) *fsm.State {
	st := &fsm.State{Groups: map[ident.GroupName]*fsm.Group{}}
	var names []ident.GroupName
	for i := range n {
		name := ident.GroupName(fmt.Sprintf("g%02d", i))
		names = append(names, name)
		st.Groups[name] = &fsm.Group{Spec: fsm.GroupSpec{Name: name}, Phase: fsm.PhaseOpened, Epoch: 1, Primary: "a"}
	}
	for _, id := range plans {
		st.Planned = append(st.Planned, fsm.Plan{ID: id, Spec: fsm.GroupSpec{Name: ident.GroupName(fmt.Sprint("p", id))}, Ask: names})
	}
	return st
}

// Proves HB-2, TR-7: a group is asked for all its plans at a time; only where this node is its primary, and not again for what it has said; and
// groups that do not answer do not keep others from it.
func TestWhoIsAskedAboutPlans(t *testing.T) {
	st := planState(3, 7, 8)
	st.Groups["g01"].Primary = "b"
	st.Groups["g02"].Phase = fsm.PhaseFenced
	all := asked(st, "a", map[question]bool{{7, "g00", 2}: true})
	if len(all) != 1 || all[0].group != "g00" || len(all[0].plans) != 2 {
		t.Errorf("asked: %+v", all)
	}
	if all := asked(st, "a", map[question]bool{{7, "g00", 1}: true}); len(all) != 1 || len(all[0].plans) != 1 || all[0].plans[0].ID != 8 {
		t.Errorf("asked after an answer: %+v", all)
	}

	many := asked(planState(3*answersAtOnce, 7), "a", nil)
	seen, last, busy := map[ident.GroupName]int{}, ident.GroupName(""), map[ident.GroupName]bool{}
	for range 3 { // nobody answers, and all give up together
		clear(busy)
		for _, q := range next(slices.Clone(many), busy, last) {
			busy[q.group], last = true, q.group
			seen[q.group]++
		}
		if len(busy) != answersAtOnce {
			t.Errorf("%d at once", len(busy))
		}
		if more := next(slices.Clone(many), busy, last); len(more) != 0 {
			t.Errorf("%d more while all are busy", len(more))
		}
	}
	if len(seen) != len(many) {
		t.Errorf("%d of %d groups had their turn", len(seen), len(many))
	}
}

// Proves HB-2, TR-7: groups are looked into side by side, so that one which hangs does not hold up the others; some at a time; again after a
// failure, once after an answer; and nothing goes on after the end.
func TestPlansAreAnsweredSideBySide(t *testing.T) {
	const groups = answersAtOnce + 4
	var mu sync.Mutex
	st, changed := planState(groups, 7), make(chan struct{})
	looks, running, most := map[ident.GroupName]int{}, 0, 0
	state := func() (*fsm.State, <-chan struct{}) {
		mu.Lock()
		defer mu.Unlock()
		return st, changed
	}
	answer := func(ctx context.Context, q inquiry) ([]question, error) {
		mu.Lock()
		looks[q.group]++
		n := looks[q.group]
		running++
		most = max(most, running)
		mu.Unlock()
		defer func() {
			mu.Lock()
			running--
			mu.Unlock()
		}()
		switch {
		case q.group == "g00":
			<-ctx.Done()
			return nil, ctx.Err()
		case q.group == "g01" && n == 1:
			return nil, errors.New("no primary yet")
		}
		return []question{q.question(&q.plans[0])}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answering(ctx, "a", state, answer)
	}()
	all := func(rounds int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for i := range groups {
				want := rounds
				if i == 1 {
					want++
				}
				if i > 0 && looks[ident.GroupName(fmt.Sprintf("g%02d", i))] != want {
					return false
				}
			}
			return true
		}
	}
	await(t, "all but the one that hangs have answered", all(1))
	mu.Lock()
	st = planState(groups, 7, 8) // the state does not show the answers yet, and there is another plan
	close(changed)
	changed = make(chan struct{})
	mu.Unlock()
	await(t, "the other plan is answered, and that one only", all(2))
	cancel()
	<-ended
	mu.Lock()
	defer mu.Unlock()
	if running != 0 || most > answersAtOnce {
		t.Errorf("%d are running after the end, %d were at once", running, most)
	}
}
