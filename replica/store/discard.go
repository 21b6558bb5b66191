package store

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Groups lists the groups of which the database has a position, sorted.
func (s *Store) Groups() ([]ident.GroupName, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	positions, err := s.positions(false)
	return slices.Sorted(maps.Keys(positions)), s.readError(err)
}

// Discard removes the records of a group, their index and its position, durably. Nobody may apply to the group any more, now or later: what
// was read of it lately may still be shown to who has it.
func (s *Store) Discard(ctx context.Context, name ident.GroupName) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	g := s.Group(name)
	g.apply.Lock()
	defer g.apply.Unlock()
	batch := s.db.NewBatch()
	for _, prefix := range [][]byte{g.prefix, expiryPrefix(name)} {
		if err := batch.DeleteRange(prefix, after(prefix), nil); err != nil {
			return fmt.Errorf("build batch for group %s: %w", name, err)
		}
	}
	if err := batch.Delete(positionKey(name), nil); err != nil {
		return fmt.Errorf("build batch for group %s: %w", name, err)
	}
	err = s.run("discard", func() error {
		if !g.landing.begin(s.health.failed) {
			return s.health.error()
		}
		defer g.landing.end()
		return batch.Commit(pebble.NoSync)
	})
	if err != nil { // the batch is not closed: Pebble may still hold it
		s.health.fail(fmt.Errorf("remove group %s: %w", name, err))
		return s.health.error()
	}
	none := ident.Position{}
	g.position.Store(&none)
	if err := batch.Close(); err != nil {
		return err
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, name)
	return nil
}
