package client

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of the interface.
const (
	MaxFileName = 255      // bytes of a file's name
	MaxKey      = 4 << 10  // bytes of a key, decoded
	MaxValue    = 16 << 20 // bytes of a value
)

// Key is a record's key in JSON: as text, and exactly in base64 when it is not valid UTF-8.
type Key struct {
	Text   string `json:"key"` // with replacement characters when Base64 is set
	Base64 []byte `json:"key_base64,omitempty"`
}

// MakeKey returns the JSON form of a key. It keeps no reference to b.
func MakeKey(b []byte) Key {
	if utf8.Valid(b) {
		return Key{Text: string(b)}
	}
	return Key{Text: strings.ToValidUTF8(string(b), "\uFFFD"), Base64: append([]byte(nil), b...)}
}

// Bytes returns the exact key.
func (k Key) Bytes() []byte {
	if len(k.Base64) > 0 {
		return k.Base64
	}
	return []byte(k.Text)
}

func (k Key) String() string { return k.Text }

// WriteOptions qualify a write.
type WriteOptions struct {
	Wait time.Duration // how long a node waits for a primary to appear; 0: 5 s

	TTL    time.Duration // of Put: the record expires so long after the node that is asked takes the request, by its clock; 0: see Expiry
	Expiry time.Time     // of Put, instead of TTL: when the record expires; zero: never

	// At most one of these. ErrPrecondition: it does not hold, nothing was done.
	IfAbsent   bool   // only if there is no such record
	IfExists   bool   // only if there is one
	IfPosition string // only if its last change was at this position, as Record.Position says it

	Group string // of Delete, as in ReadOptions

	// IdempotencyKey makes the write happen at most once: a repeated one with the same key, at any node and after a failover, gets the
	// answer of the first, for as long as the key is kept (a day, if not configured otherwise). So the client repeats the write by itself
	// also when its outcome is unknown. "": none, unless Options.ExactlyOnce.
	IdempotencyKey string
}

// Kinds of values. The others are reserved.
const (
	KindBytes uint8 = 0
	KindHash  uint8 = 1 // named fields, as the Redis interface encodes them
)

// ReadOptions qualify a read.
type ReadOptions struct {
	Local  bool          // answer from the node that is asked, though it may lag
	MaxLag time.Duration // with Local: refuse (ErrStale) when the copy is older; 0: no limit
	Group  string        // LocalGroup: what the node that is asked keeps for itself, though a group selects the file by now; "": whoever has the file
	Wait   time.Duration // as in WriteOptions
}

// ListOptions qualify a list of records.
type ListOptions struct {
	Prefix []byte        // only keys that begin so
	From   []byte        // the first key wanted
	Limit  int           // records per page; 0: 100, at most 1000
	Group  string        // only what this group owns of the file, LocalGroup: as in ReadOptions; "": everything
	Local  bool          // as in ReadOptions
	MaxLag time.Duration // as in ReadOptions, for all parts of a page
	Wait   time.Duration // as in WriteOptions
}

// WriteResult is the receipt of a write that is committed.
type WriteResult struct {
	Position string `json:"position"`        // "default@3.42"
	Journal  string `json:"journal"`         // "default/a"
	Sequence uint64 `json:"sequence"`        // in that journal
	Local    string `json:"local,omitempty"` // the one node that has the record: no group selects the file, it is shipped to nobody; "": a group has it
	Created  bool   `json:"-"`               // the record did not exist before: status 201

	// Replayed: it was done before, with the same idempotency key; this is the first answer. Journal is another one when a failover has
	// journaled the write again, and Sequence is 0 when that receiver is gone.
	Replayed bool `json:"-"`
}

// Record is a record as it was read.
type Record struct {
	File     string    `json:"file"`
	Key                // fields key, key_base64
	Value    []byte    `json:"value"`
	Position string    `json:"position"` // of its last change
	Time     time.Time `json:"time,omitzero"`
	Expiry   time.Time `json:"expiry,omitzero"`       // zero: never
	Kind     uint8     `json:"kind,omitempty"`        // of Value
	Node     string    `json:"node,omitempty"`        // whose copy was read
	Local    string    `json:"local,omitempty"`       // as in WriteResult
	Applied  string    `json:"applied,omitempty"`     // position of that copy; "" in a page, which says it once
	Age      float64   `json:"age_seconds,omitempty"` // how old that copy may be; 0 from the primary, and in a page
}

// RecordPage is a part of a file in key order.
type RecordPage struct {
	File    string   `json:"file"`
	Records []Record `json:"records"`
	Next    *Key     `json:"next,omitempty"` // From of the next page; nil at the end
	Node    string   `json:"node,omitempty"`
	Local   string   `json:"local,omitempty"` // as in WriteResult
	Applied string   `json:"applied"`         // "" when several groups own parts of the page: see Parts
	Age     float64  `json:"age_seconds"`     // of the oldest copy that was read; below 0: not known

	Parts []RecordPart `json:"parts,omitempty"` // of a page from several groups, in key order
}

// Digest is a checksum over one node's copy of a group, content and attributes, at one position.
type Digest struct {
	Group    string `json:"group"`
	Node     string `json:"node"`
	Position string `json:"position"`
	Files    uint64 `json:"files"`
	Records  uint64 `json:"records"`
	Bytes    uint64 `json:"bytes"` // keys and values
	Sum      string `json:"sum"`   // equal sums at equal positions mean equal content
}
