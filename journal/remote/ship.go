package remote

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

const (
	shipPiece     = 1 << 20              // bytes sent before Progress and the end of the session are looked at again
	confirmPause  = 5 * time.Millisecond // longest that a confirmed end waits for a committed one
	maxFromTarget = 16 << 10             // longest frame a source accepts; the longest a target sends is an Offer
)

// shipment is one session seen from the source. Two goroutines use it: the one that runs the session writes, another
// reads.
type shipment struct {
	s    *source
	link *link
	w    *wire.Writer

	// from the reading goroutine
	offers   chan wire.Offer // holds one: the target waits for a Match before it offers more
	starts   chan wire.Start // holds one
	returned atomic.Int64    // bytes that came back as Credit
	heard    atomic.Uint64   // frames
	hearings hearings        // when they were read, for a relay
	wake     chan struct{}   // holds one: credit came

	// of the running goroutine
	helloEnd ident.Sequence // as said in Hello
	offered  ident.Sequence // lowest of the ends offered so far; 0: none was
	common   wire.Point     // where the chains part
	begin    *wire.Begin    // with which receiver the copy is to begin; nil: nobody named one
	started  bool           // the target was ready
	window   int64
	paid     int64 // bytes sent against the window
	sent     ident.Sequence
	modern   bool   // the target speaks version 2
	ranges   bool   // what is far behind is sent in ranges
	ranged   int64  // bytes sent in ranges
	torn     bool   // a range was announced and not sent whole: nothing else may be said
	room     []byte // for files that the kernel cannot send; nil until needed
	trail    trail
	progress wire.Progress // as sent last
	lazy     *time.Timer   // runs out when a confirmed end must not wait longer for company
	waiting  bool          // lazy runs
	wrote    bool          // since the last heartbeat
}

// session dials the target and ships until something ends it. steady tells that the session did its work before it
// ended, so that the next one may follow soon.
func (s *source) session(ctx context.Context) (steady bool, err error) {
	addr := s.o.Addr()
	if addr == "" {
		return false, fmt.Errorf("ship address of node %s is not known yet", s.o.Target)
	}
	dialled, cancelDial := context.WithTimeout(ctx, s.o.Timeout)
	conn, err := s.o.Network.Dial(dialled, addr)
	cancelDial()
	if err != nil {
		return false, fmt.Errorf("connect to node %s at %s: %w", s.o.Target, addr, err)
	}
	begun := time.Now()
	p := &shipment{
		s: s, link: newLink(conn, s.o.Timeout),
		offers: make(chan wire.Offer, 1), starts: make(chan wire.Start, 1), wake: make(chan struct{}, 1),
	}
	p.w = wire.NewWriter(p.link, s.o.Epoch)
	sctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(sctx, p.link.hangUp)()
	read := make(chan error, 1)
	go func() {
		err := p.read()
		cancel(err)
		read <- err
	}()
	err = p.run(sctx)
	refused := p.end(ctx, err, read)
	cancel(err)
	p.link.close(false)
	if refused == nil {
		refused = <-read
	}
	var refusal *Refusal
	if errors.As(refused, &refusal) && ctx.Err() == nil {
		err = refusal // what the target says explains more than what its hanging up did to us
	}
	// What is damaged is not found by a source that sends files. Bundle by bundle it finds it, and says where.
	s.careful = (s.careful || p.ranged > 0) && refuse(err).Code == wire.CodeCorrupt
	return p.started && (refusal == nil || time.Since(begun) > mostPause), err
}

// end says goodbye, and gives the reason of a target that hung up the time to arrive. It returns what the reading
// goroutine found, nil when that one has not finished.
func (p *shipment) end(ctx context.Context, err error, read <-chan error) error {
	wait := time.Duration(0)
	if connectionLost(err) {
		wait = farewell
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	code := wire.CodeStopping
	if ctx.Err() == nil {
		select {
		case found := <-read:
			return found // the target ended it, or the connection broke
		case <-timer.C:
			code = refuse(err).Code
		}
	}
	p.link.hangUp()
	if p.torn {
		return nil // it would be taken for a part of the range
	}
	if p.w.Write(wire.End{Code: code}) == nil {
		_ = p.w.Flush() // best effort: the target would find out by the closed connection
	}
	return nil
}

// run is the session in the order of its phases.
func (p *shipment) run(ctx context.Context) error {
	o := &p.s.o
	o.OnSession()
	view, _ := o.Journal.View()
	hello := wire.Hello{
		Version: o.Protocol.Version(wire.Newest), Cluster: o.Cluster, Journal: o.Journal.ID(), From: o.Self, To: o.Target,
		Epoch: o.Epoch, Session: o.Sessions.Add(1), Life: o.Life, End: view.Last, Free: o.Free(),
	}
	p.helloEnd = hello.End
	if after, ok := p.named(hello.Free); ok && after+1 >= view.First { // else its receiver was deleted since it was named
		p.begin = &wire.Begin{After: after, First: view.First}
	}
	if err := p.send(hello); err != nil {
		return err
	}
	p.s.enter(PhaseMatching)
	start, err := p.match(ctx)
	if err != nil {
		return err
	}
	return p.stream(ctx, start)
}

// named returns after which sequence the target's copy is to begin, if somebody named a receiver and nobody waits for the target.
func (p *shipment) named(free bool) (after ident.Sequence, ok bool) {
	if !free {
		return 0, false
	}
	return p.s.o.Begin()
}

// send writes one message and flushes.
func (p *shipment) send(m wire.Message) error {
	if err := p.write(m); err != nil {
		return err
	}
	return p.flush()
}

func (p *shipment) write(m wire.Message) error {
	p.wrote = true
	if err := p.w.Write(m); err != nil {
		return fmt.Errorf("send %s: %w", m.Type(), heard(err, p.s.o.Target, p.s.o.Timeout))
	}
	return nil
}

func (p *shipment) flush() error {
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("send: %w", heard(err, p.s.o.Target, p.s.o.Timeout))
	}
	return nil
}

// beat keeps the target from giving this side up, and tells it how old its copy is. It knows that only once something of this
// session's epoch is committed: before, what others had committed may not yet be so here.
func (p *shipment) beat(view journal.View, heard uint64) error {
	if p.s.o.Relay != nil {
		return p.relay()
	}
	level := p.progress.Position.Epoch == p.s.o.Epoch && min(view.Committed, view.Last) <= p.progress.Committed
	if p.s.o.Author && level && p.s.o.Leads() { // asked after the view was taken
		p.wrote = false
		return p.write(wire.Level{Position: p.progress.Position, Heard: heard})
	}
	return p.live()
}

// live is beat when there is nothing to tell.
func (p *shipment) live() error {
	if p.wrote {
		p.wrote = false
		return nil
	}
	err := p.send(wire.Heartbeat{})
	p.wrote = false
	return err
}

// stream sends what the target lacks and goes on with what is appended.
func (p *shipment) stream(ctx context.Context, start wire.Start) error {
	o := &p.s.o
	p.window = int64(min(start.Window, uint64(o.Window)))
	p.modern, p.ranges = start.Ranges, start.Ranges && !p.s.careful
	p.sent = p.common.Sequence
	p.trail = trail{journal: o.Journal}
	p.s.state.From, p.s.state.Sent = start.From, p.sent
	p.s.state.Code, p.s.state.Reason = "", ""
	var reader *journal.Reader
	if !start.Idle {
		var err error
		if reader, err = o.Journal.Reader(start.From); err != nil {
			return fmt.Errorf("read from sequence %s: %w", start.From, err)
		}
		defer reader.Close()
		if o.Relay != nil {
			reader.OnlyDurable()
		}
		p.s.enter(PhaseCatchup)
	}
	if err := p.reportCommon(); err != nil {
		return err
	}
	tick := time.NewTicker(o.Heartbeat)
	defer tick.Stop()
	p.lazy = time.NewTimer(0)
	defer p.lazy.Stop()
	for live, due, beat := false, false, false; ; {
		heard := p.heard.Load() // before the view: what the view shows is not older
		view, changed := o.Journal.View()
		more, dry, err := false, true, error(nil)
		switch {
		case view.Last < p.sent: // the reader would say so too, but it is not asked while there is no credit
			err = errRematch("entries already sent were removed here")
		case start.Idle:
			err = p.stillShorter(ctx, view)
		default:
			more, dry, err = p.ship(reader)
			if err == nil {
				err = p.unread(reader.Check()) // not asked above while there is no credit; and the marks in view may be of what came instead
			}
		}
		if err == nil {
			err = p.report(view, due)
			due = false
		}
		if err == nil && beat {
			err = p.beat(view, heard)
			beat = false
		}
		if err != nil {
			return err
		}
		if more && ctx.Err() == nil {
			select {
			case <-tick.C:
				p.s.tell()
				beat = true
			default:
			}
			continue
		}
		if err := p.flush(); err != nil {
			return err
		}
		if dry && !live {
			live = true
			p.s.enter(PhaseLive)
		}
		select {
		case <-changed:
		case <-p.wake:
		case <-p.lazy.C:
			due = true
		case <-tick.C:
			p.s.tell()
			beat = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errRematch ends a session whose journal changed under it.
func errRematch(why string) error { return &Refusal{wire.CodeRematch, why} }

// stillShorter ends an idle session when this journal is no longer what was matched.
func (p *shipment) stillShorter(ctx context.Context, view journal.View) error {
	if view.Last == p.common.Sequence && view.Chain == p.common.Chain {
		return nil
	}
	pause := backoff{least: p.s.o.Heartbeat, most: p.s.o.Heartbeat} // a copy that is being filled changes all the time
	pause.wait(ctx)
	return errRematch("the shorter copy served here has changed")
}

// ship sends up to shipPiece bytes, or a range. more: there may be more to send now. dry: everything appended was sent.
func (p *shipment) ship(reader *journal.Reader) (more, dry bool, err error) {
	ranges := p.ranges
	for n := 0; n < shipPiece; {
		room := p.window - (p.paid - p.returned.Load())
		if room <= 0 {
			return false, false, nil
		}
		if ranges && reader.Cold() {
			if room < min(shipPiece, p.window/2) {
				return false, false, nil // more comes back soon: a short range is not worth its while
			}
			sent, err := p.shipRange(reader, room)
			if err != nil {
				return false, false, err
			}
			if sent > 0 {
				n += sent
				continue
			}
			ranges = false // not worth asking again before the next receiver
		}
		item, ok, err := reader.TryNext()
		switch {
		case err != nil:
			return false, false, p.unread(err)
		case !ok:
			return false, true, nil
		}
		size := len(item.Raw)
		if item.ReceiverHeader != nil {
			size = len(item.ReceiverHeader)
			ranges = p.ranges
			err = p.write(wire.Receiver{Header: item.ReceiverHeader})
		} else {
			if item.Header.First != p.sent+1 {
				return false, false, &journal.GapError{Want: p.sent + 1, Have: item.Header.First}
			}
			if item.Header.Flags&entry.FlagCompressed != 0 && !p.modern {
				return false, false, &Refusal{wire.CodeVersion, fmt.Sprintf(
					"the bundle at sequence %s is compressed, which node %s does not know: run the same release on both nodes", item.Header.First, p.s.o.Target)}
			}
			p.sent = item.Header.Last()
			p.s.state.Sent = p.sent
			p.trail.push(p.sent, item.Header.After())
			err = p.write(wire.Bundle{Raw: item.Raw})
		}
		if err != nil {
			return false, false, err
		}
		p.paid += int64(size)
		n += size
	}
	return true, false, nil
}

// unread rewords an error of the reader: nil stays nil.
func (p *shipment) unread(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, journal.ErrRewound):
		return errRematch("entries already sent were removed here")
	case errors.Is(err, journal.ErrNotHeld):
		return errRematch("receivers that were still to be sent were deleted here")
	}
	return fmt.Errorf("read after sequence %s: %w", p.sent, err)
}

// report sends Progress when there is any. It speaks only of what was sent: a mark beyond it would confirm bytes that the
// target has from elsewhere. A new confirmed end alone waits a little for the committed end, which mostly follows at once.
func (p *shipment) report(view journal.View, due bool) error {
	next := wire.Progress{Durable: max(p.progress.Durable, min(view.Confirmed, p.sent))}
	next.Committed = max(p.progress.Committed, min(view.Committed, next.Durable))
	next.Position = p.progress.Position
	if next.Committed != p.progress.Committed {
		end, after, ok := p.trail.at(next.Committed)
		if ok && !p.vouches(after) {
			ok = false
			if !due {
				p.lazy.Reset(confirmPause) // it hears of a committed end a moment after its journal does
			}
		}
		if ok {
			next.Committed, next.Position = max(p.progress.Committed, end), after
		} else {
			next.Committed = p.progress.Committed // not held any more: the next bundle will tell
		}
	}
	if next == p.progress {
		return nil
	}
	if next.Committed == p.progress.Committed && !due {
		if !p.waiting {
			p.waiting = true
			p.lazy.Reset(confirmPause)
		}
		return nil
	}
	p.waiting = false
	p.progress = next
	return p.write(next)
}

// reportCommon tells what is confirmed of what both sides have, before anything else is sent: a target that has no room for what
// follows ends the session there, and without this it would never learn what it, and others, may delete.
func (p *shipment) reportCommon() error {
	j := p.s.o.Journal
	view, _ := j.View()
	chain, ok, err := j.ChainAt(p.common.Sequence)
	if err != nil || !ok || chain != p.common.Chain || view.Last < p.common.Sequence {
		return errRematch("what was matched was removed here")
	}
	return p.report(view, true)
}

// read takes what the target says until the connection ends. It returns a *Refusal when the target gave a reason.
func (p *shipment) read() error {
	o := &p.s.o
	r := wire.NewReader(p.link, maxFromTarget)
	started := false
	for {
		f, err := r.Next()
		if err != nil {
			return heard(err, o.Target, o.Timeout)
		}
		n := p.heard.Add(1)
		if o.Relay != nil {
			p.hearings.note(n, time.Now())
		}
		if no, ok := f.Message.(wire.Refuse); ok {
			return &Refusal{Code: no.Code, Text: no.Text}
		}
		if f.Epoch != o.Epoch {
			return &wire.FormatError{Type: f.Message.Type(), Reason: fmt.Sprintf("epoch %d in a session of epoch %d", f.Epoch, o.Epoch)}
		}
		ok := true
		switch m := f.Message.(type) {
		case wire.Heartbeat:
		case wire.Offer:
			ok = !started && offerTo(p.offers, m)
		case wire.Start:
			ok = !started && offerTo(p.starts, m)
			started = true
		case wire.Credit:
			ok = started && m.Bytes <= entry.MaxBundle+uint64(o.Window) && int64(m.Bytes) > 0
			p.returned.Add(int64(m.Bytes))
			offerTo(p.wake, struct{}{})
		case wire.Ack:
			if ok = started; ok {
				o.OnAck(m)
			}
		default:
			ok = false
		}
		if !ok {
			return &wire.FormatError{Type: f.Message.Type(), Reason: "came at the wrong time"}
		}
	}
}

// offerTo puts v into c unless c is full.
func offerTo[T any](c chan T, v T) bool {
	select {
	case c <- v:
		return true
	default:
		return false
	}
}
