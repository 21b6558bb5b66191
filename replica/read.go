package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
	"github.com/understudy-ha/understudy/replica/store"
)

// Page is a part of a file, in key order, all of it at one position.
type Page = store.Page

// Read returns a record and the position of the store it was read from. With local unset only the serving primary answers,
// with a valid lease: the answer is the newest committed one. With local set a backup answers, too, if it holds nothing that
// it does not know to be committed. ErrNotFound comes with the position.
func (r *Replica) Read(ctx context.Context, file string, key []byte, local bool) (entry.Image, ident.Position, error) {
	if err := validateRecord(file, key); err != nil {
		return entry.Image{}, ident.Position{}, err
	}
	var image entry.Image
	at, err := r.read(ctx, local, func() (ident.Position, error) {
		at := r.data.Position() // before: the record is at least as new
		var err error
		image, err = r.data.Get(file, key)
		if errors.Is(err, store.ErrNotFound) {
			err = ErrNotFound
		}
		return at, err
	}, func(now int64) []store.Expiring {
		if expired(&image, now) {
			return []store.Expiring{{File: file, Key: bytes.Clone(key), Expiry: image.Expiry}}
		}
		return nil
	})
	if err != nil {
		image = entry.Image{}
	}
	return image, at, err
}

// List returns a page of a file. The rules are those of Read, but for what is due: the primary leaves that out without waiting
// until it is deleted, so that a page never waits for many deletions. Only Read and a Condition tell for certain that a record
// is absent, and stays so.
func (r *Replica) List(ctx context.Context, file string, prefix, from []byte, limit int, local bool) (Page, error) {
	if file == "" || len(file) > entry.MaxFile {
		return Page{}, fmt.Errorf("%w: file name of %d bytes", ErrInvalid, len(file))
	}
	if Reserved(file) {
		return Page{}, errReserved(file)
	}
	var page Page
	_, err := r.read(ctx, local, func() (at ident.Position, err error) {
		page, err = r.data.Scan(file, prefix, from, limit)
		return page.Position, err
	}, func(now int64) []store.Expiring {
		page.Records = slices.DeleteFunc(page.Records, func(r store.Record) bool { return expired(&r.Image, now) })
		return nil
	})
	return page, err
}

// Count counts the records of users' files, as this node's store has them, those that have expired too.
func (r *Replica) Count(ctx context.Context) (int64, error) {
	return r.data.Count(ctx, func(file string) bool { return !Reserved(file) })
}

// CountOf counts the records of some of the users' files, as this node's store has them.
func (r *Replica) CountOf(ctx context.Context, counts func(file string) bool) (int64, error) {
	return r.data.Count(ctx, func(file string) bool { return !Reserved(file) && counts(file) })
}

// Position returns the history position of this node's store.
func (r *Replica) Position() ident.Position { return r.data.Position() }

// Files returns the names of the files that have records, as this node's store has them, without the product's own.
func (r *Replica) Files() ([]string, error) {
	files, err := r.data.Files()
	return slices.DeleteFunc(files, Reserved), err
}

// FilesNow is Files at the primary, under its lease: with every file that an acknowledged write has made. It returns ErrNotPrimary elsewhere.
func (r *Replica) FilesNow(ctx context.Context) (files []string, err error) {
	_, err = r.read(ctx, false, func() (ident.Position, error) {
		var err error
		files, err = r.Files()
		return r.data.Position(), err
	}, func(int64) []store.Expiring { return nil })
	return files, err
}

// read runs get until its result may be shown. What due returns is deleted by the primary, and that is committed, before it looks
// again: nobody else may say that a record has expired. So elsewhere what get returns is shown as it is.
func (r *Replica) read(ctx context.Context, local bool, get func() (ident.Position, error), due func(now int64) []store.Expiring) (ident.Position, error) {
	for {
		p := r.primary.Load()
		if p == nil || !p.serving.Load() {
			if !local && p == nil {
				return ident.Position{}, ErrNotPrimary
			}
			if local {
				return r.readLocal(get)
			}
			if err := p.awaitTurn(ctx); err != nil {
				return ident.Position{}, err
			}
			continue
		}
		var at ident.Position
		var err error
		may := core.Answer(func() { at, err = get() }, func() bool { return !p.stopped.Load() && p.control.CheckLease(p.epoch) == nil })
		if err != nil && !errors.Is(err, ErrNotFound) {
			return at, err
		}
		if !may {
			if local {
				return r.readLocal(get)
			}
			if err := p.awaitTurn(ctx); err != nil {
				return ident.Position{}, err
			}
			continue
		}
		if err != nil {
			return at, err
		}
		gone := due(p.now())
		if len(gone) == 0 {
			return at, nil
		}
		switch _, err := p.expire(ctx, gone); {
		case err == nil || errors.Is(err, errNotDue):
		case NotDone(err):
			return at, err
		default: // what becomes of the deletion does not matter to a read: it is asked again elsewhere
			return at, fmt.Errorf("%w: %v", ErrNotPrimary, err)
		}
	}
}

// readLocal answers from a backup's store. What was read must be known to be committed, by what this life has learned, both
// before and after, with no undo between.
func (r *Replica) readLocal(get func() (ident.Position, error)) (ident.Position, error) {
	undos := r.undos.generation()
	if !r.presentable() {
		return ident.Position{}, ErrNotReconciled
	}
	at, err := get()
	if !r.presentable() || r.undos.generation() != undos {
		return ident.Position{}, ErrNotReconciled
	}
	return at, err
}

// presentable tells whether everything in the store is known to be committed.
func (r *Replica) presentable() bool {
	a, _ := r.assignment()
	if a.Group == nil || len(a.Group.History) == 0 {
		return false
	}
	at := r.data.Position()
	return a.Group.History.Contains(at) && at.History <= r.known.committed(a.Group.History).History
}

// awaitTurn waits until the session serves, or is over, or a little while.
func (p *primary) awaitTurn(ctx context.Context) error {
	turned := p.turned.wait()
	if p.r.primary.Load() != p {
		return ErrNotPrimary
	}
	t := time.NewTimer(10 * time.Millisecond) // the lease tells nobody when it is back
	defer t.Stop()
	select {
	case <-turned:
	case <-t.C:
	case <-ctx.Done():
		if p.serving.Load() && p.control.CheckLease(p.epoch) != nil {
			return fmt.Errorf("%w: %w", ErrNoLease, context.Cause(ctx))
		}
		return fmt.Errorf("%w: %w", ErrNotPrimary, context.Cause(ctx))
	}
	return nil
}

// Behind returns how long ago this node was last known to have everything that was committed then; zero at the serving
// primary. ok is false when it never was in this life.
func (r *Replica) Behind() (d time.Duration, ok bool) {
	if p := r.primary.Load(); p != nil && p.serving.Load() {
		return 0, true
	}
	at := r.picture.levelAt.Load()
	if at == 0 {
		return 0, false
	}
	return time.Since(time.Unix(0, at)), true
}
