package journal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// index makes sure that the points of a receiver are known. Only detached receivers that were not read at Open lack them.
func (j *Journal) index(r *receiver) error {
	j.mu.RLock()
	indexed, last := r.indexed, r.last
	found := newReceiver(r.header, r.raw)
	found.size = r.size
	j.mu.RUnlock()
	if indexed {
		return nil
	}
	file, err := j.disk.fs.Open(j.disk.path(fileName(r.header.Number)))
	if err != nil {
		if isNotExist(err) {
			j.mu.RLock()
			defer j.mu.RUnlock()
			if i := j.receiverLocked(r.header.Number); i < 0 || j.receivers[i] != r {
				return ErrNotHeld // deleted meanwhile
			}
			j.rotten(j.disk.id, r.header.Number)
			return &CorruptionError{Receiver: r.header.Number, Err: fmt.Errorf("%w: the file is missing", errGone)}
		}
		return fmt.Errorf("open receiver %s: %w", r.header.Number, err)
	}
	err = found.replay(file, last)
	if err := errors.Join(err, file.Close()); err != nil {
		j.rotten(j.disk.id, r.header.Number)
		return found.at(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r.points, r.newest, r.end, r.written, r.indexed = found.points, found.newest, found.end, found.end, true
	return nil
}

// settle calls f again as long as it does not find what it wants because receivers or the end of the journal went meanwhile.
func (j *Journal) settle(f func() error) error {
	stamp := func() (uint64, ident.Sequence) {
		j.mu.RLock()
		defer j.mu.RUnlock()
		return j.cuts.generation, j.view.First
	}
	for {
		generation, first := stamp()
		err := f()
		if !errors.Is(err, ErrRewound) && !errors.Is(err, ErrNotHeld) {
			return err
		}
		switch g, s := stamp(); {
		case g != generation || s != first:
		case errors.Is(err, ErrNotHeld):
			return err
		default:
			return fmt.Errorf("%w: what the receiver headers promise is not there", errStructure)
		}
	}
}

// walk hands bundles to f, from the one that begins at from on, until f returns false or the journal ends. ErrRewound: the end
// of the journal was removed on the way.
func (j *Journal) walk(from ident.Sequence, f func(b entry.Bundle) bool) error {
	j.mu.RLock()
	r := &Reader{j: j, bare: true, next: from, generation: j.cuts.generation}
	if from > j.view.Last {
		j.mu.RUnlock()
		return ErrRewound
	}
	j.mu.RUnlock()
	defer r.Close()
	for {
		item, ok, err := r.TryNext()
		if err != nil || !ok || !f(item.Bundle()) {
			return err
		}
	}
}

// start returns where to begin walking to reach seq: the first sequence of a bundle at or before it.
func (j *Journal) start(seq ident.Sequence) (ident.Sequence, error) {
	j.mu.RLock()
	if seq < j.view.First || seq > j.view.Last || seq == 0 {
		j.mu.RUnlock()
		return 0, ErrNotHeld
	}
	if held, ok := j.ring.find(seq); ok {
		j.mu.RUnlock()
		return held.bundle.First, nil
	}
	r := j.receivers[j.indexLocked(seq)]
	j.mu.RUnlock()
	if err := j.index(r); err != nil {
		return 0, err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if i := j.indexLocked(seq); i < 0 || j.receivers[i] != r || seq > r.last {
		return 0, ErrRewound // or deleted: look again
	}
	return r.pointBelow(seq).first, nil
}

// BundleAt returns the bundle that contains seq; ErrNotHeld when there is none.
func (j *Journal) BundleAt(seq ident.Sequence) (entry.Bundle, error) {
	var found entry.Bundle
	err := j.settle(func() error {
		from, err := j.start(seq)
		if err != nil {
			return err
		}
		found = entry.Bundle{}
		err = j.walk(from, func(b entry.Bundle) bool {
			found = b
			return b.Last() < seq
		})
		if err == nil && (found.Raw == nil || seq < found.First || seq > found.Last()) {
			err = ErrRewound // just behind what the walk had reached
		}
		return err
	})
	if err != nil {
		return entry.Bundle{}, fmt.Errorf("journal %s, sequence %s: %w", j.disk.id, seq, err)
	}
	return found, nil
}

// ChainAt returns the chain after the bundle that ends at end; false when no bundle held ends there. The sequence before the
// first one held counts as such an end; 0 does when the journal is empty or begins at 1.
func (j *Journal) ChainAt(end ident.Sequence) (ident.Chain, bool, error) {
	j.mu.RLock()
	v := j.view
	j.mu.RUnlock()
	switch {
	case end == v.Last:
		return v.Chain, true, nil // of an empty journal: 0
	case end > v.Last, end+1 < v.First:
		return 0, false, nil
	}
	j.mu.RLock()
	if i := j.indexLocked(end + 1); i >= 0 && j.receivers[i].header.First == end+1 {
		defer j.mu.RUnlock()
		return j.receivers[i].header.Chain, true, nil
	}
	j.mu.RUnlock()
	b, err := j.BundleAt(end)
	switch {
	case errors.Is(err, ErrNotHeld):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	case b.Last() != end:
		return 0, false, nil
	}
	return entry.NextChain(b.Chain, b.Raw), true, nil
}

// End is where a bundle ends, with the chain after it.
type End struct {
	Sequence ident.Sequence
	Chain    ident.Chain
}

// EndsBelow returns up to n bundle ends at or below from, descending. The end before the first bundle held is one of them; of
// an empty journal it is the only one: 0 with chain 0.
func (j *Journal) EndsBelow(from ident.Sequence, n int) ([]End, error) {
	var ends []End
	err := j.settle(func() error {
		ends = ends[:0]
		j.mu.RLock()
		generation := j.cuts.generation
		j.mu.RUnlock()
		for below := from; len(ends) < n; {
			j.mu.RLock()
			if generation != j.cuts.generation {
				j.mu.RUnlock()
				return ErrRewound
			}
			first, last := j.view.First, j.view.Last
			base := End{}
			if first > 0 {
				base = End{Sequence: first - 1, Chain: j.receivers[0].header.Chain}
			}
			j.mu.RUnlock()
			below = min(below, last)
			if below < first || first == 0 {
				if below >= base.Sequence {
					ends = append(ends, base)
				}
				return nil
			}
			more, begin, err := j.endsNear(below)
			if err != nil {
				return err
			}
			ends = append(ends, more[:min(len(more), n-len(ends))]...)
			below = begin - 1
		}
		j.mu.RLock()
		defer j.mu.RUnlock()
		if generation != j.cuts.generation {
			return ErrRewound
		}
		return nil
	})
	return ends, err
}

// endsNear returns the ends at or below seq, descending, of the bundles from a point near it on, and that point.
func (j *Journal) endsNear(seq ident.Sequence) ([]End, ident.Sequence, error) {
	j.mu.RLock()
	if seq < j.view.First || seq > j.view.Last {
		j.mu.RUnlock()
		return nil, 0, ErrRewound
	}
	r := j.receivers[j.indexLocked(seq)]
	j.mu.RUnlock()
	if err := j.index(r); err != nil {
		return nil, 0, err
	}
	j.mu.RLock()
	begin := r.pointBelow(seq).first
	j.mu.RUnlock()
	var ends []End
	err := j.walk(begin, func(b entry.Bundle) bool {
		if b.Last() <= seq {
			ends = append(ends, End{Sequence: b.Last(), Chain: entry.NextChain(b.Chain, b.Raw)})
		}
		return b.Last() < seq
	})
	slices.Reverse(ends)
	return ends, begin, err
}

// place is a piece of a run in its receiver.
type place struct {
	receiver *receiver
	piece    Run
}

// places returns the pieces that match, newest first.
func (j *Journal) places(match func(Run) bool) []place {
	j.mu.RLock()
	defer j.mu.RUnlock()
	var found []place
	for _, r := range slices.Backward(j.receivers) {
		for _, p := range slices.Backward(r.pieces) {
			if match(p) {
				found = append(found, place{receiver: r, piece: p})
			}
		}
	}
	return found
}

// fact returns the bundle with the fact h of the piece.
func (j *Journal) fact(p place, h ident.History) (entry.Bundle, error) {
	if err := j.index(p.receiver); err != nil {
		return entry.Bundle{}, err
	}
	j.mu.RLock()
	from := p.receiver.pointBefore(p.piece, h).first
	j.mu.RUnlock()
	var found entry.Bundle
	err := j.walk(from, func(b entry.Bundle) bool {
		if b.Facts > 0 && b.First >= p.piece.First && b.Fact.Epoch == p.piece.Epoch && b.Fact.History <= h && h <= b.After().History {
			found = b
			return false
		}
		return b.Last() < p.piece.Last
	})
	if err == nil && found.Raw == nil {
		err = ErrRewound // its end was removed since the piece was found
	}
	return found, err
}

// FindHistory returns the first sequence of the newest bundle that contains the fact pos, and whether there is one.
func (j *Journal) FindHistory(pos ident.Position) (ident.Sequence, bool, error) {
	var first ident.Sequence
	err := j.settle(func() error {
		first = 0
		for _, p := range j.places(func(p Run) bool {
			return p.Epoch == pos.Epoch && p.From <= pos.History && pos.History <= p.To
		}) {
			b, err := j.fact(p, pos.History)
			if err != nil {
				return err
			}
			first = b.First
			break
		}
		return nil
	})
	if err != nil {
		return 0, false, fmt.Errorf("journal %s, fact %s: %w", j.disk.id, pos, err)
	}
	return first, first != 0, nil
}

// FindAfter returns the first sequence of the newest bundle with facts that continues before and for whose first fact live
// returns true, and whether there is one. A bundle that merely contains the fact after before is none.
func (j *Journal) FindAfter(before ident.Position, live func(first ident.Position) bool) (ident.Sequence, bool, error) {
	h := before.History + 1
	var first ident.Sequence
	err := j.settle(func() error {
		first = 0
		for _, p := range j.places(func(p Run) bool {
			return p.Before == before || p.Epoch == before.Epoch && p.From <= before.History && before.History < p.To
		}) {
			if !live(ident.Position{Epoch: p.piece.Epoch, History: h}) {
				continue
			}
			b, err := j.fact(p, h)
			if err != nil {
				return err
			}
			if b.Before == before {
				first = b.First
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return 0, false, fmt.Errorf("journal %s, after %s: %w", j.disk.id, before, err)
	}
	return first, first != 0, nil
}

// LastEcho returns the position of the newest fact that was recorded here as replayed; zero when there is none since the last
// facts of this journal's own. It reads from the end backwards, receiver by receiver.
func (j *Journal) LastEcho() (ident.Position, error) {
	receivers := j.Receivers()
	for i := len(receivers) - 1; i >= 0; i-- {
		r := receivers[i]
		if r.Last < r.First {
			continue
		}
		var end ident.Position
		own := false
		err := j.walk(r.First, func(b entry.Bundle) bool {
			switch {
			case b.First > r.Last:
				return false
			case b.Echo():
				end, own = b.EchoEnd(), false
			case b.Facts > 0:
				own = true
			}
			return true
		})
		if err != nil {
			return ident.Position{}, err
		}
		if !end.IsZero() || own {
			return end, nil
		}
	}
	return ident.Position{}, nil
}
