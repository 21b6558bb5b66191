package client

import "time"

// Roles of a node in a group, as in GroupStatus.Roles.
const (
	RolePrimary   = "primary"   // takes the writes
	RoleSecondary = "secondary" // in-sync shadow, may be promoted automatically
	RoleStandby   = "standby"   // receives asynchronously or is catching up
	RoleWitness   = "witness"   // votes, has no data
	RoleDropped   = "dropped"   // its copy was given up for a full journal: wants priming
)

// Items wraps every list that is not paged.
type Items[T any] struct {
	Items []T `json:"items"`
}

// Status is the cluster as one node sees it.
type Status struct {
	Node       string        `json:"node"`        // who answers
	Cluster    string        `json:"cluster"`     // the operator's name of the cluster
	ClusterID  string        `json:"cluster_id"`  // its random identity
	RaftLeader string        `json:"raft_leader"` // "" when the answering node knows none
	Version    string        `json:"version"`     // of the answering node's program
	Protocol   uint8         `json:"protocol"`    // what it speaks with other nodes; nodes of another number are kept out
	Started    time.Time     `json:"started"`     // when its process started
	Nodes      []NodeStatus  `json:"nodes"`       // by id
	Groups     []GroupStatus `json:"groups"`      // by order number, then by name
	Pause      *Order        `json:"pause"`       // automatic actions do not begin; null: they do
	Scrub      *Scrub        `json:"scrub"`       // the answering node's check of its journals; null: it holds none
	LocalFiles *LocalFiles   `json:"local_files"` // what the answering node keeps for itself; null: nothing, see local_files of its configuration

	Planned []PlannedGroup `json:"planned,omitempty"` // groups that will be created

	Knocking []Knock `json:"knocking,omitempty"` // nodes of other builds that were kept out within the last minute
}

// Knock is a node that must not take part, since it runs a build of another protocol.
type Knock struct {
	Node     string    `json:"node"`
	Protocol uint8     `json:"protocol"` // 0: a build from before there was a number
	Address  string    `json:"address"`  // where it was seen
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`
}

// Group returns the group's status, and whether it stands in s.
func (s Status) Group(name string) (GroupStatus, bool) {
	for _, g := range s.Groups {
		if g.Name == name {
			return g, true
		}
	}
	return GroupStatus{}, false
}

// NodeStatus is one member of the cluster.
type NodeStatus struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind"`                // data | witness
	State       string    `json:"state"`               // alive | suspect | dead | left, by the answering node's failure detector
	Suspicion   string    `json:"suspicion,omitempty"` // why State is suspect
	Lease       string    `json:"lease"`               // held | expired | released | none
	Priority    int       `json:"priority"`
	Leaving     bool      `json:"leaving,omitempty"` // it has announced its stop: it hands its roles over and leaves the in-sync sets
	Maintenance *Order    `json:"maintenance"`       // null: not in maintenance
	Incarnation string    `json:"incarnation"`       // of the life that renewed last, hexadecimal
	LastContact time.Time `json:"last_contact,omitzero"`
	HTTP        string    `json:"http"` // host:port, as the other addresses
	Gossip      string    `json:"gossip"`
	Raft        string    `json:"raft"`
	Ship        string    `json:"ship"`
	Redis       string    `json:"redis,omitempty"`
}

// GroupSpec is what an operator chooses for a group. Empty fields get the defaults.
type GroupSpec struct {
	Name            string   `json:"name"`
	Order           int      `json:"order,omitempty"`           // start order, lower first
	Files           []string `json:"files,omitempty"`           // patterns, "!pattern" excludes; default "*"
	Preferred       string   `json:"preferred,omitempty"`       // first primary, and where switchback goes
	Delivery        string   `json:"delivery,omitempty"`        // sync (default) | async
	Secondaries     int      `json:"secondaries,omitempty"`     // in-sync shadows wanted, default 1
	OnNoSync        string   `json:"on_no_sync,omitempty"`      // degrade (default) | hold | refuse
	AutoFailover    string   `json:"auto_failover,omitempty"`   // lossless (default) | off
	Images          string   `json:"images,omitempty"`          // auto (default) | both | after
	ReceiverBytes   int64    `json:"receiver_bytes,omitempty"`  // change of receiver at this size
	KeepReceivers   int      `json:"keep_receivers,omitempty"`  // detached receivers kept although nobody needs them; -1: all
	Compression     string   `json:"compression,omitempty"`     // of what is journaled: none (default) | zstd
	JournalReplays  bool     `json:"journal_replays,omitempty"` // a backup records what it replays in a journal of its own
	Switchback      string   `json:"switchback,omitempty"`      // manual (default) | auto: the role returns to the preferred node by itself
	SwitchbackAfter Duration `json:"switchback_after,omitzero"` // auto: once that node was in sync and well for so long, at least 1s, default 1m

	Blocks        int      `json:"blocks,omitempty"`         // MiB made ahead as spare receivers, for each journal on each node
	MaximumBlocks int      `json:"maximum_blocks,omitempty"` // MiB, hard cap of each journal on each node; 0: none
	JournalFull   string   `json:"journal_full,omitempty"`   // at the cap: stall (default) | drop the absent node that receivers are kept for
	ReceiverAge   Duration `json:"receiver_age,omitzero"`    // an attached receiver is changed when it is older, at least 1s; 0: never for that

	Keys KeyRange `json:"keys,omitzero"` // of the files' records; zero: all

	Feeds map[string]string `json:"feeds,omitempty"` // target to the backup that feeds it; the primary feeds all others
}

// GroupStatus is one group as its primary sees it; on a node that cannot ask the primary, as that node sees it (then
// Stale is set). Sequence numbers are those of the primary's journal.
type GroupStatus struct {
	Name      string            `json:"name"`
	Spec      GroupSpec         `json:"spec"`
	Phase     string            `json:"phase"`   // opened | fenced | promoted
	Primary   string            `json:"primary"` // "" when nobody is
	Epoch     uint64            `json:"epoch"`
	InSync    []string          `json:"in_sync"` // the in-sync secondaries, without the primary
	Roles     map[string]string `json:"roles"`   // node to role
	Position  string            `json:"position"`
	Sequence  uint64            `json:"sequence"`  // last entry deposited
	Confirmed uint64            `json:"confirmed"` // last entry durable at the primary
	Committed uint64            `json:"committed"` // last entry that may be acknowledged
	Applied   uint64            `json:"applied"`   // last entry in the primary's store
	Targets   []Target          `json:"targets"`
	Held      int               `json:"held_writes"` // writes that wait for a switch-over or for a shadow
	Writes    string            `json:"writes"`      // open | alone | held | refused, by on_no_sync; "" when the primary could not be asked
	Local     Copy              `json:"local"`       // the answering node's own copy, whatever its role
	Resync    *Resync           `json:"resync"`      // of the node that is furthest behind; null when all are in sync
	Operation *Operation        `json:"operation"`   // the running one
	Stale     bool              `json:"stale"`       // the primary could not be asked: its numbers are missing or old

	SpecVersion uint64        `json:"spec_version"`      // counts changes of the spec
	Closing     bool          `json:"closing,omitempty"` // it is being deleted: its writes wait until it is known whether it holds records
	Dropped     []DroppedNode `json:"dropped,omitempty"` // nodes that nothing is kept for
	Holds       []Hold        `json:"holds,omitempty"`   // what consumers hold of the journals
	Full        string        `json:"full,omitempty"`    // why the primary refuses writes with journal_full, and what helps
	Runway      float64       `json:"runway_seconds"`    // until the primary's journal is full at the present rate; 0: not known, or it does not grow

	Scheduled *Operation `json:"scheduled,omitempty"` // a switch-over whose time has not come

	Archive *ArchiveStatus `json:"archive"` // as the answering node knows it; null: it has no archive
	Replays *Journal       `json:"replays"` // what the answering node recorded of what it replayed; null: nothing
}

// Copy is one node's own copy of a group, as that node itself knows it.
type Copy struct {
	Role         string  `json:"role"`              // as in GroupStatus.Roles; "" when the node has no copy
	Serving      bool    `json:"serving"`           // takes reads and writes as primary now: opened, reconciled, lease valid
	Readable     bool    `json:"readable"`          // reconciled: may answer reads with ?local=true
	NeedsPriming bool    `json:"needs_priming"`     // cannot catch up by journal; wants a new copy of the data
	Priming      string  `json:"priming,omitempty"` // why it needs that, and what helps
	Position     string  `json:"position"`          // of its store
	Received     string  `json:"received"`          // end of what it holds without a hole
	LagEntries   uint64  `json:"lag_entries"`       // committed entries it knows of and has not applied
	LagBytes     uint64  `json:"lag_bytes"`
	LagSeconds   float64 `json:"lag_seconds"`     // since it was last known to be level; 0 on the primary
	Error        string  `json:"error,omitempty"` // what stopped this copy

	FedBy string   `json:"fed_by,omitempty"` // who ships the primary's journal to it now; left out at the primary, and while nobody does
	Feeds []Target `json:"feeds,omitempty"`  // what this backup ships to others in place of the primary
}

// Target is one journal pair: what the primary, or the backup named in FedBy, ships to one node. Sequence numbers are those of the primary's journal.
type Target struct {
	Node       string  `json:"node"`
	State      string  `json:"state"`    // none | connecting | catchup | sync | async | fed: by the backup FedBy; the numbers are what the node told with its lease
	Delivery   string  `json:"delivery"` // sync | async
	Received   uint64  `json:"received"`
	Durable    uint64  `json:"durable"`
	Confirmed  uint64  `json:"confirmed"`
	Applied    uint64  `json:"applied"`
	Position   string  `json:"position"` // what it holds without a hole
	LagEntries uint64  `json:"lag_entries"`
	LagBytes   uint64  `json:"lag_bytes"`
	LagSeconds float64 `json:"lag_seconds"`
	Error      string  `json:"error,omitempty"` // why State is none or connecting
	FedBy      string  `json:"fed_by,omitempty"`
}

// Phases of a resynchronization.
const (
	ResyncBackout = "backout" // undoes what is outside the history
	ResyncCatchup = "catchup" // receives what it missed
	ResyncReplay  = "replay"  // applies what it received
	ResyncInSync  = "in_sync"
)

// Resync is the progress of one node of a group on its way back to the set. From, To and At are history positions.
type Resync struct {
	Node    string    `json:"node"`
	Phase   string    `json:"phase"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	At      string    `json:"at"`
	Percent float64   `json:"percent"`                 // 0 to 100
	Rate    float64   `json:"rate_entries_per_second"` // over the last seconds
	ETA     float64   `json:"eta_seconds"`             // 0 when done, -1 when not known
	Started time.Time `json:"started,omitzero"`
}

// Health is the body of a health path.
type Health struct {
	Node      string        `json:"node"`
	Condition string        `json:"condition"` // the path's name, such as "primary"
	Holds     bool          `json:"holds"`     // decides the status code: 200 or 503
	Reason    string        `json:"reason,omitempty"`
	Groups    []GroupHealth `json:"groups,omitempty"`
	Warnings  []string      `json:"warnings,omitempty"` // what does not decide, but should not stay so
}

// GroupHealth is one group's part in a Health.
type GroupHealth struct {
	Group      string  `json:"group"`
	Role       string  `json:"role"`
	Primary    string  `json:"primary"`
	Epoch      uint64  `json:"epoch"`
	Holds      bool    `json:"holds"`
	Degraded   bool    `json:"degraded"` // fewer in-sync secondaries than wanted
	LagEntries uint64  `json:"lag_entries"`
	LagSeconds float64 `json:"lag_seconds"`
	Reason     string  `json:"reason,omitempty"`
}
