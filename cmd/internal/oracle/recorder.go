package oracle

import (
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"
)

// Outcome is what a client knows of its operation.
type Outcome string

// Outcomes. A failed write must never become visible; one of unknown outcome may, once.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
)

// Kind is what an operation does to its key.
type Kind string

// Kinds of operations.
const (
	Write  Kind = "write"
	Delete Kind = "delete"
	Read   Kind = "read"
	Local  Kind = "local" // a read of one copy, which may be old
	Redis  Kind = "redis" // a Redis command, or a transaction of several
)

// Operation is one operation of one client.
type Operation struct {
	Client   int           `json:"client"`
	Kind     Kind          `json:"kind"`
	Key      string        `json:"key"`
	Value    string        `json:"value,omitempty"` // written or read; of Redis: the commands, separated by "; "
	Reply    string        `json:"reply,omitempty"` // of Redis: their replies, as long a list
	Found    bool          `json:"found,omitempty"` // a read: there was a record
	Outcome  Outcome       `json:"outcome"`
	Position string        `json:"position,omitempty"` // of the change, as the node said
	Copy     string        `json:"copy,omitempty"`     // a local read: whose copy
	Applied  string        `json:"applied,omitempty"`  // a read: position of the copy
	Error    string        `json:"error,omitempty"`
	Began    time.Duration `json:"began"`
	Ended    time.Duration `json:"ended"`
	Call     int64         `json:"call"`   // order of beginnings and ends as they happened
	Return   int64         `json:"return"` // 0: never
}

// Recorder takes down operations of concurrent clients.
type Recorder struct {
	clock func() time.Duration

	mu   sync.Mutex
	next int64
	all  []*Operation
}

// NewRecorder returns a recorder that reads the time from clock.
func NewRecorder(clock func() time.Duration) *Recorder { return &Recorder{clock: clock} }

// Begin notes that an operation is about to be sent. Whoever called it ends it with End.
func (r *Recorder) Begin(o Operation) *Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	o.Call, o.Began, o.Outcome = r.next, r.clock(), Unknown
	r.all = append(r.all, &o)
	return &o
}

// End notes the outcome; fill may set what the answer said.
func (r *Recorder) End(o *Operation, outcome Outcome, fill func(*Operation)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	o.Return, o.Ended, o.Outcome = r.next, r.clock(), outcome
	if fill != nil {
		fill(o)
	}
}

// Operations returns what was taken down so far, in the order of beginnings.
func (r *Recorder) Operations() []Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Operation, 0, len(r.all))
	for _, o := range r.all {
		out = append(out, *o)
	}
	return out
}

// Save writes operations, one JSON object a line.
func Save(w io.Writer, operations []Operation) error {
	e := json.NewEncoder(w)
	for i := range operations {
		if err := e.Encode(&operations[i]); err != nil {
			return err
		}
	}
	return nil
}

// Select returns the operations that keep returns true for.
func Select(operations []Operation, keep func(Operation) bool) []Operation {
	return slices.DeleteFunc(slices.Clone(operations), func(o Operation) bool { return !keep(o) })
}
