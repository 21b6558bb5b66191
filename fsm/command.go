package fsm

import (
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Command is one entry of the Raft log. Exactly one of the pointers is set. Commands are compare-and-set: a refused one
// changes nothing and its Result says why. They are idempotent in effect, so a proposer whose outcome is unknown reads
// the state and proposes again if needed.
type Command struct {
	Version int       `json:"v"`  // CommandVersion
	ID      uint64    `json:"id"` // random, for logs
	At      time.Time `json:"at"` // the proposer's wall clock; shown, never decided upon

	CreateCluster *CreateCluster `json:"create_cluster,omitempty"`
	RegisterNode  *RegisterNode  `json:"register_node,omitempty"`
	CreateGroup   *CreateGroup   `json:"create_group,omitempty"`
	Renew         *Renew         `json:"renew,omitempty"`
	Release       *Release       `json:"release,omitempty"`
	Fence         *Fence         `json:"fence,omitempty"`
	Promise       *Promise       `json:"promise,omitempty"`
	Promote       *Promote       `json:"promote,omitempty"`
	Open          *Open          `json:"open,omitempty"`
	ChangeSet     *ChangeSet     `json:"change_set,omitempty"`
	StartSwitch   *StartSwitch   `json:"start_switch,omitempty"`
	AdvanceSwitch *AdvanceSwitch `json:"advance_switch,omitempty"`
	Handover      *Handover      `json:"handover,omitempty"`
	AbortSwitch   *AbortSwitch   `json:"abort_switch,omitempty"`
	FinishSwitch  *FinishSwitch  `json:"finish_switch,omitempty"`

	SetPause       *SetPause       `json:"set_pause,omitempty"`
	SetMaintenance *SetMaintenance `json:"set_maintenance,omitempty"`

	ChangeSpec *ChangeSpec `json:"change_spec,omitempty"`
	SetHold    *SetHold    `json:"set_hold,omitempty"`
	RemoveHold *RemoveHold `json:"remove_hold,omitempty"`
	Drop       *Drop       `json:"drop,omitempty"`
	Readmit    *Readmit    `json:"readmit,omitempty"`

	PlanGroups *PlanGroups `json:"plan_groups,omitempty"`
	AnswerPlan *AnswerPlan `json:"answer_plan,omitempty"`
	DropPlan   *DropPlan   `json:"drop_plan,omitempty"`

	ScheduleSwitch *ScheduleSwitch `json:"schedule_switch,omitempty"`
	DelaySchedule  *DelaySchedule  `json:"delay_schedule,omitempty"`
	CancelSchedule *CancelSchedule `json:"cancel_schedule,omitempty"`

	Leave *Leave `json:"leave,omitempty"`

	CloseGroup    *CloseGroup    `json:"close_group,omitempty"`
	AnswerClosing *AnswerClosing `json:"answer_closing,omitempty"`
	DropClosing   *DropClosing   `json:"drop_closing,omitempty"`
}

// CommandVersion is the version this code writes; commands of a newer version are skipped and alarmed, never guessed.
const CommandVersion = 1

// Result is the outcome of a command, the same on all nodes.
type Result struct {
	Refused   string            `json:"refused,omitempty"`   // one of the Refused constants; "" when applied
	Detail    string            `json:"detail,omitempty"`    // for people
	Covers    []ident.GroupName `json:"covers,omitempty"`    // Renew: groups whose primary role the renewal covers
	Ended     []ident.GroupName `json:"ended,omitempty"`     // Release, Renew by a new life, Handover, AnswerClosing: groups whose old cover ended with this command
	Operation uint64            `json:"operation,omitempty"` // StartSwitch, Fence: id of the operation; CloseGroup: of the closing
	Epoch     ident.Epoch       `json:"epoch,omitempty"`     // Fence, Handover: the new epoch
	Passed    bool              `json:"passed,omitempty"`    // Renew: a later renewal of the life was applied before it, so it covers nothing and tells nothing
}

// Reasons for a refusal, stable codes.
const (
	RefusedVersion     = "unknown_command_version"
	RefusedUnknown     = "unknown_target"       // no such node or group
	RefusedExists      = "exists"               // it exists already, with other content
	RefusedDirectory   = "other_directory"      // the node is registered with another data directory
	RefusedEpoch       = "epoch_moved"          // another epoch or phase than the command expects
	RefusedSet         = "set_moved"            // another in-sync set version
	RefusedIncarnation = "other_life"           // another life of the node
	RefusedRenewed     = "lease_renewed"        // a later renewal was applied
	RefusedBusy        = "operation_running"    // another operation runs
	RefusedOperation   = "operation_over"       // that operation is not the running one, or not at that step
	RefusedCandidate   = "candidate_not_in_set" // the candidate may not be promoted
	RefusedInvalid     = "invalid"              // malformed
	RefusedPaused      = "paused"               // an operator has paused automatic actions
	RefusedControl     = "control_moved"        // another version of the pause, of the node's maintenance, of the spec or of the hold
	RefusedLoss        = "more_would_be_lost"   // than the operator accepted
	RefusedDrop        = "not_to_be_dropped"    // the policy or the state does not let this node be dropped
	RefusedDropped     = "dropped"              // the node was dropped from the group
	RefusedSelection   = "selections_overlap"   // it would not be clear which group owns a record
	RefusedRetired     = "name_retired"         // a group of that name was deleted
	RefusedInUse       = "group_in_use"         // somebody depends on the group
)

// CreateCluster is the first command of a cluster.
type CreateCluster struct {
	Cluster ident.ClusterID `json:"cluster"`
	Name    string          `json:"name"`
}

// RegisterNode adds a member or updates its addresses. Refused when the id is bound to another data directory.
type RegisterNode struct {
	ID        ident.NodeID      `json:"node"`
	Directory ident.DirectoryID `json:"directory"`
	Kind      NodeKind          `json:"kind"`
	Addresses Addresses         `json:"addresses"`
	Priority  int               `json:"priority"`
}

// CreateGroup adds a group in PhasePromoted at epoch 1 with Primary = Spec.Preferred and the set {Primary}: it has to
// deposit its first SW and Open like any other.
type CreateGroup struct {
	Spec        GroupSpec         `json:"spec"` // normalized, Preferred set
	Incarnation ident.Incarnation `json:"incarnation"`
	Planned     bool              `json:"planned,omitempty"` // only as it was planned; programs before there were plans do not set it
}

// Renew renews the lease of a node. A new Incarnation proves that the older life is over, since a life holds the exclusive
// lock of the directory: it ends the older life's covers at once.
type Renew struct {
	Node        ident.NodeID                       `json:"node"`
	Directory   ident.DirectoryID                  `json:"directory"`
	Incarnation ident.Incarnation                  `json:"incarnation"`
	Flushed     map[ident.GroupName]ident.Position `json:"flushed,omitempty"`
	Copies      map[ident.GroupName]Ends           `json:"copies,omitempty"`
	Number      uint64                             `json:"number,omitempty"` // grows with each renewal of the life; 0: without an order, as programs before there were numbers send
}

// Release ends the lease of one life of a node, said by somebody who knows that the process is dead.
type Release struct {
	Node        ident.NodeID      `json:"node"`
	Incarnation ident.Incarnation `json:"incarnation"`
}

// Fence takes the next epoch. Renewals no longer cover the group from here on, and set changes of older epochs are
// refused. Also allowed in PhaseFenced and PhasePromoted, against a chosen node that died. It starts a failover operation
// (or keeps the running failover's id) and ends a switch-over that has not passed its commit point as rolled back.
type Fence struct {
	Group     ident.GroupName `json:"group"`
	Epoch     ident.Epoch     `json:"epoch"`   // the present one
	Renewal   uint64          `json:"renewal"` // of the primary's node; refused if a later one was applied, unless Force
	Force     bool            `json:"force"`   // an operator, or a watchdog, asks against a living node
	To        ident.NodeID    `json:"to"`      // operator's choice; "" to choose
	AllowLoss bool            `json:"allow_loss"`
	Reason    string          `json:"reason"`
	Automatic bool            `json:"automatic,omitempty"` // nobody asked for it: not during a pause, see State.MayFence
	Accept    *Acceptance     `json:"accept,omitempty"`    // with AllowLoss: what may be lost; nil: anything

	// For people, by the proposer's clock; zero: not known. They become the first steps of the failover.
	LastSeen time.Time `json:"last_seen,omitzero"` // the primary renewed its lease last
	Noticed  time.Time `json:"noticed,omitzero"`   // the first evidence against it
	Evidence string    `json:"evidence,omitempty"` // what that was
}

// Acceptance is what an operator was told before a failover that may lose entries, and confirmed.
type Acceptance struct {
	Beyond  ident.Position `json:"beyond"`       // the end of the chosen node: what lies beyond it may be lost
	To      ident.Position `json:"to,omitzero"`  // nobody may show to hold more than this; zero: not limited
	Entries uint64         `json:"entries"`      // how many were known to lie between; shown only
	By      string         `json:"by,omitempty"` // who confirmed it
}

// Promise records that a node has promised the group's epoch on its disk.
type Promise struct {
	Group  ident.GroupName `json:"group"`
	Report Report          `json:"report"`
}

// Promote is the commit point of a failover. The in-sync set stays as it was, for candidate choice only. Refused unless
// the candidate reported at this epoch in its present life and is in the set (or the operation allows loss).
type Promote struct {
	Group       ident.GroupName   `json:"group"`
	Epoch       ident.Epoch       `json:"epoch"`
	To          ident.NodeID      `json:"to"`
	Incarnation ident.Incarnation `json:"incarnation"`
	Loss        string            `json:"loss"` // "none" or what may be lost
	Better      []ident.NodeID    `json:"better,omitempty"`
	Passed      []PassedOver      `json:"passed_over,omitempty"`
	Why         string            `json:"why,omitempty"` // it was chosen, for people
}

// PassedOver is a node that held more than the one that was promoted, or might have, and why it was not taken.
type PassedOver struct {
	Node     ident.NodeID   `json:"node"`
	Received ident.Position `json:"received,omitzero"` // zero: it did not report
	Why      string         `json:"why"`
}

// Open makes the promoted node the serving primary: history rows and set in one.
type Open struct {
	Group       ident.GroupName    `json:"group"`
	Epoch       ident.Epoch        `json:"epoch"`
	Node        ident.NodeID       `json:"node"`
	Incarnation ident.Incarnation  `json:"incarnation"`
	Rows        []ident.HistoryRow `json:"rows"` // of this epoch, and of promoted epochs whose SW lives on though they never opened
	InSync      []ident.NodeID     `json:"in_sync"`

	// For people, by the node's clock; zero: not known. They date the steps of the failover.
	Began     time.Time `json:"began,omitzero"`     // it saw that it was chosen
	Recovered time.Time `json:"recovered,omitzero"` // its SW is deposited: the rest waits for disks and acknowledgements
}

// ChangeSet grows or shrinks the in-sync set, proposed by the serving primary.
type ChangeSet struct {
	Group   ident.GroupName `json:"group"`
	Epoch   ident.Epoch     `json:"epoch"`
	Version uint64          `json:"version"`
	Add     ident.NodeID    `json:"add,omitempty"`
	Remove  ident.NodeID    `json:"remove,omitempty"`
	Reason  string          `json:"reason"`
}

// StartSwitch starts a planned switch-over at StepPrepare.
type StartSwitch struct {
	Group    ident.GroupName `json:"group"`
	Epoch    ident.Epoch     `json:"epoch"`
	To       ident.NodeID    `json:"to"`
	MaxPause time.Duration   `json:"max_pause"`
	Deadline time.Time       `json:"deadline"`
	Reason   string          `json:"reason"`

	Automatic bool   `json:"automatic,omitempty"` // a switch-back that nobody asked for: not during a pause, nor to a node in maintenance
	Schedule  uint64 `json:"schedule,omitempty"`  // the scheduled switch-over whose time has come; it keeps its id. 0: none
}

// AdvanceSwitch records that a step before the commit point is finished and enters the next one.
type AdvanceSwitch struct {
	Group     ident.GroupName `json:"group"`
	Operation uint64          `json:"operation"`
	From      string          `json:"from"`             // the step that is finished; the operation must stand there
	Detail    string          `json:"detail,omitempty"` // of what was prepared, or of what the drain begins with
	Node      ident.NodeID    `json:"node"`
}

// Handover is commit point and release in one, proposed by the old primary once everything is drained and its reads have
// stopped. It carries the new row and set and commits everything before SW, not SW itself.
type Handover struct {
	Group       ident.GroupName   `json:"group"`
	Operation   uint64            `json:"operation"`
	Epoch       ident.Epoch       `json:"epoch"` // the present one
	From        ident.NodeID      `json:"from"`
	FromLife    ident.Incarnation `json:"from_life"` // of the old primary
	To          ident.NodeID      `json:"to"`
	Incarnation ident.Incarnation `json:"incarnation"`   // the present life of To
	Last        ident.Position    `json:"last"`          // SW gets the next h
	InSync      []ident.NodeID    `json:"in_sync"`       // all that hold everything up to Last
	Held        time.Time         `json:"held,omitzero"` // when writes were held, by the clock of From; zero: not told
}

// AbortSwitch rolls a switch-over back; refused after the commit point.
type AbortSwitch struct {
	Group     ident.GroupName `json:"group"`
	Operation uint64          `json:"operation"`
	Reason    string          `json:"reason"`
}

// FinishSwitch records that the new primary of a handed-over group serves.
type FinishSwitch struct {
	Group     ident.GroupName `json:"group"`
	Operation uint64          `json:"operation"`
	Node      ident.NodeID    `json:"node"`
	First     ident.Sequence  `json:"first"` // of its SW, completes the row
	Detail    string          `json:"detail,omitempty"`
	Began     time.Time       `json:"began,omitzero"` // when Node saw that the role is its, by its clock: StepHandover ends there. For people; zero: not told
}

// SetPause begins, changes or ends the pause of automatic actions. The end of a pause that has an Until is proposed by the
// manager when its clock says so.
type SetPause struct {
	Version uint64    `json:"version"` // State.PauseVersion
	On      bool      `json:"on"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// SetMaintenance begins, changes or ends the maintenance of a node. It moves no role and fences nobody.
type SetMaintenance struct {
	Node    ident.NodeID `json:"node"`
	Version uint64       `json:"version"` // Node.MaintenanceVersion
	On      bool         `json:"on"`
	Reason  string       `json:"reason,omitempty"`
	By      string       `json:"by,omitempty"`
	Until   time.Time    `json:"until,omitzero"`
}
