package client

import (
	"fmt"
	"time"
)

// Duration is a time span that stands in JSON as text, such as "5s" or "500ms".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the form that time.ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of time.ParseDuration; negative spans are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		return fmt.Errorf("%q is negative: want a duration of 0s or more, such as 5s", text)
	}
	if err != nil {
		return fmt.Errorf("%q is not a duration: want a number with a unit, such as 5s or 500ms", text)
	}
	*d = Duration(v)
	return nil
}

// States of an operation.
const (
	OperationRunning    = "running"
	OperationDone       = "done"
	OperationRolledBack = "rolled_back" // failed before its commit point: nothing changed
	OperationFailed     = "failed"      // superseded after its commit point
	OperationScheduled  = "scheduled"   // it begins when its time has come, see Operation.Schedule
)

// Operation is a change of roles that runs in steps, kept in Raft.
type Operation struct {
	ID        uint64    `json:"id"`
	Kind      string    `json:"kind"` // switchover | failover
	Group     string    `json:"group"`
	From      string    `json:"from"`
	To        string    `json:"to"` // "" while a failover has not chosen
	State     string    `json:"state"`
	Step      string    `json:"step"` // the running or last step
	Steps     []Step    `json:"steps"`
	Reason    string    `json:"reason"` // who or what asked for it
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended,omitzero"`
	MaxPause  Duration  `json:"max_pause,omitzero"` // switch-over: writes are held at most this long before the role is given away; else it is rolled back
	AllowLoss bool      `json:"allow_data_loss,omitempty"`
	Committed bool      `json:"committed"` // the commit point was passed: from here on only forward
	Epoch     uint64    `json:"epoch"`     // where it leads to; 0 before it is taken
	Error     string    `json:"error,omitempty"`
	Schedule  *Schedule `json:"schedule,omitempty"` // of a switch-over that was asked for ahead of its time
}

// Finished tells whether the operation is over, with whatever result.
func (o Operation) Finished() bool {
	return o.State != "" && o.State != OperationRunning && o.State != OperationScheduled
}

// Held returns for how long a switch-over that is over held writes: from the beginning of its step drain to its end. It is false for
// one that is not over, that ended before it held any, and for other operations.
func (o Operation) Held() (time.Duration, bool) {
	if o.Ended.IsZero() || o.Kind != "switchover" {
		return 0, false
	}
	for _, s := range o.Steps {
		if s.Name == "drain" {
			return o.Ended.Sub(s.At), true
		}
	}
	return 0, false
}

// Outcomes of a scheduled switch-over. All but ScheduleStarted end it with nothing changed.
const (
	ScheduleStarted  = "started"  // it began: the operation tells the rest
	ScheduleCanceled = "canceled" // somebody called it off
	ScheduleVoid     = "void"     // somebody asked for another change of the role, or the target is primary already
	ScheduleMissed   = "missed"   // it could not begin in time
)

// Schedule is what a switch-over was scheduled with, and what became of it.
type Schedule struct {
	At      time.Time `json:"at"`                // it begins then, by the clock of the Raft leader
	By      string    `json:"by,omitempty"`      // who asked for it
	Asked   time.Time `json:"asked"`             // when
	Waits   string    `json:"waits,omitempty"`   // its time has come, and these checks stand or stood in its way
	Outcome string    `json:"outcome,omitempty"` // "": it is still to come
}

// Step is one step of an operation.
type Step struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"`               // when it was entered
	Took   Duration  `json:"took,omitzero"`    // until the next one was entered, or the operation ended; 0 while it runs
	Node   string    `json:"node,omitempty"`   // whose word or deed it began with; of the step hold the target, which was prepared
	Detail string    `json:"detail,omitempty"` // what was found when it began; of the steps prepare and open when it ended
}

// Check is one condition of a switch-over, with what was found and what is allowed.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Value  string `json:"value,omitempty"`
	Limit  string `json:"limit,omitempty"`
	Detail string `json:"detail,omitempty"` // why it matters, or what to do
}

// Readiness says whether a switch-over could be done now, and what would happen.
type Readiness struct {
	Group          string   `json:"group"`
	From           string   `json:"from"`
	To             string   `json:"to"`
	Ready          bool     `json:"ready"` // every check is ok
	Checks         []Check  `json:"checks"`
	EntriesToDrain uint64   `json:"entries_to_drain"` // entries the target has not yet
	EstimatedPause Duration `json:"estimated_pause"`  // how long writes would be held
	Loss           string   `json:"loss"`             // "none", or what would be lost
	Notes          []string `json:"notes,omitempty"`  // what else an operator should know, such as a pause
}

// SwitchoverRequest asks for a planned switch-over, or for a switch-back (then To stays empty).
type SwitchoverRequest struct {
	To       string    `json:"to,omitempty"`      // left out: the best in-sync secondary
	DryRun   bool      `json:"dry_run,omitempty"` // check only, change nothing
	At       time.Time `json:"at,omitzero"`       // zero: now; else at most 30 days ahead
	MaxPause Duration  `json:"max_pause,omitzero"`
	By       string    `json:"by,omitempty"` // with At: who asks; left out: the address that the request came from
}

// AnyNode lets a failover choose the best candidate.
const AnyNode = "*"

// FailoverRequest asks for a failover by hand, against a living primary too.
type FailoverRequest struct {
	To            string `json:"to"`                        // a node; "*" (AnyNode): any candidate
	AllowDataLoss bool   `json:"allow_data_loss,omitempty"` // also a node outside the in-sync set
	DryRun        bool   `json:"dry_run,omitempty"`         // with AllowDataLoss: a LossForecast, and nothing is changed

	// With AllowDataLoss: what the operator confirmed. More than that is never lost; the request is refused then, with a
	// new forecast.
	Confirm           string `json:"confirm,omitempty"`             // the name of the group, typed
	AcceptLossBeyond  string `json:"accept_loss_beyond,omitempty"`  // Beyond of the forecast
	AcceptLossHighest string `json:"accept_loss_highest,omitempty"` // Highest of the forecast; left out: however much lies beyond
	AcceptEpoch       uint64 `json:"accept_epoch,omitempty"`        // Epoch of the forecast; left out: the one of the moment
	AcceptUnable      bool   `json:"accept_unable,omitempty"`       // also a node that says that it cannot serve: the group may have no primary then
	By                string `json:"by,omitempty"`                  // left out: the address that the request came from
}

// Certificate records one promotion. Positions are history positions.
type Certificate struct {
	Group      string        `json:"group"`
	Kind       string        `json:"kind"` // create | switchover | failover
	Operation  uint64        `json:"operation,omitempty"`
	OldEpoch   uint64        `json:"old_epoch"`
	Epoch      uint64        `json:"epoch"`
	From       string        `json:"from"`
	To         string        `json:"to"`
	InSync     []string      `json:"in_sync"` // the set in force at the promotion, primary included
	Candidates []Candidate   `json:"candidates,omitempty"`
	SW         string        `json:"sw"`   // where the epoch begins; "" until opened
	Loss       string        `json:"loss"` // "none", or what may be lost
	Better     []string      `json:"better,omitempty"`
	PassedOver []PassedOver  `json:"passed_over,omitempty"`
	Accepted   *AcceptedLoss `json:"accepted,omitempty"` // what an operator accepted to lose
	Started    time.Time     `json:"started,omitzero"`   // of the operation
	At         time.Time     `json:"at"`                 // the commit point
	Opened     time.Time     `json:"opened,omitzero"`
	Reason     string        `json:"reason"`
}

// Candidate is what a node reported when it promised the new epoch.
type Candidate struct {
	Node      string `json:"node"`
	Received  string `json:"received"`
	Committed string `json:"committed"`
	Applied   string `json:"applied"`
	Torn      bool   `json:"torn,omitempty"`   // it cut a torn tail at start and was not compared since
	Unable    string `json:"unable,omitempty"` // why it could not serve although it lived
}

// PassedOver is a node that held more than the one that was promoted, or might have, and why it was not taken.
type PassedOver struct {
	Node     string `json:"node"`
	Received string `json:"received,omitempty"` // "": it did not report
	Why      string `json:"why"`
}

// Severities of events, ascending.
const (
	SeverityInfo     = "info"
	SeverityWarning  = "warning"
	SeverityError    = "error"
	SeverityCritical = "critical"
)

// Event is something that happened on one node. IDs ascend on that node, from 1, and start anew with its process.
type Event struct {
	ID       uint64            `json:"id"`
	Time     time.Time         `json:"time"`
	Node     string            `json:"node"`
	Severity string            `json:"severity"`
	Group    string            `json:"group,omitempty"`
	Kind     string            `json:"kind"`
	Message  string            `json:"message"`
	Fields   map[string]string `json:"fields,omitempty"`
}
