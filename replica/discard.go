package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/store"
)

// promisesDir is the directory in the data directory with the promise files of all groups.
const promisesDir = "promises"

// groupDirs are the directories in the data directory that have one for each group.
var groupDirs = []string{recallDir, "replays", "backouts", "journals"}

// Retire closes the replica of a group that was deleted. Its role session must have ended; sessions of other nodes end here.
func (r *Replica) Retire(ctx context.Context) error {
	r.closed.Store(true)
	r.retired.Store(true)
	r.visitors.end()
	err := r.gate.exclusive(ctx, func() error { return nil }) // who was inside has left
	if err != nil {
		err = fmt.Errorf("end the sessions of group %s: %w", r.o.Group, err)
	}
	return errors.Join(err, r.Close())
}

// Held is the first record of users' files that is left in this node's store, what has expired and is not deleted yet included.
type Held struct {
	File string
	Key  []byte
}

// FirstHeld returns the first record of users' files that this node's store has; nil: none. Nobody is asked whether it may be shown.
func (r *Replica) FirstHeld() (*Held, error) {
	files, err := r.Files()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		page, err := r.data.Scan(file, nil, nil, 1)
		if err != nil {
			return nil, err
		}
		if len(page.Records) > 0 {
			return &Held{file, page.Records[0].Key}, nil
		}
	}
	return nil, nil
}

// Drain returns once everything that was sequenced before is committed and in the store of this node, the serving primary.
func (r *Replica) Drain(ctx context.Context) error {
	_, err := r.Write(ctx, Transaction{Program: func(*View) error { return nil }})
	return err
}

// Remains lists the groups of which a data directory or its store holds anything, sorted.
func Remains(fs vfs.FS, dir string, data *store.Store) ([]ident.GroupName, error) {
	var all []ident.GroupName
	for _, kind := range append([]string{promisesDir}, groupDirs...) {
		names, err := fs.List(fs.PathJoin(dir, kind))
		if err != nil && !isNotExist(err) {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		for _, name := range names {
			all = append(all, ident.GroupName(name))
		}
	}
	stored, err := data.Groups()
	if err != nil {
		return nil, err
	}
	all = append(all, stored...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Discard removes all that a data directory and its store hold of a group, the promise last. No replica of it may be open, and none is
// ever opened again. It may be repeated, also after a crash in the middle.
func Discard(ctx context.Context, fs vfs.FS, dir string, data *store.Store, group ident.GroupName) error {
	if err := data.Discard(ctx, group); err != nil {
		return fmt.Errorf("remove the records of group %s: %w", group, err)
	}
	for _, kind := range groupDirs {
		if err := removeNamed(fs, fs.PathJoin(dir, kind), string(group), fs.RemoveAll); err != nil {
			return fmt.Errorf("remove %s of group %s: %w", kind, group, err)
		}
	}
	if err := removeNamed(fs, fs.PathJoin(dir, promisesDir), string(group), fs.Remove); err != nil {
		return fmt.Errorf("remove the promise of group %s: %w", group, err)
	}
	return nil
}

// removeNamed removes an entry of a directory, durably, if it is there.
func removeNamed(fs vfs.FS, dir, name string, remove func(string) error) error {
	path := fs.PathJoin(dir, name)
	if _, err := fs.Stat(path); isNotExist(err) {
		return nil
	}
	if err := remove(path); err != nil && !isNotExist(err) {
		return err
	}
	return syncDir(fs, dir)
}
