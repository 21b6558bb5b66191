package fsm

import (
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// State is what Raft replicates: who belongs to the cluster, who holds leases, and per group who is primary, at which
// epoch, with which in-sync set and history. State.Apply is its only mutator. Readers get an immutable Snapshot.
type State struct {
	Cluster       ident.ClusterID            `json:"cluster"`
	Name          string                     `json:"name"` // the operator's name of the cluster
	Nodes         map[ident.NodeID]*Node     `json:"nodes"`
	Groups        map[ident.GroupName]*Group `json:"groups"`
	Past          []Operation                `json:"past"`           // finished operations, oldest first, bounded
	NextOperation uint64                     `json:"next_operation"` // id of the next operation, from 1
	Applied       uint64                     `json:"applied"`        // number of commands applied; compare equal at equal Raft index

	Pause        *Pause `json:"pause,omitempty"`         // automatic actions do not begin; nil: they do
	PauseVersion uint64 `json:"pause_version,omitempty"` // counts changes of Pause

	Planned  []Plan     `json:"planned,omitempty"`  // groups that will be created, sorted by name
	Declined []Declined `json:"declined,omitempty"` // plans and closings that were given up, oldest first, bounded

	Retired []Retired `json:"retired,omitempty"` // names of deleted groups, sorted, at most MaxRetired
}

// Addresses are where a node is reached, host:port each.
type Addresses struct {
	HTTP   string `json:"http"`
	Gossip string `json:"gossip"`
	Raft   string `json:"raft"`
	Ship   string `json:"ship"`
	Redis  string `json:"redis,omitempty"`
}

// NodeKind says what a node is for.
type NodeKind string

// Kinds of nodes, part of the format.
const (
	KindData    NodeKind = "data"    // votes and holds data
	KindWitness NodeKind = "witness" // votes only
)

// Node is a registered member. Its lease is one for all roles it holds.
type Node struct {
	ID          ident.NodeID                       `json:"id"`
	Directory   ident.DirectoryID                  `json:"directory"`
	Kind        NodeKind                           `json:"kind"`
	Addresses   Addresses                          `json:"addresses"`
	Priority    int                                `json:"priority"`          // lower is preferred as candidate; equal: by id
	Incarnation ident.Incarnation                  `json:"incarnation"`       // the latest life that renewed: earlier ones never renew again
	Renewal     uint64                             `json:"renewal"`           // counts renewals of all lives
	Released    bool                               `json:"released"`          // the lease of Incarnation was released: that life is over
	Flushed     map[ident.GroupName]ident.Position `json:"flushed,omitempty"` // lowest position a crash of this node can fall back to
	Copies      map[ident.GroupName]Ends           `json:"copies,omitempty"`  // how far the journals it holds reach
	Number      uint64                             `json:"number,omitempty"`  // of the renewal of Incarnation that told so; 0: it had none

	Maintenance        *Order `json:"maintenance,omitempty"`         // chosen by itself only if nobody else may be; nil: not in maintenance
	MaintenanceVersion uint64 `json:"maintenance_version,omitempty"` // counts changes of Maintenance

	Leaving bool `json:"leaving,omitempty"` // Incarnation is about to end in good order: see Leave
}

// Ends are the ends of the journals of one group that a node holds, by author, as far as they are on its disk and, as it
// knows, on the author's. A copy goes on from there or not at all, so the source keeps its receivers from there on.
type Ends map[ident.NodeID]ident.Sequence

// Delivery says when a write may be acknowledged.
type Delivery string

// Deliveries, part of the format.
const (
	DeliverySync  Delivery = "sync"  // durable at the source and at every in-sync secondary
	DeliveryAsync Delivery = "async" // durable at the source
)

// GroupSpec is what an operator chooses for a group. Zero values are filled with defaults by Normalize.
type GroupSpec struct {
	Name          ident.GroupName `json:"name" yaml:"name"`
	Order         int             `json:"order" yaml:"order"`
	Files         []string        `json:"files" yaml:"files"`                   // patterns as in a shell, "!pattern" excludes; "*" by default
	Preferred     ident.NodeID    `json:"preferred" yaml:"preferred"`           // first primary, and where switchback goes; "" until known
	Delivery      Delivery        `json:"delivery" yaml:"delivery"`             // default sync
	Secondaries   int             `json:"secondaries" yaml:"secondaries"`       // in-sync shadows wanted, default 1
	OnNoSync      string          `json:"on_no_sync" yaml:"on_no_sync"`         // degrade (default) | hold | refuse
	AutoFailover  string          `json:"auto_failover" yaml:"auto_failover"`   // lossless (default) | off
	Images        string          `json:"images" yaml:"images"`                 // auto (default) | both | after
	ReceiverBytes int64           `json:"receiver_bytes" yaml:"receiver_bytes"` // change of receiver at this size, default 64 MiB
	KeepReceivers int             `json:"keep_receivers" yaml:"keep_receivers"` // detached receivers kept per journal although nobody needs them; -1, the default: all

	Compression    string `json:"compression,omitempty" yaml:"compression"`         // of bundles: "" (none) | zstd; every node must know it
	JournalReplays bool   `json:"journal_replays,omitempty" yaml:"journal_replays"` // a backup records what it replays in a journal of its own

	Switchback      string        `json:"switchback,omitempty" yaml:"switchback"`             // "" (manual, by command only) | auto
	SwitchbackAfter time.Duration `json:"switchback_after,omitempty" yaml:"switchback_after"` // auto: the preferred node was in sync and well for so long, at least 1 s, default 1 min

	Blocks        int           `json:"blocks,omitempty" yaml:"blocks"`                 // MiB made ahead as spare receivers, for each journal on each node
	MaximumBlocks int           `json:"maximum_blocks,omitempty" yaml:"maximum_blocks"` // MiB, hard cap of each journal on each node; 0: none
	JournalFull   string        `json:"journal_full,omitempty" yaml:"journal_full"`     // "" (stall: writes are refused until there is room) | drop
	ReceiverAge   time.Duration `json:"receiver_age,omitempty" yaml:"receiver_age"`     // an attached receiver is changed when it is older; 0: never for that

	Keys KeyRange `json:"keys,omitzero" yaml:"keys"` // of the files' records; zero: all

	Feeds map[ident.NodeID]ident.NodeID `json:"feeds,omitempty" yaml:"feeds"` // target to the backup that feeds it; the primary feeds all others
}

// Phase is where a group is between two primaries.
type Phase string

// Phases, part of the format.
const (
	PhaseOpened   Phase = "opened"   // Primary may serve at Epoch
	PhaseFenced   Phase = "fenced"   // a new epoch was taken, nodes promise and report, nobody is primary
	PhasePromoted Phase = "promoted" // Primary was chosen (commit point) and recovers; nothing is read or answered yet
)

// Group is the replicated role state of one group.
type Group struct {
	Spec        GroupSpec          `json:"spec"`
	Epoch       ident.Epoch        `json:"epoch"`
	Phase       Phase              `json:"phase"`
	Primary     ident.NodeID       `json:"primary"`     // in PhaseFenced: the one that was fenced
	Incarnation ident.Incarnation  `json:"incarnation"` // the life of Primary that was promoted; another life never serves
	OpenEpoch   ident.Epoch        `json:"open_epoch"`  // the newest epoch that was opened
	OpenNode    ident.NodeID       `json:"open_node"`   // its primary; in PhaseFenced sessions of it go on until the promise
	InSync      []ident.NodeID     `json:"in_sync"`     // the set, primary included, sorted; only members may be promoted automatically
	SetVersion  uint64             `json:"set_version"`
	History     ident.HistoryTable `json:"history"`
	Reports     []Report           `json:"reports,omitempty"` // promises of the running fence, sorted by node
	Operation   *Operation         `json:"operation,omitempty"`
	Switches    []Certificate      `json:"switches"` // every promotion, oldest first, bounded to the last 1000

	SpecVersion uint64    `json:"spec_version,omitempty"` // counts changes of Spec
	Deliveries  uint64    `json:"deliveries,omitempty"`   // counts changes of Spec.Delivery: what was waited for under another one proves nothing
	Consumers   []Hold    `json:"holds,omitempty"`        // what consumers hold, sorted by name
	HoldVersion uint64    `json:"hold_version,omitempty"` // counts changes of Consumers
	Dropped     []Dropped `json:"dropped,omitempty"`      // nodes that nothing is kept for, sorted; none is in the set

	Scheduled *Operation `json:"scheduled,omitempty"` // a switch-over that begins later, in OperationScheduled; nil: none

	Closing *Closing `json:"closing,omitempty"` // it is to be deleted; nil: it is not
}

// Report is what a node says when it has promised an epoch on disk.
type Report struct {
	Node        ident.NodeID      `json:"node"`
	Epoch       ident.Epoch       `json:"epoch"` // promised
	Incarnation ident.Incarnation `json:"incarnation"`
	Received    ident.Position    `json:"received"`  // end of the best branch it holds without a hole
	Committed   ident.Position    `json:"committed"` // highest committed end it knows
	Applied     ident.Position    `json:"applied"`
	Torn        bool              `json:"torn"`             // it cut a torn tail at start and was not compared since
	Unable      string            `json:"unable,omitempty"` // why it cannot serve although it lives; "" when it can
}

// OperationKind names an operation.
type OperationKind string

// Kinds of operations, part of the format.
const (
	OperationSwitchover OperationKind = "switchover" // planned; also switch-back
	OperationFailover   OperationKind = "failover"
)

// OperationState says how far an operation is.
type OperationState string

// States of operations, part of the format.
const (
	OperationRunning    OperationState = "running"
	OperationDone       OperationState = "done"
	OperationRolledBack OperationState = "rolled_back"
	OperationFailed     OperationState = "failed" // over without result: superseded after its commit point

	OperationScheduled OperationState = "scheduled" // it begins when its time has come
)

// Steps of a switch-over, in order; part of the format. The commit point is StepHandover.
const (
	StepPrepare  = "prepare"  // the target attaches a new receiver and has no lag
	StepHold     = "hold"     // the old primary holds writes
	StepDrain    = "drain"    // everything acknowledged by the target, reads stopped
	StepHandover = "handover" // commit point and release in one
	StepOpen     = "open"     // the new primary has committed its SW and serves
)

// Steps of a failover, in order; part of the format. The commit point is StepPromote. The first two lie before the operation
// was begun; a failover that an operator asked for, or whose beginning nobody saw, lacks them.
const (
	StepDetect  = "detect"  // from the last sign of life of the primary to the first evidence against it
	StepLease   = "lease"   // from there until its lease has run out
	StepFence   = "fence"   // the epoch is taken, and promised on disk
	StepReports = "reports" // those that promised say what they hold; somebody is chosen
	StepPromote = "promote" // the choice is committed, and its node learns of it
	StepRecover = "recover" // the chosen node makes the best branch the history
	// StepOpen: until its SW is on the disks of the set
)

// Step is one finished or running step.
type Step struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"` // when it was entered, by the proposer's clock
	Node   string    `json:"node,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Operation is a resumable list of steps. Before its commit point any failure rolls back, after it only forward.
type Operation struct {
	ID        uint64          `json:"id"`
	Kind      OperationKind   `json:"kind"`
	Group     ident.GroupName `json:"group"`
	From      ident.NodeID    `json:"from"`
	To        ident.NodeID    `json:"to"` // "" while a failover has not chosen
	State     OperationState  `json:"state"`
	Step      string          `json:"step"`
	Steps     []Step          `json:"steps"`
	Reason    string          `json:"reason"` // who or what asked for it
	Started   time.Time       `json:"started"`
	Ended     time.Time       `json:"ended,omitzero"`
	MaxPause  time.Duration   `json:"max_pause"`  // switch-over: hold at most this long, then abort
	Deadline  time.Time       `json:"deadline"`   // switch-over: before the commit point the manager aborts after it
	AllowLoss bool            `json:"allow_loss"` // failover by an operator who accepted loss
	Committed bool            `json:"committed"`  // the commit point was passed
	Epoch     ident.Epoch     `json:"epoch"`      // the epoch it leads to; 0 before it is taken
	Error     string          `json:"error,omitempty"`
	Automatic bool            `json:"automatic,omitempty"` // nobody asked for it
	Accept    *Acceptance     `json:"accept,omitempty"`    // what the operator accepted to lose
	Schedule  *Schedule       `json:"schedule,omitempty"`  // of a switch-over that was asked for ahead of its time
}

// Certificate records one promotion.
type Certificate struct {
	Group      ident.GroupName `json:"group"`
	Kind       string          `json:"kind"` // one of the Certificate constants
	Operation  uint64          `json:"operation,omitempty"`
	OldEpoch   ident.Epoch     `json:"old_epoch"`
	Epoch      ident.Epoch     `json:"epoch"`
	From       ident.NodeID    `json:"from"`
	To         ident.NodeID    `json:"to"`
	InSync     []ident.NodeID  `json:"in_sync"` // the set in force at the promotion
	Candidates []Report        `json:"candidates,omitempty"`
	SW         ident.Position  `json:"sw"`   // where the epoch begins; zero until opened
	Loss       string          `json:"loss"` // "none", or what may be lost, in words with positions
	Better     []ident.NodeID  `json:"better,omitempty"`
	Passed     []PassedOver    `json:"passed_over,omitempty"`
	Accepted   *Acceptance     `json:"accepted,omitempty"`
	Started    time.Time       `json:"started,omitzero"` // when the operation began
	At         time.Time       `json:"at"`               // the commit point
	Opened     time.Time       `json:"opened,omitzero"`
	Reason     string          `json:"reason"`
}

// Assignment is what one node sees of one group at one moment: the input of a role session. It is immutable.
type Assignment struct {
	Self  ident.NodeID
	Life  ident.Incarnation // the present life of Self
	Group *Group            // never modified after publication
	Nodes map[ident.NodeID]*Node
	Pause *Pause // nil: automatic actions may begin
}
