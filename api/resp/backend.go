package resp

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Kinds of a record's value.
const (
	KindBytes byte = 0 // a string
	KindHash  byte = 1 // fields, encoded as hash.go says
)

// Record is what a key holds.
type Record struct {
	Value    []byte         // never changed in place, by nobody
	Kind     byte           // KindBytes, KindHash
	Expiry   int64          // unix nanoseconds; 0: none
	Position ident.Position // of its last change; set by the Store, and not used of what the same program has put
}

// Key names a record.
type Key struct {
	File string
	Key  []byte
}

// View is what a program sees: the records as of everything sequenced before, and its own changes. An error of the View ends the program;
// then nothing of it is done.
type View interface {
	// Now is the time of the program, unix nanoseconds. It does not go backwards from one program to the next.
	Now() int64
	// Get returns nil when there is no such record, or when it has expired by Now.
	Get(file string, key []byte) (*Record, error)
	// Put keeps the record's slices.
	Put(file string, key []byte, r Record) error
	// Delete tells whether there was one.
	Delete(file string, key []byte) (bool, error)
	// End is where the history stands that the program sees.
	End() ident.Position
	// Deleted is a position after which the record was surely not deleted. Only Update knows it.
	Deleted(file string, key []byte) ident.History
}

// Program reads and changes records of one group. Run may be called more than once, in the order of the batch and by one goroutine at a
// time; only the last run counts. It is pure but for the reply that it keeps, and it may still be running, or run again, after Update or
// Read has returned an error for it.
type Program struct {
	Keys  []Key // what it reads or changes, at least; several times the same is possible
	Reads bool  // it changes nothing
	Size  int64 // about how many bytes it may put
	Run   func(View) error
}

// Outcome is what became of a program. With Err nil its changes are committed, and so is everything it has read.
type Outcome struct {
	Position ident.Position // of its last change, or one that its reply depends on
	Err      error
}

// Store holds the records. Errors of programs and methods are
//
//   - *Elsewhere: surely nothing was done here, another node or another moment is right;
//   - *Refusal: surely nothing was done, the client is told why;
//   - the program's own error: nothing of the program was done;
//   - anything else: for a program that only reads, it was not answered; for others, including *Unknown, the outcome is unknown.
//
// They return when the context ends, with one of these.
type Store interface {
	// Group names the group that the record belongs to; a *Refusal when the name is not allowed.
	Group(k Key) (string, error)
	// Update runs a batch of programs of one group in their order, as one deposit if it can, and returns an outcome for each once
	// all are decided. After a program whose error is *Elsewhere no other of the batch is done.
	Update(ctx context.Context, group string, batch []Program) []Outcome
	// Read runs programs that only read over committed records: at the primary under its lease, so that they see everything that was
	// acknowledged before; or with local over this node's own copy, whatever its role.
	Read(ctx context.Context, group string, local bool, batch []Program) []Outcome
	// Files lists the files of a group that have records, in any order: all there are, at the primary under its lease; or with local those
	// that this node knows of, none where it has no copy. The group may be what Group says of local keys.
	Files(ctx context.Context, group string, local bool) ([]string, error)
	// Scan returns up to limit records of a file in the order of their keys, beginning after the key after, or with the first one that is
	// not before from. Values may be left out. done says that there are no more. It may return fewer than limit, but none only with done.
	Scan(ctx context.Context, file string, from Bound, limit int, local bool) (page []Scanned, done bool, err error)
	// Count says how many records this node's copy holds; an estimate is good enough.
	Count(ctx context.Context) (int64, error)
}

// Bound is where a scan begins.
type Bound struct {
	Key   []byte
	After bool // Key itself is left out
}

// Scanned is a record of a scan.
type Scanned struct {
	Key  []byte
	Kind byte
}

// Roles tells who plays what.
type Roles interface {
	// Groups describes all groups, ordered by name, as this node knows them. The caller does not change it.
	Groups() []Group
	// Copies describes the nodes of a group as its primary knows them; what it says about them is missing when it does not answer.
	Copies(ctx context.Context, group string) []Node
	// Changed returns a channel that is closed at the next change of what Groups returns.
	Changed() <-chan struct{}
	// Holders counts the nodes besides the primary that hold everything up to the position durably. Members of the in-sync set hold
	// every acknowledged write. ErrAlone: nobody else ever will.
	Holders(ctx context.Context, group string, at ident.Position) (int, error)
	// Failover starts a planned switch-over of the group and returns at once; the error says why not.
	Failover(ctx context.Context, group string) error
}

// Group is a group as Sentinel would describe it: a master with its replicas.
type Group struct {
	Name    string
	Epoch   uint64
	Primary string         // id of the node that is primary; "": none now
	Serving bool           // this node is the primary and serves
	Last    ident.Position // as far as this node knows
	InSync  []string       // ids of the in-sync set, with the primary
	Nodes   []Node         // those that have a copy
}

// Node is a node of a group.
type Node struct {
	ID      string
	RunID   string // 40 hexadecimal digits, the same for the life of the data directory; "": made of ID
	Address string // host:port of its Redis listener; "": it has none
	Alive   bool
	Offset  uint64 // history number up to which it holds everything, as far as known
	Lag     int64  // seconds; -1: not known
	Linked  bool   // it follows the primary, and has what it had missed, as far as known; members of the in-sync set do
}

// ErrAlone says of a group that nobody but this node holds anything of it.
var ErrAlone = errors.New("what is local to this node has no copies")

// Elsewhere says that another node has to run the program, and that here surely nothing was done.
type Elsewhere struct {
	Redis string // host:port of the primary's Redis listener; "": nobody is known
	Retry bool   // this node is about to be the one, or holds requests during a switch-over: ask here again soon
}

func (e *Elsewhere) Error() string {
	switch {
	case e.Retry:
		return "this node is not ready to answer yet"
	case e.Redis == "":
		return "this node is not the primary and knows of none"
	}
	return fmt.Sprintf("this node is not the primary; ask %s", e.Redis)
}

// Refusal says that surely nothing was done, and why. It is answered as `-Code Text`.
type Refusal struct {
	Code string // "": ERR
	Text string
}

func (e *Refusal) Error() string {
	if e.Code == "" {
		return "ERR " + e.Text
	}
	return e.Code + " " + e.Text
}

// Unknown says that a program was sequenced, and that nobody knows yet whether it will be done.
type Unknown struct {
	Position ident.Position // of its last change; zero: not known
	Err      error
}

func (e *Unknown) Error() string {
	if e.Position.IsZero() {
		return fmt.Sprintf("it may have been sequenced and is not confirmed: %v", e.Err)
	}
	return fmt.Sprintf("it was sequenced at %s and is not confirmed: %v", e.Position, e.Err)
}

func (e *Unknown) Unwrap() error { return e.Err }

// elsewhere tells whether err says that another node, or another moment, is right.
func elsewhere(err error) (*Elsewhere, bool) {
	var e *Elsewhere
	ok := errors.As(err, &e)
	return e, ok
}
