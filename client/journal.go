package client

import "time"

// Kinds of journals, seen from one node.
const (
	JournalLocal   = "local"   // what that node wrote itself
	JournalRemote  = "remote"  // a copy of what another node wrote
	JournalReplays = "replays" // what that node replayed, recorded again with journal_replays; asked for as node "replays"
)

// States of a journal.
const (
	JournalActive   = "ACTIVE"
	JournalInactive = "INACTIVE"
	JournalStandby  = "STANDBY"
)

// Journal is one journal as the answering node holds it. All but Position are sequence numbers of this journal.
type Journal struct {
	ID        string `json:"id"`   // "default/a"
	Node      string `json:"node"` // who wrote it
	Kind      string `json:"kind"`
	State     string `json:"state"`
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Durable   uint64 `json:"durable"`   // on this node's disk
	Confirmed uint64 `json:"confirmed"` // durable at the source, as known here
	Committed uint64 `json:"committed"`
	Applied   uint64 `json:"applied"`  // in this node's store
	Attached  uint32 `json:"attached"` // number of the attached receiver; 0: none
	Receivers int    `json:"receivers"`
	Bytes     int64  `json:"bytes"`
	Position  string `json:"position"` // history position after Last
	Error     string `json:"error,omitempty"`

	Spare  int64   `json:"spare_bytes"`    // receivers made ahead
	Limit  int64   `json:"limit_bytes"`    // the most it may take; 0: no cap
	Free   int64   `json:"free_bytes"`     // on its disk; 0: not known
	Runway float64 `json:"runway_seconds"` // until it is full at the rate of the last minutes; 0: not known, or it does not grow
	Full   string  `json:"full,omitempty"` // why it takes nothing now, and what helps
}

// Receiver is one file of a journal.
type Receiver struct {
	Journal  string    `json:"journal"`
	Number   uint32    `json:"number"`
	First    uint64    `json:"first"` // 0 while it is empty
	Last     uint64    `json:"last"`
	Start    string    `json:"start"` // history position before its first fact
	Chain    string    `json:"chain"` // checksum over all bundles before it, hexadecimal: equal on nodes whose copies are equal up to there
	Bytes    int64     `json:"bytes"`
	Attached bool      `json:"attached"`
	Created  time.Time `json:"created"`
}

// Image is a record's content at one moment.
type Image struct {
	Position string    `json:"position"`
	Time     time.Time `json:"time,omitzero"`
	Expiry   time.Time `json:"expiry,omitzero"`
	Kind     uint8     `json:"kind,omitempty"` // of Value
	Value    []byte    `json:"value"`
}

// Entry is one journaled fact.
type Entry struct {
	Sequence      uint64    `json:"sequence"`
	Position      string    `json:"position,omitempty"` // "" for J PR NR IN BO, which are no facts
	Code          string    `json:"code"`               // R | C | J | U
	Type          string    `json:"type"`               // two characters
	Time          time.Time `json:"time"`
	Transaction   uint64    `json:"transaction"` // first sequence number of its transaction
	File          string    `json:"file,omitempty"`
	Key                     // fields key, key_base64; empty when the entry concerns no record
	Before        *Image    `json:"before,omitempty"`
	BeforeOmitted bool      `json:"before_omitted,omitempty"` // there was a record, but the group's images leave it out
	After         *Image    `json:"after,omitempty"`
	Data          []byte    `json:"data,omitempty"`
	Confirmed     bool      `json:"confirmed"`
	BeforeBytes   int       `json:"before_bytes,omitempty"` // of the image's value, also when the answer leaves it out
	AfterBytes    int       `json:"after_bytes,omitempty"`
	Journal       string    `json:"journal,omitempty"` // that of the sequence number, where the history is read
}

// EntryFilter selects entries. Zero fields select everything. Lists are separated by commas.
type EntryFilter struct {
	From, To     uint64    // sequence numbers, both included
	PositionFrom string    // facts at or after this history position
	PositionTo   string    // facts at or before it
	Since, Until time.Time // both included
	Receiver     string    // 3, 3-7, attached, or chain for all that are held
	Code         string    // R, C, J, U
	Type         string    // two characters each
	File         string    // names, or patterns such as orders*
	Key          []byte    // exactly this one
	KeyPrefix    []byte    // or those that begin so
	Transaction  uint64    // first sequence number of the transaction
	IncludeAll   bool      // unconfirmed entries too
	Images       string    // both (default), after or none: what the answer holds
	Newest       int       // only the last so many, at most 10000
	Descending   bool      // newest first
	Limit        int       // 0: 100, at most 10000
}

// EntryPage is one answer of entries.
type EntryPage struct {
	Items []Entry `json:"items"`
	Next  uint64  `json:"next,omitempty"` // there may be more: ask again with from, or with to when it descends; it stays right while the journal grows
}

// HistoryPage is one answer of facts of a group's history.
type HistoryPage struct {
	Items []Entry `json:"items"`
	Next  string  `json:"next"`           // go on with after
	More  bool    `json:"more,omitempty"` // there was more when it was answered
}

// DepositRequest is a user entry (code U) to be deposited. Exactly one of Data and Text may be set.
type DepositRequest struct {
	Type string `json:"type"`           // two upper-case letters or digits; SW, MK and HB are the product's own
	Data []byte `json:"data,omitempty"` // base64
	Text string `json:"text,omitempty"`
}

// Verification is the result of reading a whole journal.
type Verification struct {
	Journal string `json:"journal"`
	OK      bool   `json:"ok"` // a damaged journal is an error with code corrupt
}

// Backout is the report of one back-out: what a node undid when it came back.
type Backout struct {
	ID      string         `json:"id"`
	Group   string         `json:"group"`
	Node    string         `json:"node"`
	Time    time.Time      `json:"time"`
	Journal string         `json:"journal"`           // whose entries were undone
	Known   uint64         `json:"known"`             // sequence number before the first entry listed
	From    string         `json:"from"`              // store position before: the last entry that was undone; "to" when none was
	To      string         `json:"to"`                // store position after: the fork
	Epoch   uint64         `json:"epoch"`             // of the new primary
	Undone  int            `json:"undone"`            // entries undone in the store
	Lost    int            `json:"lost"`              // of all listed, those that do not live on
	Unheard int            `json:"unacknowledged"`    // of those lost, how many no client can have heard to be done
	Entries []BackoutEntry `json:"entries,omitempty"` // only when one report is asked for
}

// BackoutEntry is one entry beyond what the new primary knew.
type BackoutEntry struct {
	Sequence uint64    `json:"sequence"`
	Position string    `json:"position"`
	Type     string    `json:"type"`
	Time     time.Time `json:"time"`
	File     string    `json:"file"`
	Key                // fields key, key_base64
	Before   *Image    `json:"before,omitempty"`
	After    *Image    `json:"after,omitempty"`
	LivesOn  bool      `json:"lives_on"`       // the new primary has it all the same
	Undone   bool      `json:"undone"`         // it had been applied here and was undone
	Unheard  bool      `json:"unacknowledged"` // it does not live on, and no client can have heard that it was done
}
