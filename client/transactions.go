package client

import (
	"context"
	"net/http"
	"time"
	"unicode/utf8"
)

// Limits of a transaction.
const (
	MaxTransactionBody    = 32 << 20 // bytes of its JSON
	MaxTransactionChanges = 4096     // and as many conditions
)

// Transaction changes records of one group, as a whole or not at all. The zero value is empty; its methods add to it.
type Transaction struct {
	Group      string      `json:"group,omitempty"` // left out: the group of its files
	Changes    []Change    `json:"changes"`         // in this order; at least one
	Conditions []Condition `json:"conditions,omitempty"`
}

// Change puts or deletes one record.
type Change struct {
	File       string    `json:"file"`
	Key                  // fields key, key_base64
	Value                // fields value, value_base64; none with Delete
	Delete     bool      `json:"delete,omitempty"` // one that does not exist is no error
	Expiry     time.Time `json:"expiry,omitzero"`  // it ends by itself then; zero: never
	TTL        Duration  `json:"ttl,omitzero"`     // or after so long
	IfAbsent   bool      `json:"if_absent,omitempty"`
	IfExists   bool      `json:"if_exists,omitempty"`
	IfPosition string    `json:"if_position,omitempty"` // of the record's last change, "default@3.42"
}

// Condition must hold for the transaction to be done. Exactly one of its last three fields is set. All conditions, those of changes too,
// are looked at before the first change.
type Condition struct {
	File       string `json:"file"`
	Key               // fields key, key_base64
	IfAbsent   bool   `json:"if_absent,omitempty"`
	IfExists   bool   `json:"if_exists,omitempty"`
	IfPosition string `json:"if_position,omitempty"`
}

// Value is a record's value in JSON: as text, or in base64. One of them is set.
type Value struct {
	Plain *string `json:"value,omitempty"`
	Exact []byte  `json:"value_base64,omitempty"`
}

// MakeValue returns the JSON form of a value. It may keep a reference to b.
func MakeValue(b []byte) Value {
	if utf8.Valid(b) {
		s := string(b)
		return Value{Plain: &s}
	}
	return Value{Exact: b}
}

// Content returns the exact value; nil when none is set.
func (v Value) Content() []byte {
	if v.Plain != nil {
		return []byte(*v.Plain)
	}
	return v.Exact
}

// Put adds the change of a record to value.
func (t *Transaction) Put(file string, key, value []byte) *Transaction {
	t.Changes = append(t.Changes, Change{File: file, Key: MakeKey(key), Value: MakeValue(value)})
	return t
}

// Delete adds the deletion of a record.
func (t *Transaction) Delete(file string, key []byte) *Transaction {
	t.Changes = append(t.Changes, Change{File: file, Key: MakeKey(key), Delete: true})
	return t
}

// IfAbsent adds the condition that there is no such record.
func (t *Transaction) IfAbsent(file string, key []byte) *Transaction {
	t.Conditions = append(t.Conditions, Condition{File: file, Key: MakeKey(key), IfAbsent: true})
	return t
}

// IfExists adds the condition that there is such a record.
func (t *Transaction) IfExists(file string, key []byte) *Transaction {
	t.Conditions = append(t.Conditions, Condition{File: file, Key: MakeKey(key), IfExists: true})
	return t
}

// IfPosition adds the condition that the record was last changed at the position, as Record.Position says it.
func (t *Transaction) IfPosition(file string, key []byte, position string) *Transaction {
	t.Conditions = append(t.Conditions, Condition{File: file, Key: MakeKey(key), IfPosition: position})
	return t
}

// TransactionResult is the receipt of a transaction that is committed.
type TransactionResult struct {
	Position string         `json:"position"`        // of its last change
	Journal  string         `json:"journal"`         // in a repeated answer another one, when a failover has journaled it again
	Sequence uint64         `json:"sequence"`        // of its last change; 0 in a repeated answer when that receiver is gone
	Local    string         `json:"local,omitempty"` // as in WriteResult
	Changes  []ChangeResult `json:"changes"`         // in the order of the request
	Replayed bool           `json:"-"`               // it was done before; this is the first answer
}

// ChangeResult says what one change found.
type ChangeResult struct {
	Created  bool   `json:"created"`            // the record did not exist and does now
	Found    bool   `json:"found"`              // the record existed
	Position string `json:"position,omitempty"` // of this change: the IfPosition of the next one
	Sequence uint64 `json:"sequence,omitempty"` // in TransactionResult.Journal; 0 when that of the whole is
}

// FailedCondition says which condition of a write does not hold, and what there is instead.
type FailedCondition struct {
	In       string `json:"in,omitempty"` // "changes" or "conditions" of a transaction; "": the headers of the request
	Index    int    `json:"index"`        // there, from 0
	File     string `json:"file"`
	Key             // fields key, key_base64
	Exists   bool   `json:"exists"`
	Position string `json:"position,omitempty"` // of the record's last change, when it exists
}

// Transact makes a transaction happen and returns once it is committed. ErrPrecondition: a condition does not hold, Error.Failed says
// which. ErrUnknownOutcome: it may have been done. Of o the conditions are not used.
func (c *Client) Transact(ctx context.Context, t *Transaction, o WriteOptions) (TransactionResult, error) {
	x, err := post(t, "v1", "transactions")
	if err != nil {
		return TransactionResult{}, err
	}
	x.wait = o.Wait
	c.once(&x, o.IdempotencyKey)
	var r TransactionResult
	a, err := c.do(ctx, x)
	if err == nil {
		err = a.decode(&r)
		r.Replayed = a.replayed()
	}
	return r, err
}

// qualify sets what the options ask for, except the wait.
func (c *Client) qualify(x *exchange, o WriteOptions) {
	c.once(x, o.IdempotencyKey)
	switch {
	case o.IfAbsent:
		x.set("If-None-Match", "*")
	case o.IfPosition != "":
		x.set("If-Match", `"`+o.IfPosition+`"`)
	case o.IfExists:
		x.set("If-Match", "*")
	}
}

func (a answer) replayed() bool { return a.header.Get(HeaderReplayed) == "true" }

// set sets a header of the request.
func (x *exchange) set(name, value string) {
	if x.header == nil {
		x.header = http.Header{}
	}
	x.header.Set(name, value)
}
