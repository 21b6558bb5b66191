package core

import (
	"slices"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// ServerRole is what a server is in its group.
type ServerRole string

// Roles of a server. ServerUndecided is also the role of a life that has not begun: between two epochs nobody knows what
// he is, and nothing is told.
const (
	ServerUndecided ServerRole = ""
	ServerPrimary   ServerRole = "primary"
	ServerSecondary ServerRole = "secondary"
	ServerStandby   ServerRole = "standby"
)

// Server is what one life of one node is for one group at one moment. The zero Server is a life that has not begun.
type Server struct {
	Role       ServerRole
	Epoch      ident.Epoch    // of the role
	Primary    ident.NodeID   // of the group
	Partners   []ident.NodeID // of a member of the in-sync set: the others, sorted; a primary's are its shadows
	Recovering bool           // it has not finished bringing its copy back
}

// OwnFacts are what the replicated state does not tell of a server.
type OwnFacts struct {
	Serving    bool // as primary: opened, and its redo is done
	Recovering bool
}

// Observe returns what the node is for the group. Until the state shows a renewal of this life it may be one from before it
// began, and says nothing about it.
func Observe(a fsm.Assignment, own OwnFacts) Server {
	g, n := a.Group, a.Nodes[a.Self]
	if g == nil || n == nil || n.Kind != fsm.KindData || n.Incarnation != a.Life || g.Phase != fsm.PhaseOpened {
		return Server{}
	}
	s := Server{Epoch: g.Epoch, Primary: g.Primary, Recovering: own.Recovering}
	if g.InSet(a.Self) {
		s.Partners = slices.DeleteFunc(slices.Sorted(slices.Values(g.InSync)), func(n ident.NodeID) bool { return n == a.Self })
	}
	switch {
	case g.Primary == a.Self && g.Incarnation == a.Life && own.Serving:
		s.Role = ServerPrimary
	case g.Primary == a.Self: // it has still to be redone, or the role belongs to another life of this node
		return Server{}
	case g.InSet(a.Self) && own.Recovering: // it could not take over yet
		return Server{}
	case g.InSet(a.Self):
		s.Role = ServerSecondary
	default:
		s.Role = ServerStandby
	}
	return s
}

// ServerEventKind is the published name of an event.
type ServerEventKind string

// Events of a server, by their published names (Reliable Transaction Router).
const (
	SRPrimary     ServerEventKind = "SRPRIMARY"     // this server has become primary, also at its start
	SRStandby     ServerEventKind = "SRSTANDBY"     // this server has become a spare
	SRSecondary   ServerEventKind = "SRSECONDARY"   // this server has become an in-sync shadow, recovered and in the set
	SRShadowLost  ServerEventKind = "SRSHADOWLOST"  // this primary has lost its last shadow and goes on alone
	SRShadowGain  ServerEventKind = "SRSHADOWGAIN"  // this primary has gained a shadow
	SRRecoverCmpl ServerEventKind = "SRRECOVERCMPL" // this server has finished its recovery
)

// ServerEvent is one event of this server.
type ServerEvent struct {
	Kind ServerEventKind
	Peer ident.NodeID // who was gained or lost; else the primary, when that is another node
}

// Transition returns the events of a server that was before and is after, in the order in which they are told. An undecided
// after tells nothing: compare the next decided one with the same before, in which Recovering is set when a recovery begins. So the change of another group, of another node's
// role, or of the primary under a server that keeps its own role, tells nothing either.
func Transition(before, after Server) []ServerEvent {
	if after.Role == ServerUndecided {
		return nil
	}
	var events []ServerEvent
	tell := func(k ServerEventKind, peer ident.NodeID) { events = append(events, ServerEvent{k, peer}) }
	if before.Recovering && !after.Recovering {
		peer := after.Primary
		if after.Role == ServerPrimary {
			peer = ""
		}
		tell(SRRecoverCmpl, peer)
	}
	switch after.Role {
	case ServerSecondary:
		if before.Role != ServerSecondary {
			tell(SRSecondary, after.Primary)
		}
		return events
	case ServerStandby:
		if before.Role != ServerStandby {
			tell(SRStandby, after.Primary)
		}
		return events
	}
	if before.Role != ServerPrimary || before.Epoch != after.Epoch {
		tell(SRPrimary, "")
	}
	lost, gained := Partners(before, after)
	if len(after.Partners) == 0 && len(lost) > 0 {
		tell(SRShadowLost, lost[len(lost)-1])
	}
	for _, n := range gained {
		tell(SRShadowGain, n)
	}
	return events
}

// Partners returns who left the set around the server, and who came.
func Partners(before, after Server) (lost, gained []ident.NodeID) {
	for _, n := range before.Partners {
		if !slices.Contains(after.Partners, n) {
			lost = append(lost, n)
		}
	}
	for _, n := range after.Partners {
		if !slices.Contains(before.Partners, n) {
			gained = append(gained, n)
		}
	}
	return lost, gained
}
