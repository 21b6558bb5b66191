package journal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Draft is a bundle to be deposited.
//
// Entry.Transaction is a label in a draft: neighbouring entries with the same nonzero label form a transaction, zero means
// alone. So entries decoded from another journal can be passed on as they are.
type Draft struct {
	Entries   []entry.Entry // not kept, not modified
	Session   ident.Epoch
	Before    ident.Position // the history before its first fact; ignored when there is none. Of an echo: before the first fact that it repeats
	FactEpoch ident.Epoch    // of all its facts
	Origin    ident.Sequence // re-journaled: first sequence in the journal it came from, else 0
	Time      int64          // unix nanoseconds; 0: now
	Flags     entry.Flags    // FlagCompressed: compress it if that makes it shorter
	Committed ident.Sequence // committed end of this journal
}

// onlyIPL tells whether the draft may be deposited in every state.
func (d *Draft) onlyIPL() bool {
	for i := range d.Entries {
		if d.Entries[i].Code != entry.Journal || d.Entries[i].Type != entry.IPL {
			return false
		}
	}
	return true
}

// inOrder tells whether the draft is one that leaves the journal in order: it may use the reserve.
func (d *Draft) inOrder() bool {
	for i := range d.Entries {
		if c, t := d.Entries[i].Code, d.Entries[i].Type; c != entry.Journal && (c != entry.User || t != entry.Switch) {
			return false
		}
	}
	return true
}

// Deposit numbers and seals one bundle, publishes it to readers at once and queues it for the disk writer: it is durable when
// View.Durable has reached its last sequence. Deposit changes receivers by itself when the attached one is full; the J NR and
// J PR of the change take numbers, too. It waits while too much is queued for the disk. ErrFull means that there is no space for
// the bundle; nothing was deposited then, and the same draft may be deposited later.
//
// In state STANDBY and INACTIVE only J IN is taken, and marked local; everything else gets ErrNotActive. A draft that exceeds
// a limit gets entry.ErrTooLarge, one that makes no sense entry.ErrInvalid; nothing was deposited then.
func (j *Journal) Deposit(d Draft) (entry.Header, error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	state, err := j.author()
	if err != nil {
		return entry.Header{}, err
	}
	if state != Active {
		if !d.onlyIPL() {
			return entry.Header{}, ErrNotActive
		}
		d.Flags |= entry.FlagLocal
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		if e.Code == entry.Journal && (e.Type == entry.Previous || e.Type == entry.Next) {
			return entry.Header{}, fmt.Errorf("%w: J %s is deposited by a change of receiver only", entry.ErrInvalid, e.Type)
		}
	}
	if len(d.Entries) == 0 {
		return entry.Header{}, fmt.Errorf("%w: a bundle needs an entry", entry.ErrInvalid)
	}
	size := entry.Size(d.Entries)
	if size > entry.MaxBundle {
		return entry.Header{}, fmt.Errorf("bundle of %d bytes: %w (%d)", size, entry.ErrTooLarge, entry.MaxBundle)
	}
	if err := j.room(); err != nil {
		return entry.Header{}, err
	}
	if err := j.makeRoom(demand{int64(size), d.inOrder()}, d.Session, d.Flags&entry.FlagLocal); err != nil {
		return entry.Header{}, err
	}
	return j.seal(d, size)
}

// author makes sure that the state file says that this journal is deposited here, and returns its state.
func (j *Journal) author() (State, error) {
	j.mu.RLock()
	err, known := j.usableLocked(), j.record
	j.mu.RUnlock()
	if err == nil && !known.authored {
		err = j.note(func(r *record) { r.authored = true })
	}
	return known.state, err
}

// room waits until the queue for the disk is short enough.
func (j *Journal) room() error {
	if full, err := j.crowded(); err != nil || !full {
		return err
	}
	for {
		_, changed := j.watch()
		if full, err := j.crowded(); err != nil || !full {
			return err
		}
		select {
		case <-changed:
		case <-j.done:
		}
	}
}

// crowded tells whether too much waits for the disk already.
func (j *Journal) crowded() (bool, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.queue.bytes > maxQueue, j.usableLocked()
}

// attached returns the newest receiver, or nil.
func (j *Journal) attached() *receiver {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.receivers) == 0 {
		return nil
	}
	return j.receivers[len(j.receivers)-1]
}

// makeRoom makes sure that the attached receiver has space for the demand. It attaches a new one when the present one has
// reached its size or age, or cannot have more space while there is a spare. A receiver that holds nothing but its J PR takes
// everything.
func (j *Journal) makeRoom(d demand, session ident.Epoch, flags entry.Flags) error {
	r := j.attached()
	if r == nil || r.closed || r.empty() {
		return j.change(session, flags, d)
	}
	j.mu.RLock()
	used := r.last > r.header.First
	full := used && r.end+d.size+nextBytes > j.limits.ReceiverBytes
	due := j.limits.MaxAge > 0 && j.dueLocked(j.clock.Now())
	fits := j.needLocked(r.end, d, len(j.stock.ready)) <= r.allotted
	j.mu.RUnlock()
	if fits && !full && !due {
		return nil
	}
	if full || due {
		if err := j.change(session, flags, d); full || !errors.Is(err, ErrFull) {
			return err
		}
	}
	err := j.fit(r, d)
	if used && errors.Is(err, ErrFull) && j.stock.has() {
		return j.change(session, flags, d)
	}
	return err
}

// ChangeReceiver detaches the attached receiver with J NR and attaches a new one that begins with J PR, in any state. It does
// not wait for the disk.
func (j *Journal) ChangeReceiver(session ident.Epoch) (ReceiverInfo, error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	state, err := j.author()
	if err != nil {
		return ReceiverInfo{}, err
	}
	if err := j.room(); err != nil {
		return ReceiverInfo{}, err
	}
	var flags entry.Flags
	if state != Active {
		flags = entry.FlagLocal
	}
	if err := j.change(session, flags, demand{}); err != nil {
		return ReceiverInfo{}, err
	}
	infos := j.Receivers()
	return infos[len(infos)-1], nil
}

// change deposits J NR, attaches the next receiver and deposits J PR there, as far as a crash has not left the one without the
// other. Before that it makes sure that all this and the demand behind it have their space.
func (j *Journal) change(session ident.Epoch, flags entry.Flags, d demand) error {
	old := j.attached()
	if old != nil && old.empty() {
		if err := j.fit(old, demand{d.size + nextBytes, d.control}); err != nil {
			return err
		}
	} else if err := j.next(old, session, flags, d); err != nil {
		return err
	}
	previous := ""
	if n := j.attached().header.Number; n > 1 {
		previous = (n - 1).String()
	}
	return j.event(entry.Previous, previous, session, flags)
}

// next deposits J NR in the old receiver, which may be nil, and attaches the one after it.
func (j *Journal) next(old *receiver, session ident.Epoch, flags entry.Flags, d demand) error {
	if old != nil && !old.closed {
		if err := j.fit(old, demand{control: true}); err != nil {
			return err
		}
	}
	b, err := j.provide(d)
	if err != nil {
		return err
	}
	err = func() error {
		number := ident.ReceiverNumber(1)
		if old != nil {
			number = old.header.Number + 1
			if !old.closed {
				if err := j.event(entry.Next, number.String(), session, flags); err != nil {
					return err
				}
			}
		}
		h := ReceiverHeader{Cluster: j.disk.cluster, ID: j.disk.id, Number: number, First: 1, Created: j.clock.Now()}
		if old != nil {
			h.First, h.Start, h.Chain, h.Run = old.last+1, old.after, old.chain, old.run
		}
		raw, err := h.encode()
		if err != nil {
			return err
		}
		return j.attach(h, raw, b)
	}()
	if err != nil {
		j.putBack(b)
	}
	return err
}

// event deposits a J entry that names a receiver.
func (j *Journal) event(t entry.Type, name string, session ident.Epoch, flags entry.Flags) error {
	e := []entry.Entry{{Code: entry.Journal, Type: t, Data: []byte(name)}}
	_, err := j.seal(Draft{Entries: e, Session: session, Flags: flags}, entry.Size(e))
	return err
}

// attach makes an empty receiver the newest one. A reader sees it at once; the writer makes its file before it writes to it.
func (j *Journal) attach(h ReceiverHeader, raw []byte, b blank) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return ErrClosed
	}
	if j.view.Err != nil {
		return j.view.Err
	}
	r := newReceiver(h, raw)
	r.allotted, j.stock.granted = b.allotted, 0
	if len(j.receivers) == 0 { // nothing is missing of what is not held
		j.view.Durable, j.view.DurableAfter = r.last, r.after
	}
	j.receivers = append(j.receivers[:len(j.receivers):len(j.receivers)], r)
	j.tailLocked()
	j.queue.push(operation{do: func(w *writer) error { return w.begin(r, b) }})
	j.publishLocked()
	j.queue.signal()
	return nil
}

// seal makes the bundle and appends it to the attached receiver.
func (j *Journal) seal(d Draft, size int) (entry.Header, error) {
	j.mu.RLock()
	v := &j.view
	h := entry.Header{
		Flags: d.Flags, Session: d.Session, First: v.Last + 1, Before: d.Before, Fact: ident.Position{Epoch: d.FactEpoch},
		Origin: d.Origin, Time: d.Time, Chain: v.Chain, Durable: v.Durable, Committed: max(d.Committed, min(v.Committed, v.Last)),
	}
	after := v.After
	j.mu.RUnlock()
	if h.Time == 0 {
		h.Time = j.clock.Now().UnixNano()
	}
	switch {
	case d.Flags&entry.FlagEcho != 0:
		h.Fact.History, h.Before = d.Before.History+1, after
	case !anyFact(d.Entries):
		h.Before = after
	}
	raw, h, err := entry.Seal(make([]byte, 0, size), h, d.Entries)
	if err != nil {
		return entry.Header{}, err
	}
	if h.Flags&entry.FlagCompressed != 0 {
		raw = bytes.Clone(raw) // without the room that the entries took before
	}
	return h, j.append(entry.Bundle{Header: h, Raw: raw})
}

func anyFact(entries []entry.Entry) bool {
	for i := range entries {
		if entries[i].Fact() {
			return true
		}
	}
	return false
}

// append makes b the newest bundle. The caller holds appending and has made sure that b continues the journal.
func (j *Journal) append(b entry.Bundle) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.closing {
		return ErrClosed
	}
	if j.view.Err != nil {
		return j.view.Err
	}
	j.appendLocked(j.receivers[len(j.receivers)-1], b)
	j.raiseMarksLocked(b.Durable, b.Committed)
	j.publishLocked()
	j.queue.signal()
	return nil
}

// sameButCreated tells whether a and b describe the same place.
func sameButCreated(a, b []byte) bool {
	const created, run = 48, 56
	return bytes.Equal(a[:created], b[:created]) && bytes.Equal(a[run:headerCRCAt], b[run:headerCRCAt])
}
