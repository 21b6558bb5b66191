package replica

import (
	"fmt"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Limits of one write. They keep a transaction within one bundle.
const (
	maxTransactionBytes  = 32 << 20
	maxTransactionWrites = 4096
)

// Write puts or deletes one record.
type Write struct {
	File   string
	Key    []byte
	Value  []byte
	Expiry int64      // unix nanoseconds; 0: none. One that is past is taken: the record is due at once
	Kind   entry.Kind // what Value is; one that this version does not know is refused
	Delete bool       // deletes the record; one that does not exist is no error
}

// Condition must hold when the transaction is sequenced. It sees all transactions sequenced before. A record whose time is over
// does not exist.
type Condition struct {
	File     string
	Key      []byte
	Absent   bool           // the record must not exist
	Position ident.Position // of its last change; zero: any, it only has to exist (unless Absent)

	// Unchanged: the record is as it was seen, not there (Position zero) or last changed at Position. One that has expired is not
	// there. One that was made and deleted again meanwhile counts as unchanged.
	Unchanged bool
}

// holds tells whether the condition holds for a record as it is now; nil: there is none.
func (c *Condition) holds(now *entry.Image, at int64) bool {
	exists := now != nil && !expired(now, at)
	switch {
	case c.Absent, c.Unchanged && c.Position.IsZero():
		return !exists
	case c.Unchanged:
		return exists && now.Position == c.Position
	}
	return exists && (c.Position.IsZero() || now.Position == c.Position)
}

// Transaction is a set of writes that happens as a whole or not at all. It never spans bundles. The replica does not change
// the slices and keeps them until Write returns or, when Write returns an error, until the next bundle was committed: the
// caller must not change them.
type Transaction struct {
	Writes     []Write
	Conditions []Condition

	// Program computes further changes, after Writes, when the transaction is sequenced. It sees everything sequenced before and its
	// own changes. It may be run more than once, one run after the other, so only what its last run did counts; it is not run any more
	// once Write has returned. All writes of the group wait for it: it must be quick, and do no I/O. When it returns an error, or
	// panics, nothing of the transaction is done, and Write returns a *ProgramError once what the program has read is committed. One
	// that changes nothing makes no entry: Write returns once what it has read is committed, with the position of that.
	Program func(v *View) error

	Once *Once // nil: a repeated transaction is done again. Not together with Program
}

// Receipt says where a write stands in the history.
type Receipt struct {
	Position ident.Position // of the last entry of the transaction
	Journal  ident.JournalID
	Sequence ident.Sequence // of the last entry, in Journal
	Created  bool           // the first write made a record that did not exist
	Found    bool           // the record of the first write existed before

	Changes  []Changed // of each write, when there are several or the transaction is done once
	Replayed bool      // the transaction was done before; this is the first receipt. Sequence is 0 when that receiver is gone
}

// Changed says what one write found.
type Changed struct {
	Created bool // it made a record that did not exist
	Found   bool // the record existed before
}

func changed(w *Write, found bool) Changed {
	return Changed{Created: !found && !w.Delete, Found: found}
}

// size is what the transaction takes in queue and bundle, roughly and never too low.
func (t *Transaction) size() int64 {
	n := int64(64)
	for i := range t.Writes {
		n += int64(len(t.Writes[i].Key) + len(t.Writes[i].Value) + len(t.Writes[i].File) + 128)
	}
	for i := range t.Conditions {
		n += int64(len(t.Conditions[i].Key) + len(t.Conditions[i].File) + 64)
	}
	if t.Once != nil {
		n += t.Once.size(len(t.Writes))
	}
	return n
}

func (t *Transaction) validate() error {
	switch {
	case t.Program != nil && t.Once != nil:
		return fmt.Errorf("%w: a program is not done once", ErrInvalid) // its reply is not kept
	case len(t.Writes) == 0 && t.Program == nil:
		return fmt.Errorf("%w: a transaction without writes", ErrInvalid)
	case len(t.Writes) > maxTransactionWrites:
		return fmt.Errorf("%w: %d writes in a transaction, at most %d", ErrTooLarge, len(t.Writes), maxTransactionWrites)
	case len(t.Conditions) > maxTransactionWrites:
		return fmt.Errorf("%w: %d conditions in a transaction, at most %d", ErrTooLarge, len(t.Conditions), maxTransactionWrites)
	case t.size() > maxTransactionBytes:
		return fmt.Errorf("%w: %d bytes in a transaction, at most %d", ErrTooLarge, t.size(), maxTransactionBytes)
	}
	for i := range t.Writes {
		if err := validateKey(t.Writes[i].File, t.Writes[i].Key); err != nil {
			return err
		}
		if Reserved(t.Writes[i].File) && !t.Writes[i].Delete {
			return errReserved(t.Writes[i].File)
		}
		if n := len(t.Writes[i].Value); n > entry.MaxValue {
			return fmt.Errorf("%w: value of %d bytes, at most %d", ErrTooLarge, n, entry.MaxValue)
		}
		if k := t.Writes[i].Kind; !k.Known() {
			return fmt.Errorf("%w: kind %d of a record is reserved", ErrInvalid, k)
		}
	}
	if t.Once != nil {
		return t.Once.validate()
	}
	return nil
}

// Reserved tells whether a file name is the product's own. No user's file is called so; what is kept there is data like any other.
func Reserved(file string) bool { return strings.HasPrefix(file, reservedPrefix) }

// reservedPrefix begins the names of the product's own files, part of the format.
const reservedPrefix = "\x00"

func errReserved(file string) error {
	return fmt.Errorf("%w: file name %q: names that begin with a zero byte are the product's own", ErrInvalid, file)
}

func validateKey(file string, key []byte) error {
	switch {
	case file == "":
		return fmt.Errorf("%w: no file name", ErrInvalid)
	case len(file) > entry.MaxFile:
		return fmt.Errorf("%w: file name of %d bytes, at most %d", ErrTooLarge, len(file), entry.MaxFile)
	case len(key) == 0:
		return fmt.Errorf("%w: empty key", ErrInvalid)
	case len(key) > entry.MaxKey:
		return fmt.Errorf("%w: key of %d bytes, at most %d", ErrTooLarge, len(key), entry.MaxKey)
	}
	return nil
}
