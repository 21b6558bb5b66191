package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// One bundle takes at most this much, unless a single transaction is larger.
const (
	bundleBytes   = 1 << 20
	bundleEntries = 4096
)

// sequencer gives writes their place in the history: it takes what waits, numbers it, seals a bundle and deposits it. While
// that one is on its way to the disk the next one fills.
type sequencer struct {
	p       *primary
	before  ident.Position // history after the last bundle deposited
	last    ident.Sequence // of the last bundle deposited
	overlay *overlay
	graves  *graves
	cramped time.Time // since when the journal is full; zero: it is not
}

// run sequences until ctx ends.
func (s *sequencer) run(ctx context.Context) error {
	p := s.p
	view, _ := p.own.View()
	s.before, s.last = view.After, view.Last
	s.graves = newGraves(view.After.History)
	tick := time.NewTicker(p.r.o.Timing.Tick)
	defer tick.Stop()
	for {
		filled, turned, freed := p.queue.filled.wait(), p.turned.wait(), p.queue.overdrawn()
		if p.admits() {
			worked, err := s.seal(ctx)
			if err != nil {
				return err
			}
			if worked {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-filled:
		case <-turned:
		case <-freed:
		case <-tick.C: // the lease may be back
		}
	}
}

// seal deposits one bundle of what waits; false when nothing does, or must not.
func (s *sequencer) seal(ctx context.Context) (bool, error) {
	p := s.p
	if p.queue.length() == 0 {
		return false, nil
	}
	if err := p.own.WaitDurable(ctx, s.last); err != nil {
		return false, journalFailed(p.own, err)
	}
	a, _ := p.control.Assignment()
	if !p.mine(a) || p.control.CheckLease(p.epoch) != nil {
		return false, nil // the writes wait: the lease comes back, or the role is lost
	}
	if err := p.r.o.Host.Failpoint("replica.seal:" + string(p.r.o.Group)); err != nil {
		return false, err
	}
	leave, ok := p.sealing()
	if !ok {
		return false, nil // held meanwhile
	}
	defer leave()
	taken := p.queue.take(bundleBytes, bundleEntries)
	if len(taken) == 0 {
		return false, nil
	}
	err := s.deposit(a.Group, taken)
	return s.cramped.IsZero(), err
}

// noRoom answers requests that a full journal has refused. Nothing of them was numbered. At first they wait again: the janitor
// may be about to make room.
func (s *sequencer) noRoom(taken []*request, full error) {
	p := s.p
	if others, ok := p.makeWay(taken, full); ok {
		s.cramped = time.Time{}
		p.queue.giveBack(others)
		return
	}
	now := time.Now()
	if s.cramped.IsZero() {
		s.cramped = now
	}
	if now.Sub(s.cramped) < p.r.o.Timing.Room {
		p.cramped.fire()
		p.queue.giveBack(taken)
		return
	}
	p.r.inspect(p.own, p.own.Space())
	p.decline(taken, fmt.Errorf("%w: %w", ErrJournalFull, full))
}

// deposit seals the requests into one bundle, as many as fit with their before-images; the rest waits again. When it fails,
// nothing was sequenced and every request is answered; an error ends the session.
func (s *sequencer) deposit(g *fsm.Group, taken []*request) error {
	p := s.p
	d := draft{s: s, time: p.now(), images: wantsBefore(g, p.doubt.Load())}
	d.expect(taken)
	if now, _ := p.control.Assignment(); now.Group != nil { // after the requests were taken, as below
		d.closing = now.Group.Closing != nil
	}
	if p.r.o.Selection != nil {
		d.owns = p.r.o.Selection() // after the requests were taken: a barrier among them proves what those before it have met
	}
	for i, r := range taken {
		err := d.add(r)
		if errors.Is(err, errBundleFull) {
			p.queue.giveBack(taken[i:])
			taken = taken[:i]
			break
		}
		if err != nil {
			d.undo()
			return p.dropped(taken, err)
		}
	}
	if len(d.entries) == 0 { // every condition failed
		p.flights.attach(d.refused)
		sequenced(taken)
		return nil
	}
	leave, err := p.r.gate.enter(p.epoch)
	if err != nil {
		d.undo()
		return p.dropped(taken, err)
	}
	defer leave()
	p.flights.begin(p.own)
	h, err := p.own.Deposit(journal.Draft{
		Entries: d.entries, Session: p.epoch, Before: s.before, FactEpoch: p.epoch, Time: d.time, Committed: p.flights.committed(),
		Flags: compression(g),
	})
	if err != nil {
		p.flights.abandon()
		d.undo()
		if errors.Is(err, journal.ErrFull) {
			s.noRoom(taken, err)
			return nil
		}
		err = journalFailed(p.own, err)
		if v, _ := p.own.View(); v.After != s.before { // it got in, whatever was said
			return p.lost(taken, err)
		}
		if errors.Is(err, entry.ErrTooLarge) || errors.Is(err, entry.ErrInvalid) {
			kind := ErrTooLarge
			if !errors.Is(err, entry.ErrTooLarge) {
				kind = ErrInvalid
			}
			p.decline(taken, fmt.Errorf("%w: %w", kind, err))
			return nil // the journal is as it was
		}
		return p.dropped(taken, err)
	}
	s.cramped = time.Time{}
	s.before, s.last = h.After(), h.Last()
	p.newest.Store(d.time)
	p.entryBytes.Store(int64(h.Length) / int64(max(h.Count, 1)))
	d.flight.header = h
	for i := range d.flight.waiters {
		w := &d.flight.waiters[i]
		w.receipt.Journal, w.receipt.Sequence = p.own.ID(), h.First+ident.Sequence(w.entry)
	}
	p.flights.push(d.flight)
	p.flights.attach(d.refused)
	sequenced(taken)
	return nil
}

// sequenced tells the requests that their positions are final.
func sequenced(taken []*request) {
	for _, r := range taken {
		close(r.sequenced)
	}
}

// compression returns the flags of what is deposited in a group.
func compression(g *fsm.Group) entry.Flags {
	if g != nil && g.Spec.Compression == fsm.CompressionZstd {
		return entry.FlagCompressed
	}
	return 0
}

// wantsBefore tells whether before-images are journaled: always, never, or whenever an entry can be committed without an
// in-sync secondary and so may have to be backed out. Doubt about a secondary makes that likely: by the time the bundle is
// committed the set may have shrunk.
func wantsBefore(g *fsm.Group, doubt bool) bool {
	switch g.Spec.Images {
	case fsm.ImagesBoth:
		return true
	case fsm.ImagesAfter:
		return false
	}
	return g.Spec.Delivery == fsm.DeliveryAsync || len(g.InSync) < 2 || doubt
}

// draft collects one bundle.
type draft struct {
	s       *sequencer
	time    int64
	images  bool
	owns    func(file string, key []byte) error // nil: everything is the group's
	closing bool                                // the group is to be deleted: nothing that somebody asks for is taken
	entries []entry.Entry
	flight  *flight
	refused []waiter
	lapsed  []recordKey // what the last request has seen as absent because it had expired
	label   ident.Sequence
	size    int // of the bundle, before-images included
}

// expect makes room for what requests will probably append.
func (d *draft) expect(taken []*request) {
	n := 0
	for _, r := range taken {
		n += r.entries()
	}
	n = min(n, 2*bundleEntries)
	d.size = entry.Size(nil)
	d.entries = make([]entry.Entry, 0, n)
	d.flight = &flight{changes: make([]store.Change, 0, n), touched: make([]touch, 0, n), waiters: make([]waiter, 0, len(taken))}
}

// errBundleFull: the request does not fit into the bundle, the next one takes it.
var errBundleFull = errors.New("the bundle is full")

// add appends the entries of a request, or refuses it when a condition does not hold or it fits into no bundle. It returns
// errBundleFull, and leaves the draft as it was, when the request has to wait for the next bundle.
func (d *draft) add(r *request) error {
	r.again()
	d.lapsed = nil
	begin := d.mark()
	if begin.entries > 0 && d.size >= bundleBytes {
		return errBundleFull
	}
	if r.due != nil {
		return d.expire(r)
	}
	if r.once != nil {
		if known, err := d.recall(r); known || err != nil {
			return err
		}
	}
	if err := d.ownsAll(r); err != nil {
		d.refuse(r, err)
		return nil
	}
	refusal, err := d.checkAll(r.conditions)
	if err != nil {
		return err
	}
	if refusal != nil {
		if err := d.deleteLapsed(); err != nil {
			return err
		}
		if r.once == nil {
			d.refuse(r, refusal)
			return nil
		}
	}
	w := waiter{request: r}
	err = d.fill(r, &w, refusal)
	var program *ProgramError
	switch {
	case errors.Is(err, errBundleFull):
		d.rollback(begin)
		if begin.entries > 0 {
			return errBundleFull
		}
		d.refuse(r, fmt.Errorf("%w: with the records that it changes it is larger than a bundle, %d bytes: split the transaction", ErrTooLarge, entry.MaxBundle))
		return nil
	case errors.As(err, &program), errors.Is(err, ErrTooLarge), errors.Is(err, ErrInvalid), errors.Is(err, ErrNotOwned):
		d.rollback(begin)
		if err := d.deleteLapsed(); err != nil {
			return err
		}
		d.refuse(r, err)
		return nil
	case err != nil:
		return err
	}
	if d.closing && len(d.entries) > begin.entries {
		d.rollback(begin)
		d.refuse(r, ErrClosing)
		return nil
	}
	if len(d.entries) == begin.entries { // its program changed nothing
		d.rollback(begin)
		if err := d.deleteLapsed(); err != nil { // for which its conditions hold
			return err
		}
		w.receipt.Position, w.receipt.Journal = d.end(), d.s.p.own.ID()
		d.refused = append(d.refused, w)
		return nil
	}
	if refusal != nil {
		r.refused, w.err = refusal, refusal
	} else {
		r.position = d.end()
	}
	w.entry = len(d.entries) - 1
	w.receipt.Position = d.end()
	d.flight.waiters = append(d.flight.waiters, w)
	return nil
}

// ownsAll refuses a request with a record that is not the group's. The product's own files are in every group.
func (d *draft) ownsAll(r *request) error {
	if d.owns == nil {
		return nil
	}
	for i := range r.writes {
		if w := &r.writes[i]; !Reserved(w.File) {
			if err := d.owns(w.File, w.Key); err != nil {
				return err
			}
		}
	}
	for i := range r.conditions {
		if c := &r.conditions[i]; !Reserved(c.File) {
			if err := d.owns(c.File, c.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill appends the entries of a request whose conditions were checked. Its errors are errBundleFull, those that refuse the
// request, and those that end the session.
func (d *draft) fill(r *request, w *waiter, refusal *ConditionError) error {
	together := len(r.writes) > 1 || r.program != nil || r.once != nil
	if together {
		d.label++
	}
	begin := len(d.entries)
	if r.once != nil {
		if _, err := d.change(KeysFile, []byte(r.once.Key), &entry.Image{Expiry: d.time + int64(r.once.Keep)}, true); err != nil {
			return err
		}
	}
	if refusal == nil {
		if err := d.work(r, w, together); err != nil {
			return err
		}
	}
	if r.once != nil {
		return d.keep(r.once, begin, w.receipt.Changes, refusal)
	}
	return nil
}

// work appends what a request asks for.
func (d *draft) work(r *request, w *waiter, together bool) error {
	if r.user != nil {
		e := *r.user
		if together {
			e.Transaction = d.label
		}
		d.append(e)
	}
	for i := range r.writes {
		found, err := d.write(&r.writes[i], together)
		if err != nil {
			return err
		}
		if d.size > entry.MaxBundle {
			return errBundleFull
		}
		c := changed(&r.writes[i], found)
		if i == 0 {
			w.receipt.Found, w.receipt.Created = c.Found, c.Created
		}
		if len(r.writes) > 1 || r.once != nil {
			w.receipt.Changes = append(w.receipt.Changes, c)
		}
	}
	if r.program == nil {
		return nil
	}
	v := &View{d: d}
	err := v.run(r.program)
	d.lapsed = append(d.lapsed, v.lapsed...)
	d.s.p.queue.produced(r, v.bytes)
	return err
}

// refuse answers a request that is not done, once what it has seen is committed.
func (d *draft) refuse(r *request, err error) {
	r.refused = err
	d.refused = append(d.refused, waiter{request: r, err: err})
}

// mark is a state of the draft between two requests.
type mark struct {
	entries, touched, size int
	label                  ident.Sequence
}

func (d *draft) mark() mark { return mark{len(d.entries), len(d.flight.touched), d.size, d.label} }

// rollback takes back what was put into the draft and the overlay since the mark.
func (d *draft) rollback(m mark) {
	f := d.flight
	if len(f.touched) > m.touched {
		d.s.p.flights.restore(d.s.overlay, &flight{touched: f.touched[m.touched:]})
		for i, t := range f.touched[:m.touched] {
			d.s.overlay.put(t.key, f.changes[i].Put, t.at)
		}
	}
	clear(d.entries[m.entries:]) // large images are not kept
	clear(f.changes[m.touched:])
	d.entries, f.touched, f.changes = d.entries[:m.entries], f.touched[:m.touched], f.changes[:m.touched]
	d.label, d.size = m.label, m.size
}

// end is where the history stands after the draft as it is.
func (d *draft) end() ident.Position {
	if len(d.entries) == 0 {
		return d.s.before
	}
	return d.position(len(d.entries) - 1)
}

// position is the history position of entry i.
func (d *draft) position(i int) ident.Position {
	return ident.Position{Epoch: d.s.p.epoch, History: d.s.before.History + 1 + ident.History(i)}
}

func (d *draft) append(e entry.Entry) {
	d.entries = append(d.entries, e)
	d.size += entry.Size(d.entries[len(d.entries)-1:]) - entry.Size(nil)
}

// write appends one R entry. It tells whether there was a record.
func (d *draft) write(w *Write, together bool) (found bool, err error) {
	var image *entry.Image
	if !w.Delete {
		image = &entry.Image{Expiry: w.Expiry, Kind: w.Kind, Value: w.Value}
	}
	return d.change(w.File, w.Key, image, together)
}

// change appends one R entry that makes the record what image says, of which it sets position and time, or deletes it when image is
// nil. It tells whether there was a record.
func (d *draft) change(file string, key []byte, image *entry.Image, together bool) (found bool, err error) {
	k := recordKey{file, string(key)}
	old, err := d.s.current(k, key)
	if err != nil {
		return false, err
	}
	e := entry.Entry{Code: entry.Record, Type: entry.Put, File: file, Key: key}
	if together {
		e.Transaction = d.label
	}
	if old != nil {
		e.Type = entry.Update
		if d.images {
			e.Before = old
		} else {
			e.BeforeOmitted = true
		}
	}
	at := d.position(len(d.entries))
	if image == nil {
		e.Type = entry.Delete
		d.s.graves.dig(k, at.History)
	} else {
		image.Position, image.Time = at, d.time
		e.After = image
	}
	d.append(e)
	d.s.overlay.put(k, image, at)
	d.flight.touched = append(d.flight.touched, touch{k, at})
	d.flight.changes = append(d.flight.changes, store.Change{File: file, Key: key, Put: image})
	return old != nil && !expired(old, d.time), nil
}

// checkAll returns the first condition that does not hold.
func (d *draft) checkAll(conditions []Condition) (*ConditionError, error) {
	for i := range conditions {
		refusal, err := d.check(&conditions[i])
		if refusal != nil {
			refusal.Index = i
		}
		if refusal != nil || err != nil {
			return refusal, err
		}
	}
	return nil, nil
}

// check tells whether a condition holds, after everything sequenced before; nil: it does.
func (d *draft) check(c *Condition) (*ConditionError, error) {
	now, err := d.s.current(recordKey{c.File, string(c.Key)}, c.Key)
	if err != nil {
		return nil, err
	}
	if now != nil && expired(now, d.time) {
		d.lapsed = append(d.lapsed, recordKey{c.File, string(c.Key)})
	}
	if c.holds(now, d.time) {
		return nil, nil
	}
	refusal := &ConditionError{File: c.File, Key: c.Key}
	if now != nil && !expired(now, d.time) {
		refusal.Exists, refusal.Position = true, now.Position
	}
	return refusal, nil
}

// undo takes back what the draft put into the overlay, when it is not deposited. No later bundle was made meanwhile, but an
// earlier one in flight may have touched the same records: its image has to come back.
func (d *draft) undo() { d.s.p.flights.restore(d.s.overlay, d.flight) }

// current returns what a record is after everything sequenced so far; nil when it is not there.
func (s *sequencer) current(k recordKey, key []byte) (*entry.Image, error) {
	if image, ok := s.overlay.get(k); ok {
		return image, nil
	}
	image, err := s.p.r.data.Look(k.file, key)
	if err != nil {
		return nil, storeFailed(fmt.Errorf("read record before a change: %w", err))
	}
	return image, nil
}
