package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Filter selects entries. Zero fields select everything.
type Filter struct {
	From, To           ident.Sequence // inclusive
	Since              time.Time
	Code               entry.Code
	Type               entry.Type
	File               string
	Key                []byte
	Transaction        ident.Sequence // first sequence of the transaction
	IncludeUnconfirmed bool
	Limit              int // 0: no limit; whoever answers others sets one
}

func (f *Filter) selects(e *entry.Entry) bool {
	switch {
	case e.Sequence < f.From, f.To != 0 && e.Sequence > f.To:
	case !f.Since.IsZero() && e.Time < f.Since.UnixNano():
	case f.Code != 0 && e.Code != f.Code:
	case f.Type != entry.Type{} && e.Type != f.Type:
	case f.File != "" && e.File != f.File:
	case f.Key != nil && !bytes.Equal(e.Key, f.Key):
	case f.Transaction != 0 && e.Transaction != f.Transaction:
	default:
		return true
	}
	return false
}

// Entries returns the selected entries in order. Unconfirmed ones, which the source has not said to be on its own disk, are
// left out unless asked for. The entries share no memory with the journal.
func (j *Journal) Entries(ctx context.Context, f Filter) ([]entry.Entry, error) {
	var entries []entry.Entry
	err := j.settle(func() error {
		entries = nil
		v, _ := j.watch()
		to := v.Last
		if !f.IncludeUnconfirmed {
			to = min(to, v.Confirmed)
		}
		if f.To != 0 {
			to = min(to, f.To)
		}
		from := max(f.From, f.Transaction, v.First)
		if v.First == 0 || from > to {
			return nil
		}
		from, err := j.start(from)
		if err != nil {
			return err
		}
		var wrong error
		err = j.walk(from, func(b entry.Bundle) bool {
			if wrong = context.Cause(ctx); wrong != nil {
				return false
			}
			for e, err := range b.Entries() {
				if err != nil {
					wrong = err
					return false
				}
				if e.Sequence > to || f.Limit > 0 && len(entries) == f.Limit {
					return false
				}
				if f.selects(&e) {
					entries = append(entries, detach(e))
				}
			}
			return b.Last() < to
		})
		return errors.Join(err, wrong)
	})
	if err != nil {
		return nil, fmt.Errorf("list entries of journal %s: %w", j.disk.id, err)
	}
	return entries, nil
}

// detach copies what e shares with its bundle.
func detach(e entry.Entry) entry.Entry {
	e.Key, e.Data = bytes.Clone(e.Key), bytes.Clone(e.Data)
	for _, i := range []**entry.Image{&e.Before, &e.After} {
		if *i != nil {
			c := **i
			c.Value = bytes.Clone(c.Value)
			*i = &c
		}
	}
	return e
}

// Verify reads everything that is on disk and checks checksums, structure and chain. It returns the first *CorruptionError.
// What is appended meanwhile is left out.
func (j *Journal) Verify(ctx context.Context) error {
	err := j.settle(func() error {
		j.mu.RLock()
		receivers, generation := slices.Clone(j.receivers), j.cuts.generation
		durable := j.view.Durable
		j.mu.RUnlock()
		for i, r := range receivers {
			var next *receiver
			if i+1 < len(receivers) {
				next = receivers[i+1]
			}
			if r.header.First > durable+1 {
				break
			}
			err := j.verify(ctx, r, next, durable)
			j.mu.RLock()
			cut, held := j.cuts.generation != generation, len(j.receivers) > 0 && r.header.Number >= j.receivers[0].header.Number
			j.mu.RUnlock()
			switch {
			case cut:
				return ErrRewound
			case err != nil && held:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify journal %s: %w", j.disk.id, err)
	}
	return nil
}

// verify reads one receiver as far as it is durable.
func (j *Journal) verify(ctx context.Context, r, next *receiver, durable ident.Sequence) error {
	j.mu.RLock()
	last, size, closed := min(r.last, durable), r.size, r.closed
	j.mu.RUnlock()
	if size == 0 {
		return nil // its file is still to be made
	}
	file, err := j.disk.fs.Open(j.disk.path(fileName(r.header.Number)))
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	defer file.Close()
	raw := make([]byte, HeaderSize)
	if _, err := file.ReadAt(raw, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read receiver header: %w", err)
	}
	if !bytes.Equal(raw, r.raw) {
		return &CorruptionError{Receiver: r.header.Number, Err: errHeaderChecksum}
	}
	found := newReceiver(r.header, raw)
	s := scanner{file: file, offset: HeaderSize, limit: size, brief: true}
	for found.last < last {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, err := s.next()
		if err == nil && b.First != found.last+1 {
			err = fmt.Errorf("%w: sequence %s follows %s", errStructure, b.First, found.last)
		}
		if err == nil {
			err = found.accepts(b)
		}
		if err != nil {
			return found.at(err)
		}
		found.add(b)
	}
	if next == nil || !closed || last < r.last {
		return nil
	}
	if !found.endsAt(next.header) {
		return &CorruptionError{Receiver: r.header.Number, Offset: found.end, Err: fmt.Errorf("%w: the next receiver does not continue it", errChain)}
	}
	zero, _, err := rest(file, found.end, size)
	if err == nil && !zero {
		err = &CorruptionError{Receiver: r.header.Number, Offset: found.end, Err: fmt.Errorf("%w: bytes beyond the last bundle", errStructure)}
	}
	return err
}
