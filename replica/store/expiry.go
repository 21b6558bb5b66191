package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Expiring is a record that expires, as the index of expiries has it.
type Expiring struct {
	File   string
	Key    []byte
	Expiry int64 // unix nanoseconds
}

// expiryTimeBytes is the length of the time in a key of the index.
const expiryTimeBytes = 8

func expiryPrefix(g ident.GroupName) []byte {
	return appendName([]byte{kindExpiry}, string(g))
}

// appendExpiry appends a time such that times sort as numbers.
func appendExpiry(dst []byte, t int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t)^(1<<63))
}

// expiryKey returns the index key of the record with the given key.
func (g *Group) expiryKey(dst []byte, t int64, record []byte) []byte {
	dst = append(append(dst, kindExpiry), g.prefix[1:]...)
	return append(appendExpiry(dst, t), record[len(g.prefix):]...)
}

// cutExpiry reads a key of the index; what it returns does not refer to k.
func (g *Group) cutExpiry(k []byte) (Expiring, error) {
	rest := k[len(g.prefix):]
	if len(rest) < expiryTimeBytes {
		return Expiring{}, &CorruptionError{Key: bytes.Clone(k), Err: errors.New("an expiry without a time")}
	}
	e := Expiring{Expiry: int64(binary.BigEndian.Uint64(rest) ^ 1<<63)}
	var err error
	if e.File, e.Key, err = cutName(rest[expiryTimeBytes:]); err != nil {
		return Expiring{}, &CorruptionError{Key: bytes.Clone(k), Err: err}
	}
	e.Key = append([]byte{}, e.Key...)
	return e, nil
}

// Expiring returns records that do not expire after until, in the order of time, file and key, at most limit of them, and
// when the next one after those expires: math.MaxInt64 when none does. It begins with from, or after it: whoever knows that there
// is none before saves the way over what was deleted. Of from a time alone is enough.
func (g *Group) Expiring(from Expiring, until int64, limit int) (due []Expiring, next int64, err error) {
	leave, err := g.store.enter()
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	prefix := expiryPrefix(g.name)
	lower := appendExpiry(bytes.Clone(prefix), from.Expiry)
	if from.File != "" {
		lower = append(appendName(lower, from.File), from.Key...)
	}
	iter, err := g.iterate(g.store.db, &pebble.IterOptions{LowerBound: lower, UpperBound: after(prefix)})
	if err != nil {
		return nil, 0, g.store.readError(err)
	}
	next = math.MaxInt64
	for ok := iter.First(); ok; ok = iter.Next() {
		var e Expiring
		if e, err = g.cutExpiry(iter.Key()); err != nil {
			break
		}
		if next = e.Expiry; len(due) >= limit || e.Expiry > until {
			break
		}
		due, next = append(due, e), math.MaxInt64
	}
	return due, next, g.store.readError(errors.Join(err, iter.Error(), iter.Close()))
}

// hasExpiries tells whether any record of the group has an expiry.
func (g *Group) hasExpiries() (bool, error) {
	prefix := expiryPrefix(g.name)
	iter, err := g.store.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return false, err
	}
	found := iter.First()
	return found, errors.Join(iter.Error(), iter.Close())
}

// expiries keeps the index level with the records while one batch is built. A group in which nothing expires pays nothing;
// elsewhere each change looks at what it replaces.
type expiries struct {
	g    *Group
	iter *pebble.Iterator // over the records before the batch; nil until it is needed
	now  map[string]int64 // of records that the batch has changed, by key
	row  []byte
}

// change adds to the batch what the change of the record with the given key does to the index.
func (x *expiries) change(batch *pebble.Batch, key []byte, c *Change) error {
	var next int64
	if c.Put != nil {
		next = c.Put.Expiry
	}
	if next == 0 && !x.g.indexed {
		return nil
	}
	x.g.indexed = true
	old, err := x.before(key)
	if err != nil {
		return err
	}
	if old == next {
		return nil
	}
	if x.now == nil {
		x.now = make(map[string]int64)
	}
	x.now[string(key)] = next
	if old != 0 {
		x.row = x.g.expiryKey(x.row[:0], old, key)
		if err := batch.Delete(x.row, nil); err != nil {
			return err
		}
	}
	if next == 0 {
		return nil
	}
	x.row = x.g.expiryKey(x.row[:0], next, key)
	return batch.Set(x.row, nil, nil)
}

// before returns the expiry of a record as the batch has it so far; 0 when it has none, or is not there.
func (x *expiries) before(key []byte) (int64, error) {
	if t, ok := x.now[string(key)]; ok {
		return t, nil
	}
	if image, known, _ := x.g.store.recent.get(x.g, key); known { // nobody else changes it now
		if image == nil {
			return 0, nil
		}
		return image.Expiry, nil
	}
	if x.iter == nil {
		var err error
		if x.iter, err = x.g.iterate(x.g.store.db, nil); err != nil {
			return 0, err
		}
	}
	if !x.iter.SeekPrefixGE(key) || !bytes.Equal(x.iter.Key(), key) {
		return 0, x.iter.Error()
	}
	v, err := x.iter.ValueAndErr()
	if err != nil {
		return 0, err
	}
	t, err := expiryOf(v)
	if err != nil {
		return 0, &CorruptionError{Key: bytes.Clone(key), Err: err}
	}
	return t, nil
}

// close ends the look at the records; what was wrong with it was seen at each look.
func (x *expiries) close() {
	if x.iter != nil {
		_ = x.iter.Close()
	}
}

// indexBatch bounds a batch while the index is built.
const indexBatch = 1 << 20

// index builds the index of a store of version 1 and makes it one of this version. The version is the last thing written, and
// what a crash leaves is a beginning of what was written: then it begins anew, also when an older program has run in between.
func (s *Store) index() (err error) {
	s.log.Info("indexing the expiries of a store that an older program wrote", "version", 1)
	write := func(b *pebble.Batch) error {
		return s.run("index expiries", func() error { return b.Commit(pebble.NoSync) })
	}
	batch := s.db.NewBatch()
	if err := batch.DeleteRange([]byte{kindExpiry}, []byte{kindExpiry + 1}, nil); err != nil {
		return err
	}
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindRecord}, UpperBound: []byte{kindRecord + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Error(), iter.Close()) }()
	for ok := iter.First(); ok; ok = iter.Next() {
		v, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		t, err := expiryOf(v)
		if err != nil {
			return &CorruptionError{Key: bytes.Clone(iter.Key()), Err: err}
		}
		if t == 0 {
			continue
		}
		name, _, err := cutName(iter.Key()[1:])
		if err != nil {
			return &CorruptionError{Key: bytes.Clone(iter.Key()), Err: err}
		}
		g := Group{prefix: groupPrefix(ident.GroupName(name))}
		if err := batch.Set(g.expiryKey(nil, t, iter.Key()), nil, nil); err != nil {
			return err
		}
		if batch.Len() >= indexBatch {
			if err := write(batch); err != nil {
				return err
			}
			batch = s.db.NewBatch()
		}
	}
	if err := iter.Error(); err != nil {
		return err
	}
	if err := batch.Set(formatKey, []byte{formatVersion}, nil); err != nil {
		return err
	}
	return write(batch)
}
