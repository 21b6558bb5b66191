package node

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
	"github.com/understudy-ha/understudy/replica/core"
)

// fullReason names the journal, the limit and why it is reached.
func fullReason(err error) string {
	var full *journal.FullError
	if errors.As(err, &full) {
		return full.Error()
	}
	return err.Error()
}

// fullRemedy names who keeps the receivers of a full journal, and what helps.
func (n *Node) fullRemedy(group ident.GroupName, err error) string {
	var kept []string
	var full *journal.FullError
	if rep := n.replicas.get(group); rep != nil && errors.As(err, &full) {
		kept = rep.Kept(full.Journal.Node)
	}
	return "surely nothing was done: " + replica.FullRemedy(err, kept)
}

// runway is how long a journal lasts, if it grows at all: the journals of nodes that are not the primary do not, whatever they did a
// moment ago.
func runway(j replica.JournalStatus) time.Duration {
	if j.State != journal.Active {
		return core.RunwayUnknown
	}
	return j.Space.Runway
}

// runwaySeconds is a runway for people and programs; 0: not known, or there is no end.
func runwaySeconds(d time.Duration) float64 {
	if d < 0 || d == core.RunwayEndless {
		return 0
	}
	return d.Seconds()
}

// runwayGauge is a runway as a metric; ok is false when it is not known.
func runwayGauge(d time.Duration) (seconds float64, ok bool) {
	switch {
	case d < 0:
		return 0, false
	case d == core.RunwayEndless:
		return math.Inf(1), true
	}
	return d.Seconds(), true
}

// ownRunway is the runway of the primary's own journal.
func ownRunway(s replica.Status) float64 {
	for _, j := range s.Journals {
		if j.Local {
			return runwaySeconds(runway(j))
		}
	}
	return 0
}

func droppedNodes(g *fsm.Group) (out []client.DroppedNode) {
	for _, d := range g.Dropped {
		out = append(out, client.DroppedNode{Node: string(d.Node), Epoch: uint64(d.Epoch), At: d.At, Reason: d.Reason, LastCopy: d.LastCopy})
	}
	return out
}

// spaceNotes says what is short of room, and who was dropped for that.
func (n *Node) spaceNotes(g *fsm.Group) (out []string) {
	if rep := n.replicas.get(g.Spec.Name); rep != nil {
		if why := rep.Status().Full(false); why != "" {
			out = append(out, why)
		}
	}
	for _, d := range g.Dropped {
		text := fmt.Sprintf("%s was dropped at %s (%s): it needs priming, or readmission if its copy still connects", d.Node, clock(d.At), d.Reason)
		if d.LastCopy {
			text += "; it was the last other copy"
		}
		out = append(out, text)
	}
	return out
}
