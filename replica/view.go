package replica

import (
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// View is what the program of a transaction sees and changes: the records as everything sequenced before has left them, with
// the program's own changes. It must not be used after the program has returned, nor by another goroutine. Images and values
// that it gives out, keys and values that it is given, must not be changed, not even later.
type View struct {
	d       *draft
	changes int
	bytes   int64
	lapsed  []recordKey
	err     error // why the transaction cannot be done any more, whatever the program says
}

// errPanic is the cause of a *ProgramError when the program has panicked.
var errPanic = errors.New("the program panicked, which is a defect")

// Now returns the time of the transaction, unix nanoseconds. Records that have expired by then are not there.
func (v *View) Now() int64 { return v.d.time }

// Next returns the position that the next change will have.
func (v *View) Next() ident.Position { return v.d.position(len(v.d.entries)) }

// End returns where the history stands that the program sees, its own changes included.
func (v *View) End() ident.Position { return v.d.end() }

// Deleted returns a position of the history after which the record was surely not deleted: a record that is not there, and was not there
// at that position, was not there between either.
func (v *View) Deleted(file string, key []byte) ident.History {
	return v.d.s.graves.since(recordKey{file, string(key)})
}

// Get returns a record with its attributes; nil when it does not exist or has expired. One that has is deleted, so that what the
// program does for want of it is not committed before it is gone.
func (v *View) Get(file string, key []byte) (*entry.Image, error) {
	image, err := v.get(file, key)
	if err != nil || image == nil {
		return nil, err
	}
	if expired(image, v.d.time) {
		v.lapsed = append(v.lapsed, recordKey{file, string(key)})
		return nil, v.change(file, key, nil)
	}
	seen := *image
	return &seen, nil
}

func (v *View) get(file string, key []byte) (*entry.Image, error) {
	if v.err != nil {
		return nil, v.err
	}
	if err := v.validate(file, key); err != nil {
		return nil, err
	}
	image, err := v.d.s.current(recordKey{file, string(key)}, key)
	if err != nil {
		v.err = err
	}
	return image, err
}

// Put makes the record what image says. Its position and time are set here.
func (v *View) Put(file string, key []byte, image entry.Image) error {
	if n := len(image.Value); n > entry.MaxValue {
		return fmt.Errorf("%w: value of %d bytes, at most %d", ErrTooLarge, n, entry.MaxValue)
	}
	if !image.Kind.Known() {
		return fmt.Errorf("%w: kind %d of a record is reserved", ErrInvalid, image.Kind)
	}
	return v.change(file, key, &image)
}

// Delete deletes the record and tells whether there was one that had not expired. Nothing changes when there is none at all.
func (v *View) Delete(file string, key []byte) (found bool, err error) {
	old, err := v.Get(file, key)
	if err != nil || old == nil {
		return false, err
	}
	return true, v.change(file, key, nil)
}

// change makes one change. Once one does not fit the transaction is lost.
func (v *View) change(file string, key []byte, image *entry.Image) error {
	if v.err != nil {
		return v.err
	}
	if err := v.validate(file, key); err != nil {
		return err
	}
	v.changes++
	v.bytes += int64(len(file)+len(key)) + 128
	if image != nil {
		v.bytes += int64(len(image.Value))
	}
	switch {
	case v.changes > maxTransactionWrites:
		v.err = fmt.Errorf("%w: more than %d changes in a transaction: split it", ErrTooLarge, maxTransactionWrites)
	case v.bytes > maxTransactionBytes:
		v.err = fmt.Errorf("%w: more than %d bytes in a transaction: split it", ErrTooLarge, maxTransactionBytes)
	default:
		_, v.err = v.d.change(file, key, image, true)
		if v.err == nil && v.d.size > entry.MaxBundle {
			v.err = errBundleFull
		}
	}
	return v.err
}

// validate checks the name of a record. One that is not the group's ends the transaction.
func (v *View) validate(file string, key []byte) error {
	err := validateRecord(file, key)
	if err == nil && v.d.owns != nil {
		err = v.d.owns(file, key)
		v.err = err
	}
	return err
}

// run runs a program. What made the transaction impossible counts for more than what the program says.
func (v *View) run(program func(*View) error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = &ProgramError{Err: fmt.Errorf("%w: %v", errPanic, cause)}
		}
		if v.err != nil {
			err = v.err
		}
	}()
	if err := program(v); err != nil {
		return &ProgramError{Err: err}
	}
	return nil
}

// validateRecord is validateKey for what users name.
func validateRecord(file string, key []byte) error {
	if Reserved(file) {
		return errReserved(file)
	}
	return validateKey(file, key)
}
