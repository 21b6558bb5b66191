package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Group is one group's records in the store. It is safe for concurrent use; applies to one group take turns.
type Group struct {
	store  *Store
	name   ident.GroupName
	prefix []byte // of all record keys of the group

	apply    host.Turn                      // held during Apply: the compare and the set are one
	indexed  bool                           // under apply: the index of expiries may have rows
	landing  landing                        // no view is taken while a batch is committed
	lands    uint64                         // number of the batch that is about to be committed, or just was; 0: none. Under recent.mu
	position atomic.Pointer[ident.Position] // what the database holds; written under apply
	flushed  atomic.Pointer[ident.Position] // what it holds for certain after a crash; written by Store.refresh
}

// Change is one record's change: Put it with its attributes, or delete it when Put is nil. The store copies what it needs.
type Change struct {
	File string
	Key  []byte
	Put  *entry.Image
}

// PositionError says that the store stands elsewhere than the caller assumed. Nothing was changed.
type PositionError struct {
	Group      ident.GroupName
	Have, Want ident.Position
}

func (e *PositionError) Error() string {
	return fmt.Sprintf("store of group %s is at %s, not at %s", e.Group, e.Have, e.Want)
}

func newGroup(s *Store, name ident.GroupName) *Group {
	return &Group{apply: host.NewTurn(), store: s, name: name, prefix: groupPrefix(name)}
}

// Name returns the group's name.
func (g *Group) Name() ident.GroupName { return g.name }

// Position returns the history position of the content. A read begun after the call sees at least this much.
func (g *Group) Position() ident.Position { return positionOf(&g.position) }

// Flushed returns the lowest position at which the store can be found after a crash. It is not above Position in time, but
// may be in number, when an undo is not flushed yet.
func (g *Group) Flushed() ident.Position { return positionOf(&g.flushed) }

// Flush makes what was applied durable; it flushes all groups.
func (g *Group) Flush(ctx context.Context) error { return g.store.Flush(ctx) }

// Apply makes the changes, in order, and moves the position from before to after, all in one atomic batch. It changes
// nothing and returns a *PositionError when the store is not at before. After may lie below before: that is an undo.
// Any other error means that the store failed; whether the batch survived is for the next process to see.
func (g *Group) Apply(before, after ident.Position, changes []Change) error {
	leave, err := g.store.enter()
	if err != nil {
		return err
	}
	defer leave()
	g.apply.Lock()
	defer g.apply.Unlock()
	if err := g.store.health.error(); err != nil { // the batch before may have failed: what it changes stays hidden
		return err
	}
	if have := g.Position(); have != before {
		return &PositionError{Group: g.name, Have: have, Want: before}
	}
	if before == after {
		if len(changes) > 0 {
			return fmt.Errorf("store of group %s: changes that do not move the position from %s", g.name, before)
		}
		return nil
	}
	var t touched
	batch, err := g.batch(after, changes, &t)
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	g.store.recent.hide(g, &t, changes)
	err = g.store.run("apply", func() error {
		if !g.landing.begin(g.store.health.failed) {
			return g.store.health.error()
		}
		defer g.landing.end()
		return batch.Commit(pebble.NoSync)
	})
	if err != nil {
		// The batch is not closed: Pebble may still hold it. What it changes stays hidden.
		g.store.health.fail(fmt.Errorf("apply %s to group %s: %w", after, g.name, err))
		return g.store.health.error()
	}
	g.position.Store(&after)
	g.store.recent.show(g, &t)
	return batch.Close()
}

func (g *Group) batch(after ident.Position, changes []Change, t *touched) (*pebble.Batch, error) {
	size := 64
	for i := range changes {
		size += len(g.prefix) + len(changes[i].File) + len(changes[i].Key) + 16
	}
	t.keys, t.ends = make([]byte, 0, size), make([]int, 0, len(changes))
	for i := range changes {
		if changes[i].Put != nil {
			size += recordHeader + 1 + len(changes[i].Put.Value)
		}
	}
	batch := g.store.db.NewBatchWithSize(size)
	x := expiries{g: g}
	defer x.close()
	var key, value []byte
	for i := range changes {
		c := &changes[i]
		key = append(g.appendFile(key[:0], c.File), c.Key...)
		t.add(key)
		err := x.change(batch, key, c)
		if err != nil {
			return batch, fmt.Errorf("index of expiries of group %s: %w", g.name, g.store.readError(err))
		}
		if c.Put == nil {
			err = batch.Delete(key, nil)
		} else {
			value = appendRecord(value[:0], c.Put)
			err = batch.Set(key, value, nil)
		}
		if err != nil {
			return batch, fmt.Errorf("build batch for group %s: %w", g.name, err)
		}
	}
	return batch, batch.Set(positionKey(g.name), appendPosition(nil, after), nil)
}

func (g *Group) appendFile(dst []byte, file string) []byte {
	return appendName(append(dst, g.prefix...), file)
}

// Get returns a record with its attributes, whether expired or not; ErrNotFound when there is none. Its value must not be changed.
func (g *Group) Get(file string, key []byte) (entry.Image, error) {
	image, err := g.Look(file, key)
	if err != nil {
		return entry.Image{}, err
	}
	if image == nil {
		return entry.Image{}, ErrNotFound
	}
	return *image, nil
}

// Look is Get for who only looks: nothing of the image may be changed. It is nil when there is no such record.
func (g *Group) Look(file string, key []byte) (*entry.Image, error) {
	leave, err := g.store.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var small [128]byte // where most keys have room
	k := append(g.appendFile(small[:0], file), key...)
	image, known, since := g.store.recent.get(g, k)
	if known {
		return image, nil
	}
	k = bytes.Clone(k)
	if image, err = g.read(k); err != nil {
		return nil, g.store.readError(err)
	}
	g.store.recent.keep(k, since, image)
	return image, nil
}

// read reads a record in the database; nil when there is none.
func (g *Group) read(k []byte) (*entry.Image, error) {
	iter, err := g.iterate(g.store.db, nil)
	if err != nil {
		return nil, err
	}
	image, err := recordAt(iter, k)
	return image, errors.Join(err, iter.Close())
}

// recordAt returns the record with the key; nil when there is none.
func recordAt(iter *pebble.Iterator, k []byte) (*entry.Image, error) {
	if !iter.SeekPrefixGE(k) || !bytes.Equal(iter.Key(), k) { // a prefix is the whole key here, so this looks at the filters
		return nil, iter.Error()
	}
	v, err := iter.ValueAndErr()
	if err != nil {
		return nil, err
	}
	image, err := decodeRecord(v)
	if err != nil {
		return nil, &CorruptionError{Key: bytes.Clone(k), Err: err}
	}
	return &image, nil
}

// iterate makes an iterator, and with it the view that it keeps. No view is taken while a batch of the group lands: Pebble
// puts a batch into the memtable first and raises the visible sequence number after. A flush in between, which other
// goroutines may cause, keeps the newest version of a key only, the one that is not visible yet; a view taken then finds
// neither it nor the one before, but whatever is older still. See docs/decisions/0006.
func (g *Group) iterate(from pebble.Reader, o *pebble.IterOptions) (*pebble.Iterator, error) {
	if !g.landing.look(g.store.health.failed) {
		return nil, g.store.health.error()
	}
	defer g.landing.leave()
	return from.NewIter(o)
}

// readError fails the store when a read shows that the database is damaged.
func (s *Store) readError(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		s.health.fail(err)
		return s.health.error()
	}
	return err
}
