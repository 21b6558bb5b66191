package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// errEnded says that the source ended the session in good order.
var errEnded = errors.New("session ended by the source")

// errNothingCommon is errEnded by a source that has nothing of what was offered.
var errNothingCommon = fmt.Errorf("%w: it has nothing in common with this copy", errEnded)

// inbound is one session seen from the target. The goroutine that runs it reads; acknowledge, in another, writes.
type inbound struct {
	server *server
	log    hclog.Logger
	hello  wire.Hello
	gate   Admission
	copy   *journal.Journal
	link   *link
	r      *wire.Reader
	w      *wire.Writer

	outbox chan wire.Message // from the reading to the writing goroutine, unbuffered
	debt   debt
	said   sayings
	idle   bool // the copy is longer than what the source has: nothing may come
	ranges bool // the source was told that ranges are taken
}

// session serves one connection to its end.
func (s *server) session(ctx context.Context, conn net.Conn) {
	in := &inbound{server: s, log: s.o.Logger.With("address", conn.RemoteAddr()), link: newLink(conn, s.o.Timeouts.Silent)}
	defer context.AfterFunc(ctx, in.link.hangUp)()
	in.r = wire.NewReader(in.link, wire.MaxBeforeHello)
	err := in.admit(ctx)
	if err == nil {
		err = in.serve(ctx)
		in.gate.Close()
	}
	if ctx.Err() != nil {
		err = &Refusal{wire.CodeStopping, fmt.Sprintf("node %s is stopping", s.o.Self)}
	}
	in.link.hangUp()
	lastWord := false
	if !errors.Is(err, errEnded) && !connectionLost(err) {
		if in.w == nil {
			in.w = wire.NewWriter(in.link, in.hello.Epoch)
		}
		lastWord = in.w.Write(refuse(err)) == nil && in.w.Flush() == nil
	}
	in.link.close(lastWord)
	in.log.Debug("shipping session ended", "reason", err)
}

// admit reads Hello and asks the host.
func (in *inbound) admit(ctx context.Context) error {
	s := in.server
	until := time.Now().Add(s.o.Timeouts.Hello)
	in.link.bound(until)
	f, err := in.r.Next()
	if err != nil {
		return heard(err, "(unknown)", s.o.Timeouts.Hello)
	}
	hello, ok := f.Message.(wire.Hello)
	if !ok || f.Epoch != hello.Epoch {
		return &wire.FormatError{Type: f.Message.Type(), Reason: "where hello of the same epoch was due"}
	}
	in.hello = hello
	in.log = in.log.With("group", hello.Journal.Group, "journal", hello.Journal.String(), "peer", hello.From, "epoch", hello.Epoch)
	if err := s.check(hello); err != nil {
		return err
	}
	asked, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if in.gate, err = s.host.Admit(asked, hello); err != nil {
		return err
	}
	in.link.bound(time.Time{})
	in.r.SetLimit(wire.MaxFrame)
	in.copy = in.gate.Journal()
	in.w = wire.NewWriter(in.link, hello.Epoch)
	in.outbox = make(chan wire.Message)
	in.debt.window = s.o.Window
	return nil
}

// serve runs an admitted session: this goroutine reads, a second one writes. It returns the first reason to end.
func (in *inbound) serve(ctx context.Context) error {
	in.log.Debug("shipping session admitted", "session", in.hello.Session)
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, in.link.hangUp)()
	written := make(chan struct{})
	go func() {
		defer close(written)
		cancel(in.acknowledge(ctx))
	}()
	cancel(in.receive(ctx))
	<-written
	return context.Cause(ctx)
}

// receive matches the chains and takes the stream.
func (in *inbound) receive(ctx context.Context) error {
	matched, _ := in.copy.View()
	found, err := in.match(ctx, matched)
	if err != nil {
		return err
	}
	point := found.common
	start := wire.Start{Window: uint64(in.debt.window), Ranges: in.hello.Version >= wire.Newest}
	if b := found.begin; b != nil && !holdsStart(matched, *b) {
		if err := in.beginAnew(matched, *b); err != nil {
			return err
		}
		point = wire.Point{Sequence: b.After}
	} else if start.Idle, err = in.cut(matched, point, found.shorter); err != nil {
		return err
	}
	start.From = point.Sequence + 1
	in.idle, in.ranges = start.Idle, start.Ranges
	if view, _ := in.copy.View(); view.Durable < view.Last { // from an earlier session, whose window must not add to this one's
		if err := in.copy.WaitDurable(ctx, view.Last); err != nil {
			return err
		}
	}
	if err := in.say(ctx, start); err != nil {
		return err
	}
	for {
		f, err := in.next()
		if err != nil {
			return err
		}
		if m, ok := f.Message.(wire.Range); ok {
			err = in.takeRange(m)
		} else {
			err = in.take(f.Message)
		}
		if err != nil {
			return err
		}
	}
}

// next reads a frame of this session's epoch.
func (in *inbound) next() (wire.Frame, error) {
	f, err := in.r.Next()
	if err != nil {
		return f, heard(err, in.hello.From, in.server.o.Timeouts.Silent)
	}
	if f.Epoch != in.hello.Epoch {
		return f, &wire.FormatError{Type: f.Message.Type(), Reason: fmt.Sprintf("epoch %d in a session of epoch %d", f.Epoch, in.hello.Epoch)}
	}
	return f, nil
}

// say hands a message to the writing goroutine.
func (in *inbound) say(ctx context.Context, m wire.Message) error {
	select {
	case in.outbox <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take does what one frame of the stream asks for, within the gate.
func (in *inbound) take(m wire.Message) error {
	leave, err := in.gate.Enter()
	if err != nil {
		return err
	}
	err = in.append(m)
	leave()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case wire.Progress:
		in.gate.Progress(m)
	case wire.Level:
		if asOf, ok := in.said.before(m.Heard); ok {
			in.gate.Level(m.Position, asOf)
		}
	}
	return nil
}

// append changes the copy as m says. The gate is held.
func (in *inbound) append(m wire.Message) error {
	switch m := m.(type) {
	case wire.Receiver:
		if err := in.owe(len(m.Header)); err != nil {
			return err
		}
		if err := in.copy.BeginReceiver(m.Header); err != nil {
			return fmt.Errorf("begin receiver: %w", err)
		}
		view, _ := in.copy.View()
		in.debt.add(view.Last, len(m.Header))
	case wire.Bundle:
		if err := in.owe(len(m.Raw)); err != nil {
			return err
		}
		h, err := in.copy.AppendRaw(m.Raw)
		if err != nil {
			return fmt.Errorf("append bundle: %w", err)
		}
		in.debt.add(h.Last(), len(m.Raw))
	case wire.Progress:
		in.copy.Mark(m.Durable, m.Committed)
	case wire.Heartbeat, wire.Level:
	case wire.End:
		return errEnded
	default:
		return &wire.FormatError{Type: m.Type(), Reason: "came at the wrong time"}
	}
	return nil
}

// owe checks that the source may send n bytes now.
func (in *inbound) owe(n int) error {
	if in.idle {
		return &wire.FormatError{Reason: "data in an idle session"}
	}
	if !in.debt.room() {
		return &wire.FormatError{Reason: fmt.Sprintf("%d bytes beyond the credit", n)}
	}
	return nil
}

// matching is what the source says to the offers.
type matching struct {
	common  wire.Point
	shorter bool
	begin   *wire.Begin // the copy is to begin with a receiver that somebody named; there may be no common point
}

// match offers bundle ends of the copy, as view shows it, downwards until the source knows one.
func (in *inbound) match(ctx context.Context, view journal.View) (out matching, err error) {
	if view.Err != nil {
		return out, view.Err
	}
	base := max(view.First, 1) - 1
	below, last := view.Last, false
	for first := true; !last; first = false {
		var offer wire.Offer
		if offer, err = in.offer(below, base, first); err != nil {
			return out, err
		}
		last = offer.Last
		if err := in.say(ctx, offer); err != nil {
			return out, err
		}
		m, err := in.answer()
		if errors.Is(err, errNothingCommon) && last && view.Last == base {
			return out, errors.Join(err, in.clear(view))
		}
		if err != nil {
			return out, err
		}
		switch m := m.(type) {
		case wire.Begin:
			if err := in.mayBegin(m); err != nil {
				return out, err
			}
			if out.begin = &m; m.Found {
				out.common, err = m.Point, in.verify(view, m.Point)
			}
			return out, err
		case wire.Match:
			if m.Found {
				return matching{common: m.Point, shorter: m.Shorter}, in.verify(view, m.Point)
			}
		}
		if !last {
			below = offer.Points[len(offer.Points)-1].Sequence - 1
		}
	}
	return out, &wire.FormatError{Type: wire.TypeMatch, Reason: "nothing found where nothing is left to offer"}
}

// offer lists ends at or below the given one. The first offer begins with the end of the copy and then skips what lies
// beyond the end of the source, where no common point can be.
func (in *inbound) offer(below, base ident.Sequence, first bool) (wire.Offer, error) {
	o := wire.Offer{Checked: in.server.o.Protocol != 0}
	add := func(from ident.Sequence, n int) (exhausted bool, err error) {
		ends, err := in.copy.EndsBelow(from, n)
		if err != nil {
			return false, fmt.Errorf("look up bundle ends below sequence %s: %w", from, err)
		}
		for _, e := range ends {
			o.Points = append(o.Points, wire.Point{Sequence: e.Sequence, Chain: e.Chain})
		}
		return len(ends) < n, nil
	}
	exhausted, err := false, error(nil)
	if first && below > in.hello.End && below > base {
		if exhausted, err = add(below, 1); err != nil {
			return o, err
		}
		below = max(in.hello.End, base)
	}
	if !exhausted {
		if exhausted, err = add(below, wire.MaxOffer-len(o.Points)); err != nil {
			return o, err
		}
	}
	if n := len(o.Points); n > 0 && o.Points[n-1].Sequence <= base {
		o.Last = true
		return o, nil
	}
	if exhausted || len(o.Points) == 0 {
		chain, ok, err := in.copy.ChainAt(base)
		if err != nil || !ok {
			return o, fmt.Errorf("look up the chain at sequence %s: %w", base, errors.Join(err, journal.ErrNotHeld))
		}
		o.Points, o.Last = append(o.Points, wire.Point{Sequence: base, Chain: chain}), true
	}
	return o, nil
}

// answer waits for a Match or a Begin.
func (in *inbound) answer() (wire.Message, error) {
	for {
		f, err := in.next()
		if err != nil {
			return nil, err
		}
		switch m := f.Message.(type) {
		case wire.Match, wire.Begin:
			return m, nil
		case wire.Heartbeat:
		case wire.End:
			if m.Code == wire.CodePriming {
				return nil, errNothingCommon
			}
			return nil, errEnded
		default:
			return nil, &wire.FormatError{Type: m.Type(), Reason: "came at the wrong time"}
		}
	}
}

// clear empties a copy that holds a receiver's header and nothing else, after the source said that it has that receiver no more: the
// next session begins where the source's journal does now.
func (in *inbound) clear(matched journal.View) error {
	leave, err := in.gate.Enter()
	if err != nil {
		return err
	}
	defer leave()
	if view, _ := in.copy.View(); view.Last != matched.Last || view.First != matched.First {
		return nil
	}
	if err := in.copy.Clear(); err != nil && !errors.Is(err, journal.ErrAuthored) {
		return fmt.Errorf("begin the copy elsewhere: %w", err)
	}
	return nil
}

// verify checks that the point is one of this copy, or where an empty copy may begin.
func (in *inbound) verify(view journal.View, p wire.Point) error {
	if view.Last == 0 && p.Sequence > 0 {
		return nil // nothing here that could disagree; BeginReceiver takes the chain from the receiver's header
	}
	chain, ok, err := in.copy.ChainAt(p.Sequence)
	if err != nil {
		return fmt.Errorf("look up sequence %s: %w", p.Sequence, err)
	}
	if !ok || chain != p.Chain {
		return &wire.FormatError{Type: wire.TypeMatch, Reason: "not an offered point"}
	}
	return nil
}

// mayBegin says why this source cannot have the copy begin elsewhere, or nil: what may be removed for that rests on what the author has,
// and on that nobody waits for this node.
func (in *inbound) mayBegin(b wire.Begin) error {
	why := ""
	switch h := &in.hello; {
	case !h.Free || h.From != h.Journal.Node:
		why = "from a source that did not write the journal, or did not say that nobody waits for this node"
	case !b.Found && b.Point != (wire.Point{}):
		why = "a common end that was not found"
	case b.After+1 < max(b.First, 1):
		why = "with what the source does not hold"
	default:
		return nil
	}
	return &wire.FormatError{Type: wire.TypeBegin, Reason: why}
}

// holdsStart tells whether the copy has the start of the receiver with which it is to begin, and connects it with the source's journal.
func holdsStart(view journal.View, b wire.Begin) bool {
	return view.First > 0 && view.First <= b.After+1 && b.Found && b.After <= b.Sequence
}

// beginAnew empties the copy, if that may be, so that it begins elsewhere.
func (in *inbound) beginAnew(matched journal.View, b wire.Begin) error {
	in.server.removal.Lock()
	defer in.server.removal.Unlock()
	leave, err := in.gate.Enter()
	if err != nil {
		return err
	}
	defer leave()
	if view, _ := in.copy.View(); view.Last != matched.Last || view.Chain != matched.Chain {
		return &Refusal{wire.CodeGap, "the copy moved while it was matched"}
	}
	if matched.First == 0 {
		return nil // there is nothing
	}
	if err := in.gate.Clearable(b.First, b.Sequence, in.hello); err != nil {
		return err
	}
	in.log.Info("removing a copy that is to begin elsewhere", "seq", matched.First, "last", matched.Last, "after", b.After)
	if err := in.copy.Clear(); err != nil {
		return fmt.Errorf("begin the copy after sequence %s: %w", b.After, err)
	}
	return nil
}

// cut removes what the copy has beyond the common point, if anything and if it may. idle tells that it kept it, because
// the source is merely shorter.
func (in *inbound) cut(matched journal.View, common wire.Point, shorter bool) (idle bool, err error) {
	switch {
	case matched.Last <= common.Sequence:
		return false, nil
	case shorter:
		return true, nil
	}
	in.server.removal.Lock()
	defer in.server.removal.Unlock()
	leave, err := in.gate.Enter()
	if err != nil {
		return false, err
	}
	defer leave()
	if view, _ := in.copy.View(); view.Last != matched.Last || view.Chain != matched.Chain {
		// An older session, of another life perhaps, was still appending: what it brought may be just what the source has.
		return false, &Refusal{wire.CodeGap, "the copy moved while it was matched"}
	}
	if err := in.gate.Removable(common.Sequence, in.hello); err != nil {
		return false, err
	}
	in.log.Info("removing entries that the source does not have", "seq", common.Sequence+1, "last", matched.Last)
	if err := in.copy.Rewind(common.Sequence); err != nil {
		return false, fmt.Errorf("remove entries after sequence %s: %w", common.Sequence, err)
	}
	return false, nil
}
