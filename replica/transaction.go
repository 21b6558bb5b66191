package replica

import (
	"fmt"

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
}

// Transaction is a set of writes that happens as a whole or not at all. It never spans bundles. The replica does not change
// the slices and keeps them until Write returns or, when Write returns an error, until the next bundle was committed: the
// caller must not change them.
type Transaction struct {
	Writes     []Write
	Conditions []Condition
}

// Receipt says where a write stands in the history.
type Receipt struct {
	Position ident.Position // of the last entry of the transaction
	Journal  ident.JournalID
	Sequence ident.Sequence // of the last entry, in Journal
	Created  bool           // the first write made a record that did not exist
	Found    bool           // the record of the first write existed before
}

// size is what the transaction takes in queue and bundle, roughly and never too low.
func (t *Transaction) size() int64 {
	n := int64(64)
	for i := range t.Writes {
		n += int64(len(t.Writes[i].Key) + len(t.Writes[i].Value) + len(t.Writes[i].File) + 128)
	}
	return n
}

func (t *Transaction) validate() error {
	switch {
	case len(t.Writes) == 0:
		return fmt.Errorf("%w: a transaction without writes", ErrInvalid)
	case len(t.Writes) > maxTransactionWrites:
		return fmt.Errorf("%w: %d writes in a transaction, at most %d", ErrTooLarge, len(t.Writes), maxTransactionWrites)
	case t.size() > maxTransactionBytes:
		return fmt.Errorf("%w: %d bytes in a transaction, at most %d", ErrTooLarge, t.size(), maxTransactionBytes)
	}
	for i := range t.Writes {
		if err := validateKey(t.Writes[i].File, t.Writes[i].Key); err != nil {
			return err
		}
		if n := len(t.Writes[i].Value); n > entry.MaxValue {
			return fmt.Errorf("%w: value of %d bytes, at most %d", ErrTooLarge, n, entry.MaxValue)
		}
		if k := t.Writes[i].Kind; !k.Known() {
			return fmt.Errorf("%w: kind %d of a record is reserved", ErrInvalid, k)
		}
	}
	return nil
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
