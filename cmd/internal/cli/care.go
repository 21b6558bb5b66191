package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// maxRotLines is how many rotten places the status names one by one.
const maxRotLines = 5

// rotConcerns lists what the check in the background has found and could not repair.
func rotConcerns(node string, s *client.Scrub) (all []string) {
	if s == nil {
		return nil
	}
	for i, p := range s.Rot {
		if i == maxRotLines {
			return append(all, fmt.Sprintf("node %s: %s more", node, plural(len(s.Rot)-i, "place is rotten", "places are rotten")))
		}
		where := fmt.Sprintf("receiver %06d", p.Receiver)
		if p.Receiver == 0 {
			where = "the state file"
		}
		all = append(all, fmt.Sprintf("node %s: %s of journal %s is rotten at byte %d (%s): %s", node, where, p.Journal, p.Offset, p.Kind, p.Detail))
	}
	return all
}

// writeScrub says how far the check in the background is.
func writeScrub(w io.Writer, node string, s *client.Scrub) {
	if s == nil {
		return
	}
	fmt.Fprintf(w, "Check of the journals on %s: %s\n", node, scrubText(s, time.Now()))
}

func scrubText(s *client.Scrub, now time.Time) string {
	text := "no pass is finished yet"
	switch {
	case s.Rate == 0:
		return "switched off"
	case !s.Finished.IsZero():
		text = fmt.Sprintf("%s, the last one %s ago", plural(int(s.Passes), "pass", "passes"), humanDuration(now.Sub(s.Finished).Truncate(time.Second)))
	}
	if s.Running {
		text += "; one runs"
		if s.Total > 0 {
			text += fmt.Sprintf(", %d %% of %s", 100*s.Checked/s.Total, humanBytes(s.Total))
		}
		if s.Journal != "" && s.Receiver != 0 {
			text += fmt.Sprintf(", at receiver %06d of %s", s.Receiver, s.Journal)
		}
	}
	if s.Found > 0 {
		text += fmt.Sprintf("; found %d, repaired %d", s.Found, s.Repaired)
	}
	return text
}

// writeKept says what the answering node keeps of the group beside its journals.
func writeKept(w io.Writer, g client.GroupStatus) {
	if a := g.Archive; a != nil {
		fmt.Fprintf(w, "  archive %s", a.URL)
		for _, id := range sortedKeys(a.Newest) {
			fmt.Fprintf(w, "; %s up to receiver %06d", id, a.Newest[id])
		}
		if a.Pending > 0 {
			fmt.Fprintf(w, "; %s not archived yet", plural(a.Pending, "receiver is", "receivers are"))
		}
		fmt.Fprintln(w)
	}
	if j := g.Replays; j != nil {
		fmt.Fprintf(w, "  replays recorded: %s in %s, at most %s\n", humanBytes(j.Bytes), plural(j.Receivers, "receiver", "receivers"), limitText(j.Limit))
	}
}
