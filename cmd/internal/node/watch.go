package node

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// watch turns changes of the replicated state into events of this node's log, until ctx ends.
func (n *Node) watch(ctx context.Context) error {
	type seen struct {
		epoch ident.Epoch
		phase fsm.Phase
	}
	groups := map[ident.GroupName]seen{}
	told, first := map[uint64]bool{}, true // told: the past operations that were looked at; their ids do not ascend
	var members map[ident.NodeID]string
	var orders orderChanges
	plans, deletions := scheduleChanges{}, deletionChanges{}
	for {
		st, changed := n.cluster.State()
		n.lookAtLeases(st)
		members = n.noteMembers(st, members)
		orders.see(n, st)
		for _, g := range st.InOrder() {
			name := g.Spec.Name
			now := seen{epoch: g.Epoch, phase: g.Phase}
			if now != groups[name] && !first {
				n.announce(g)
			}
			groups[name] = now
		}
		plans.see(n, st, first)
		deletions.see(n, st, first)
		past := make(map[uint64]bool, len(st.Past))
		for i := range st.Past {
			op := &st.Past[i]
			if past[op.ID] = true; !told[op.ID] && !first {
				n.completed(op)
			}
		}
		told = past
		if own := st.Nodes[n.config.Node]; own != nil && own.Incarnation == n.directory.life {
			first = false // until here the log told what was before this life: it was told then
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) announce(g *fsm.Group) {
	fields := map[string]string{"epoch": g.Epoch.String(), "primary": string(g.Primary)}
	name := string(g.Spec.Name)
	switch g.Phase {
	case fsm.PhaseFenced:
		n.events.add("warning", name, "FENCED", fmt.Sprintf("epoch %s was taken; %s is not primary any more, a new one is being chosen", g.Epoch, g.Primary), fields)
	case fsm.PhasePromoted:
		if g.Epoch == 1 { // a new group, whose first primary is not the node that created it
			n.events.add("info", name, "PROMOTED", fmt.Sprintf("%s is to be the first primary of the new group", g.Primary), fields)
			return
		}
		n.events.add("warning", name, "PROMOTED", fmt.Sprintf("%s was chosen as primary for epoch %s and recovers", g.Primary, g.Epoch), fields)
	case fsm.PhaseOpened:
		n.events.add("info", name, "OPENED", fmt.Sprintf("%s is primary for epoch %s", g.Primary, g.Epoch), fields)
	}
}

func (n *Node) completed(op *fsm.Operation) {
	severity := "info"
	if op.State != fsm.OperationDone {
		severity = "warning"
	}
	switch op.Kind {
	case fsm.OperationDrop:
		n.events.add("error", string(op.Group), "NODE_DROPPED", fmt.Sprintf("node %s was dropped and needs priming: %s", op.From, op.Reason), map[string]string{"peer": string(op.From), "operation": fmt.Sprint(op.ID)})
		return
	case fsm.OperationReadmit:
		n.events.add("info", string(op.Group), "NODE_READMITTED", fmt.Sprintf("node %s takes part again, readmitted by %s", op.From, op.Reason), map[string]string{"peer": string(op.From), "operation": fmt.Sprint(op.ID)})
		return
	}
	if n.neverBegan(op) {
		return
	}
	n.timings.completed(op, n.config.Node)
	n.events.add(severity, string(op.Group), "OPERATION", account(op), map[string]string{"operation": fmt.Sprint(op.ID), "took": op.Ended.Sub(op.Started).Round(time.Millisecond).String()})
}

// replicaEvent records what a replica reports of itself.
func (n *Node) replicaEvent(e replica.Event) {
	severity := "info"
	switch e.Kind {
	case replica.EventShadowLost, replica.EventSecondaryLost, replica.EventNoSync, replica.EventBackedOut, replica.EventRejournaled, replica.EventVetoed:
		severity = "warning"
	case replica.EventNeedsPriming, replica.EventJournalFull, replica.EventNotPromised:
		severity = "error"
	}
	fields := map[string]string{}
	if e.Epoch != 0 {
		fields["epoch"] = e.Epoch.String()
	}
	if e.Peer != "" {
		fields["peer"] = string(e.Peer)
	}
	if e.Shadows != "" {
		fields["shadows"] = e.Shadows
	}
	if e.Journal.Node != "" {
		fields["journal"] = e.Journal.String()
	}
	if e.First != 0 {
		fields["first"], fields["last"] = e.First.String(), e.Last.String()
	}
	if !e.Position.IsZero() {
		fields["position"] = e.Position.String()
	}
	text := e.Detail
	if text == "" {
		text = eventText(e.Kind)
	}
	n.events.add(severity, string(e.Group), string(e.Kind), text, fields)
}

// eventText says in words what a kind of event means.
func eventText(k replica.EventKind) string {
	switch k {
	case replica.EventPrimary:
		return "this node serves as primary"
	case replica.EventStandby:
		return "this node is a standby: a spare outside the in-sync set"
	case replica.EventSecondary:
		return "this node is an in-sync secondary"
	case replica.EventShadowLost:
		return "the last in-sync secondary was lost: this primary is alone"
	case replica.EventSecondaryLost:
		return "one of several in-sync secondaries left the set"
	case replica.EventShadowGain:
		return "an in-sync secondary was gained"
	case replica.EventRecovered:
		return "the recovery of this copy is complete"
	case replica.EventNoSync:
		return "writes wait or are refused: there is no in-sync secondary"
	case replica.EventSyncBack:
		return "writes go on: an in-sync secondary is back"
	case replica.EventPromised:
		return "older epochs are refused from here on"
	case replica.EventRejournaled:
		return "the unconfirmed end was taken into this node's own journal"
	case replica.EventTrimmed:
		return "the end of a journal copy was removed"
	case replica.EventBackedOut:
		return "entries were undone; see the back-out report"
	case replica.EventNeedsPriming:
		return "this copy cannot be brought level from the journals"
	case replica.EventReceiver:
		return "a new receiver was attached"
	case replica.EventReceiversGone:
		return "old receivers were deleted"
	case replica.EventNotRecorded:
		return "what was replayed here was not recorded for want of room"
	case replica.EventJournalFull:
		return "a journal takes nothing for want of room"
	case replica.EventJournalFree:
		return "a journal has room again"
	case replica.EventVetoed:
		return "a receiver that nobody needs is kept: a program objects to its deletion"
	case replica.EventFeeder:
		return "this copy is fed by another node than before"
	case replica.EventRecalled:
		return "receivers are read back from the archive for a node that was away"
	}
	return strings.ToLower(strings.ReplaceAll(string(k), "_", " "))
}

// version names the program: its module version, or "devel" with the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += "-" + s.Value[:12]
		}
	}
	return v
}
