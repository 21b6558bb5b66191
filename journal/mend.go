package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Damaged tells whether Open failed with err because files of the journal are not what was written, which Mend can repair.
func Damaged(err error) bool {
	var broken *CorruptionError
	if errors.Is(err, errHeaderVersion) || errors.Is(err, entry.ErrVersion) || errors.Is(err, errStateVersion) {
		return false // its checksum fits: a newer program wrote it
	}
	return errors.As(err, &broken) || errors.Is(err, errStateFile) || errors.Is(err, errGone)
}

// Mend repairs, from twins, what keeps Open from opening the journal in o.Dir; it must not be open. author says that this node
// writes the journal. Without twins, or when what they hold does not fit, nothing is changed but what Open itself changes.
//
// What was durable here is never given up: with twins that end before that Mend fails. Where the end of the journal had to come
// from a twin, entries behind it may be missing that a loss of power let the mark forget: the journal then counts as torn, and its
// node is not promoted before it was compared with another one.
func Mend(ctx context.Context, o Options, author bool, twins []Twin, pace Pace) ([]Repaired, error) {
	o.setDefaults()
	m := mender{disk: disk{fs: o.FS, dir: o.Dir, id: o.ID, cluster: o.Cluster}, o: o, author: author, twins: twins, pace: pace}
	for {
		_, err := m.disk.recover()
		if err == nil {
			m.disk.pruneBad()
			return m.done, nil
		}
		if !Damaged(err) || ctx.Err() != nil {
			return m.done, fmt.Errorf("repair journal %s: %w", o.ID, err)
		}
		if len(twins) == 0 {
			return m.done, fmt.Errorf("repair journal %s: %w: %w", o.ID, err, ErrNoTwin)
		}
		if again := m.treat(ctx, err); again != nil {
			return m.done, fmt.Errorf("repair journal %s: %w: %w", o.ID, err, again)
		}
	}
}

// mender repairs a journal that is not open.
type mender struct {
	disk   disk
	o      Options
	author bool
	twins  []Twin
	pace   Pace
	done   []Repaired
	last   string // what was treated last: the same again means that the treatment does not help

	treated map[ident.ReceiverNumber]int // in this call
}

// treat repairs the cause of one failure of recover.
func (m *mender) treat(ctx context.Context, failure error) error {
	if failure.Error() == m.last {
		return errors.New("it is still so after the repair")
	}
	m.last = failure.Error()
	var broken *CorruptionError
	switch {
	case errors.Is(failure, errStateFile):
		return m.state(ctx)
	case errors.As(failure, &broken):
		return m.receiver(ctx, broken.Receiver)
	}
	n, err := m.oldest(ctx) // no receiver is left
	if err != nil {
		return err
	}
	return m.receiver(ctx, n)
}

// oldest returns the number of the oldest receiver that a twin holds.
func (m *mender) oldest(ctx context.Context) (ident.ReceiverNumber, error) {
	lowest := ident.ReceiverNumber(math.MaxUint32)
	why := []error{ErrNoTwin}
	for _, t := range m.twins {
		numbers, err := t.Numbers(ctx)
		if err != nil {
			why = append(why, fmt.Errorf("ask %s: %w", t.Name(), err))
		} else if len(numbers) > 0 {
			lowest = min(lowest, numbers[0])
		}
	}
	if lowest == math.MaxUint32 {
		return 0, errors.Join(why...)
	}
	return lowest, nil
}

// state makes the state file anew, when a twin says that it holds the journal too. What it said is lost, so the cautious is
// assumed: a torn tail was cut, marks in bundles are about another disk, no removal goes on. One that did begins again when the
// chains are compared. Each sector has the whole of it; one that is sound counts.
func (m *mender) state(ctx context.Context) error {
	if _, err := m.oldest(ctx); err != nil {
		return err
	}
	r := record{state: Inactive, authored: m.author, received: true, torn: true}
	if file, err := m.disk.fs.Open(m.disk.path(stateName)); err == nil {
		b := make([]byte, stateSize)
		n, err := file.ReadAt(b, 0)
		if err := errors.Join(ignoreEOF(err), file.Close()); err != nil {
			return fmt.Errorf("read state file: %w", err)
		}
		if whole, err := decodeFirst(b); n == stateSize && err == nil { // only the slots are gone
			r = whole
		}
		for _, s := range [][]byte{b[stateSector:], b[2*stateSector:]} {
			if have, ok := readSlot(s, r); ok && have.count > r.count {
				r = have
			}
		}
		r.torn = true
	} else if !isNotExist(err) {
		return fmt.Errorf("open state file: %w", err)
	}
	if err := m.disk.save(&r); err != nil {
		return err
	}
	m.done = append(m.done, Repaired{Journal: m.disk.id, Torn: true})
	return nil
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// receiver makes receiver n anew from what is sound of it and from the twins.
func (m *mender) receiver(ctx context.Context, n ident.ReceiverNumber) error {
	if m.treated == nil {
		m.treated = map[ident.ReceiverNumber]int{}
	}
	if m.treated[n]++; m.treated[n] > treatments {
		return fmt.Errorf("%w: receiver %s was made anew %d times and comes up again: what the copies hold does not fit what is here", errChain, n, treatments)
	}
	rec, err := readRecord(m.disk.fs, m.disk.dir)
	if err != nil {
		return err
	}
	var why []error
	tried := false
	for _, choice := range menu(len(m.twins)) {
		var asked []Twin
		for _, i := range choice {
			asked = append(asked, m.twins[i])
		}
		headers, err := m.headers(ctx, n, asked)
		if err != nil {
			why = append(why, err)
		}
		for _, raw := range headers {
			tried = true
			err := m.attempt(ctx, n, raw, asked, rec)
			if err == nil {
				return nil
			}
			var other *CorruptionError
			if errors.As(err, &other) && errors.Is(err, errFirst) {
				m.last = "" // this one comes up again
				return m.receiver(ctx, other.Receiver)
			}
			if why = append(why, err); ctx.Err() != nil {
				return errors.Join(why...)
			}
		}
	}
	if !tried {
		why = append([]error{ErrNoTwin}, why...)
	}
	return errors.Join(why...)
}

// treatments is how often one receiver is made anew in one call: a wrong header beside it may make it look rotten.
const treatments = 3

// errFirst: another receiver has to be repaired before.
var errFirst = errors.New("repair this receiver first")

// headers returns the headers that receiver n can have had: the one that stands here, and those of the twins.
func (m *mender) headers(ctx context.Context, n ident.ReceiverNumber, twins []Twin) ([][]byte, error) {
	var out [][]byte
	var why []error
	add := func(raw []byte, err error) {
		if err != nil {
			why = append(why, err)
			return
		}
		h, err := DecodeReceiverHeader(raw)
		if err == nil {
			err = m.disk.owns(h)
		}
		if err == nil && h.Number != n {
			err = fmt.Errorf("%w: the header is receiver %s's", errStructure, h.Number)
		}
		if err != nil {
			why = append(why, err)
		} else if !slices.ContainsFunc(out, func(known []byte) bool { return bytes.Equal(known, raw) }) {
			out = append(out, raw)
		}
	}
	if file, err := m.disk.fs.Open(m.disk.path(fileName(n))); err == nil {
		raw := make([]byte, HeaderSize)
		_, err := file.ReadAt(raw, 0)
		add(raw, errors.Join(ignoreEOF(err), file.Close()))
	}
	for _, t := range twins {
		tp := &twinPart{ctx: ctx, pace: m.pace, twin: t, number: n}
		add(tp.header())
		tp.close()
	}
	return out, errors.Join(why...)
}

// attempt makes receiver n anew under the given header and installs it, if everything fits that stands around it.
func (m *mender) attempt(ctx context.Context, n ident.ReceiverNumber, raw []byte, twins []Twin, rec record) error {
	h, err := DecodeReceiverHeader(raw)
	if err != nil {
		return err
	}
	if err := m.follows(h); err != nil {
		return err
	}
	next, detached, err := m.next(n)
	if err != nil {
		return err
	}
	p, err := m.disk.newPatch(ctx, m.pace, h, raw, twins)
	if err != nil {
		return err
	}
	defer p.discard()
	torn := false
	var stopped *spliceError
	switch {
	case next != nil:
		if err := p.fill(next.First-1, nil); err != nil {
			return err
		}
		if !p.r.endsAt(*next) {
			return fmt.Errorf("%w: what the copies hold does not lead to receiver %s", errChain, next.Number)
		}
	case detached: // the next one's header is rotten, too
		if err := p.fill(math.MaxInt64, nil); err != nil && !errors.As(err, &stopped) {
			return err
		}
		if !p.r.closed {
			return fmt.Errorf("the copies end at sequence %s, before the end of the receiver", p.r.last)
		}
		if p.first > 0 { // no header says where it has to lead: what is sound here must not say otherwise
			if err := p.contradicted(); err != nil {
				return err
			}
		}
	default:
		if err := m.fillLast(p, rec); err != nil {
			return err
		}
		if p.r.closed && p.r.last < rec.mark && p.first == 0 {
			return m.receiver(ctx, n+1) // this one is whole, what came after it is gone
		}
		if p.r.last < rec.mark && !p.r.closed {
			return fmt.Errorf("this node had everything up to sequence %s on its disk, and the copies that can be asked end at %s: start the node that has the rest; only if there is none, remove the directory %s to go on without it",
				rec.mark, p.r.last, m.disk.dir)
		}
		zero, err := m.clear(p, rec)
		if err != nil {
			return err
		}
		torn = p.origin > 0 || !zero
	}
	size := max(p.size, zeroedSize(p.r.end, m.o.ReceiverBytes))
	if detached {
		size = roundUp(p.r.end, HeaderSize)
	}
	if err := p.finish(p.r.end, size); err != nil {
		return err
	}
	if !detached && p.local != nil {
		if had := min(held(p.local), m.o.full()); had > size {
			p.reserve(had)
		}
	}
	if torn && !rec.torn { // first, or a crash would make us forget
		if rec.torn = true; rec.count > 0 {
			if err := m.disk.save(&rec); err != nil {
				return err
			}
		}
	}
	kept, _, err := p.install(m.o.Host.Clock.Now())
	if err != nil {
		return err
	}
	m.done = append(m.done, p.repaired(kept, torn))
	return nil
}

// fillLast completes the newest receiver: as far as it is sound here when that is all there was, else as far as any copy goes.
func (m *mender) fillLast(p *patch, rec record) error {
	var stopped *spliceError
	err := p.fill(math.MaxInt64, func(local error) bool {
		if local != io.EOF || p.r.last < rec.mark {
			return false
		}
		zero, _, err := rest(p.local, p.r.end, p.size)
		return err == nil && zero
	})
	if errors.As(err, &stopped) {
		return nil
	}
	return err
}

// clear tells whether only zeros stand here behind the end of the patch. What stands there may be the remains of a last write,
// as after a crash; whole bundles beyond that mean that the copies are of another branch or end too early.
func (m *mender) clear(p *patch, rec record) (bool, error) {
	if p.local == nil {
		return false, nil
	}
	if p.first > 0 {
		if err := p.contradicted(); err != nil {
			return false, err
		}
	}
	zero, _, err := rest(p.local, p.r.end, p.size)
	if err != nil || zero {
		return zero, err
	}
	behind, err := search(p.local, gap{at: p.r.end, want: p.r.last, after: p.r.after, packed: p.r.packed}, p.r.end, p.size)
	if err != nil {
		return false, err
	}
	sealedHere := rec.authored && !rec.received
	if behind.end-p.r.end > maxBatch || sealedHere && behind.durable > p.r.last {
		return false, fmt.Errorf("sound bundles stand behind byte %d here, and no copy leads to them: start the node that has what lies between", p.r.end)
	}
	return false, nil
}

// contradicted returns an error when a whole bundle stands in the local file, behind the first bad place, where the patch has
// something else: then the copies are of another branch. Bundles that stand in values are the same in both.
func (p *patch) contradicted() error {
	mine := scanner{file: p.local, offset: p.first, limit: min(p.size, p.r.end)}
	theirs := scanner{file: p.file, limit: p.r.end}
	for mine.offset+entry.HeaderSize <= mine.limit {
		at := mine.offset
		b, err := mine.next()
		var broken *entry.CorruptionError
		if err == io.EOF || errors.As(err, &broken) {
			mine.offset = at + alignment
			continue
		}
		if err != nil {
			return err
		}
		theirs.offset = at
		raw, err := theirs.window(int64(b.Length))
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, b.Raw) {
			return fmt.Errorf("%w: a whole bundle stands at byte %d here, and the copies have something else there", errChain, at)
		}
	}
	return nil
}

// follows refuses a header that does not continue the receiver before, when there is one.
func (m *mender) follows(h ReceiverHeader) error {
	file, err := m.disk.fs.Open(m.disk.path(fileName(h.Number)))
	if err == nil {
		raw := make([]byte, HeaderSize)
		_, err := file.ReadAt(raw, 0)
		if err := errors.Join(ignoreEOF(err), file.Close()); err != nil {
			return fmt.Errorf("read receiver header: %w", err)
		}
		if local, err := DecodeReceiverHeader(raw); err == nil && local == h {
			return nil // its own, whole
		}
	}
	before, err := m.disk.header(h.Number - 1)
	switch {
	case isNotExist(err): // the first one, or what came before was deleted
		return nil
	case err != nil:
		return errors.Join(errFirst, err)
	}
	previous, err := m.disk.fs.Open(m.disk.path(fileName(h.Number - 1)))
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	defer previous.Close() // only read from
	if err := before.replay(previous, h.First-1); err != nil {
		return errors.Join(errFirst, before.at(err))
	}
	if !before.endsAt(h) {
		return fmt.Errorf("%w: receiver %s does not continue the one before", errChain, h.Number)
	}
	return nil
}

// next returns the header of the receiver after n, nil when it is rotten, and whether there is one at all.
func (m *mender) next(n ident.ReceiverNumber) (h *ReceiverHeader, exists bool, err error) {
	r, err := m.disk.header(n + 1)
	var broken *CorruptionError
	switch {
	case err == nil:
		return &r.header, true, nil
	case errors.As(err, &broken):
		return nil, true, nil
	case !isNotExist(err):
		return nil, false, err
	}
	names, err := m.disk.fs.List(m.disk.dir)
	if err != nil {
		return nil, false, fmt.Errorf("list journal directory: %w", err)
	}
	for _, name := range names { // several in a row are missing
		if stem, ok := strings.CutSuffix(name, ".rcv"); ok && stem > n.String() && len(stem) == len(n.String()) {
			return nil, true, nil
		}
	}
	return nil, false, nil
}

// full returns how much is set aside for a receiver at most.
func (o *Options) full() int64 {
	l := Limits{ReceiverBytes: o.ReceiverBytes}
	return l.full() + l.reserve()
}

// zeroedSize is how long a receiver is whose bundles end at end.
func zeroedSize(end, receiverBytes int64) int64 {
	l := Limits{ReceiverBytes: receiverBytes}
	return zeroedTo(end, l.step())
}
