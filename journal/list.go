package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
)

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
