package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// groupShown is a group's keys, and what is going to happen to it.
type groupShown struct {
	client.GroupChange
	Scheduled *client.Operation `json:"scheduled,omitempty"`
}

// writeScheduled says what was scheduled, and how it is called off.
func writeScheduled(w io.Writer, o client.Operation) {
	fmt.Fprintf(w, "Switch-over %d of group %s, %s, is scheduled for %s, in %s.\n", o.ID, o.Group, fromTo(o.From, o.To), humanSecond(o.Schedule.At), humanDuration(time.Until(o.Schedule.At).Round(time.Second)))
	fmt.Fprintf(w, "  `understudy cancel %s` calls it off, `understudy operation show %d` tells what became of it\n", o.Group, o.ID)
}

// neverBeganText says why a scheduled switch-over did not begin.
func neverBeganText(o client.Operation) string {
	if o.Error == "" || strings.HasPrefix(o.Error, o.Schedule.Outcome) {
		return cmp.Or(o.Error, o.Schedule.Outcome)
	}
	return o.Schedule.Outcome + ": " + o.Error
}

// neverBegan tells whether an operation is a scheduled one that ended before it began.
func neverBegan(o client.Operation) bool {
	return o.Finished() && o.Schedule != nil && o.Schedule.Outcome != client.ScheduleStarted
}
