package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

const (
	pausesTold  = 10                    // so many of the last switch-overs are told of
	pauseUnseen = 50 * time.Millisecond // said where none was measured yet
)

// measuredPauses returns for how long the last switch-overs of a group held writes, the newest last.
func measuredPauses(st *fsm.State, group ident.GroupName) (all []time.Duration) {
	for i := range st.Past {
		op := &st.Past[i]
		if op.Group != group || op.Kind != fsm.OperationSwitchover || op.State != fsm.OperationDone {
			continue
		}
		if pause, ok := switchPause(op); ok {
			all = append(all, pause)
		}
	}
	return all[max(0, len(all)-pausesTold):]
}

// expectedPause says for how long a switch-over of the group will hold writes, by those before: the middle one of them; and in words
// what that rests on.
func expectedPause(st *fsm.State, group ident.GroupName) (time.Duration, string) {
	all := measuredPauses(st, group)
	if len(all) == 0 {
		return pauseUnseen, fmt.Sprintf("no switch-over of group %s was measured yet: the pause is a guess", group)
	}
	text := fmt.Sprintf("the last switch-over held writes for %s", all[0].Round(100*time.Microsecond))
	if len(all) > 1 {
		text = fmt.Sprintf("the last %d switch-overs held writes for %s to %s", len(all), slices.Min(all).Round(100*time.Microsecond), slices.Max(all).Round(100*time.Microsecond))
	}
	slices.Sort(all)
	return all[len(all)/2], text
}
