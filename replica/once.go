package replica

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// KeysFile holds a record for each idempotency key, part of the format. Its key is the idempotency key, its value a keptReply; it is
// the first entry of the transaction that it belongs to, and expires when the key need not be known any more.
const KeysFile = reservedPrefix + "idempotency"

// MaxOnceKey is how many bytes an idempotency key may have.
const MaxOnceKey = 255

// Once makes a request happen at most once: a later one with the same key gets the receipt of the first. The key is kept by a record
// that is part of the transaction itself, so whoever has the transaction knows its key, also after a failover. That a condition does
// not hold is kept, too: the first look decides. What is refused for another reason leaves no trace.
type Once struct {
	Key     string        // printable ASCII, at most MaxOnceKey
	Request [32]byte      // tells requests apart: the same key with another one is refused with ErrKeyReused
	Keep    time.Duration // how long the key is known
}

// size is what the record of the key takes, roughly, for a transaction of so many writes.
func (o *Once) size(writes int) int64 { return int64(len(KeysFile)+len(o.Key)+writes) + 512 }

func (o *Once) validate() error {
	switch {
	case o.Key == "" || len(o.Key) > MaxOnceKey:
		return fmt.Errorf("%w: an idempotency key of %d bytes, want 1 to %d", ErrInvalid, len(o.Key), MaxOnceKey)
	case o.Keep <= 0:
		return fmt.Errorf("%w: an idempotency key that is kept for %s", ErrInvalid, o.Keep)
	}
	for _, c := range []byte(o.Key) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("%w: an idempotency key with byte %#x, want printable ASCII", ErrInvalid, c)
		}
	}
	return nil
}

// keptReply is the value of a key's record, part of the format (JSON). The position of the transaction is that of the record and as
// many entries on.
type keptReply struct {
	Request string       `json:"request"`           // SHA-256, hexadecimal
	Node    ident.NodeID `json:"node"`              // in whose journal it was deposited first
	Entries uint64       `json:"entries"`           // of the transaction, after this one
	Changes string       `json:"changes,omitempty"` // a letter for each write: see the constants below
	Refused *keptRefuse  `json:"refused,omitempty"` // nothing was done
}

type keptRefuse struct {
	Index  int           `json:"index"` // of the condition
	File   string        `json:"file"`
	Key    []byte        `json:"key"`
	Epoch  ident.Epoch   `json:"epoch,omitempty"` // with History: the position of the record that was there
	Change ident.History `json:"history,omitempty"`
	Exists bool          `json:"exists,omitempty"`
}

// Letters of keptReply.Changes, part of the format.
const (
	keptCreated = 'c' // it made a record
	keptFound   = 'f' // there was a record
	keptNothing = 'n' // it deleted a record that was not there
)

func (k *keptReply) setChanges(changes []Changed) {
	letters := make([]byte, 0, len(changes))
	for _, c := range changes {
		letter := byte(keptNothing)
		switch {
		case c.Created:
			letter = keptCreated
		case c.Found:
			letter = keptFound
		}
		letters = append(letters, letter)
	}
	k.Changes = string(letters)
}

// receipt is the first receipt, except for the sequence, of the key's record.
func (k *keptReply) receipt(group ident.GroupName, record *entry.Image) Receipt {
	r := Receipt{Position: record.Position, Journal: ident.JournalID{Group: group, Node: k.Node}, Replayed: true}
	r.Position.History += ident.History(k.Entries)
	for _, letter := range []byte(k.Changes) {
		r.Changes = append(r.Changes, Changed{Created: letter == keptCreated, Found: letter == keptFound})
	}
	if len(r.Changes) > 0 {
		r.Created, r.Found = r.Changes[0].Created, r.Changes[0].Found
	}
	return r
}

// recall answers a request whose key is known, also from a transaction that is on its way: the answer waits until that is committed.
func (d *draft) recall(r *request) (known bool, err error) {
	key := []byte(r.once.Key)
	record, err := d.s.current(recordKey{KeysFile, r.once.Key}, key)
	if err != nil || record == nil || expired(record, d.time) {
		return false, err
	}
	var kept keptReply
	if err := json.Unmarshal(record.Value, &kept); err != nil {
		d.refuse(r, fmt.Errorf("%w: its record cannot be read: %w", ErrKeyReused, err))
		return true, nil
	}
	if kept.Request != hex.EncodeToString(r.once.Request[:]) {
		d.refuse(r, &KeyReusedError{Position: kept.receipt(d.s.p.r.o.Group, record).Position})
		return true, nil
	}
	if k := kept.Refused; k != nil {
		d.refuse(r, &ConditionError{Index: k.Index, File: k.File, Key: k.Key, Exists: k.Exists, Position: ident.Position{Epoch: k.Epoch, History: k.Change}, Replayed: true})
		return true, nil
	}
	receipt := kept.receipt(d.s.p.r.o.Group, record)
	r.position = receipt.Position // who does not wait for the answer is told where to look
	d.refused = append(d.refused, waiter{request: r, receipt: receipt})
	return true, nil
}

// keep completes the record of the key, which is the entry at begin, now that the rest of its transaction is known.
func (d *draft) keep(o *Once, begin int, changes []Changed, refusal *ConditionError) error {
	kept := keptReply{Request: hex.EncodeToString(o.Request[:]), Node: d.s.p.r.o.Node, Entries: uint64(len(d.entries) - begin - 1)}
	kept.setChanges(changes)
	if refusal != nil {
		kept.Refused = &keptRefuse{Index: refusal.Index, File: refusal.File, Key: refusal.Key, Epoch: refusal.Position.Epoch, Change: refusal.Position.History, Exists: refusal.Exists}
	}
	value, err := json.Marshal(&kept)
	if err != nil {
		return errors.Join(ErrInvalid, err) // numbers and strings only: cannot happen
	}
	d.entries[begin].After.Value = value
	if d.size += len(value) + 8; d.size > entry.MaxBundle { // padded, like every entry that is counted
		return errBundleFull
	}
	return nil
}

// find completes a receipt that was kept: where the entry stands in the journal that it was deposited in first or, where that is not held
// up to there any more, in another one. Without either its sequence stays 0.
func (r *Replica) find(receipt *Receipt) {
	held := r.shelf.all()
	if first, ok := r.shelf.get(receipt.Journal.Node); ok {
		held = append([]*journal.Journal{first}, held...)
	}
	for _, j := range held {
		seq, ok, err := j.FindHistory(receipt.Position)
		if err != nil || !ok {
			continue
		}
		b, err := j.BundleAt(seq)
		if err != nil {
			continue
		}
		for e, err := range b.Entries() {
			if err == nil && e.Position == receipt.Position {
				receipt.Journal, receipt.Sequence = j.ID(), e.Sequence
				return
			}
		}
	}
}
