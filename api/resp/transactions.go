package resp

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// transactionCommands are MULTI and what belongs to it, and WAIT.
func transactionCommands() []command {
	const family = "transactions"
	return []command{
		{name: "multi", arity: 1, flags: fast, family: family, since: "1.2.0", summary: "Starts a transaction.", own: ownMulti, light: true},
		{name: "exec", arity: 1, family: family, since: "1.2.0", summary: "Executes all commands in a transaction.", own: ownExec, light: true},
		{name: "discard", arity: 1, flags: fast, family: family, since: "2.0.0", summary: "Discards a transaction.", own: ownDiscard, light: true},
		{name: "watch", arity: -2, flags: reads | fast, first: 1, last: -1, step: 1, family: family, since: "2.2.0", summary: "Monitors changes to keys to determine the execution of a transaction.", own: ownWatch},
		{name: "unwatch", arity: 1, flags: fast, family: family, since: "2.2.0", summary: "Forgets about watched keys of a transaction.", own: ownUnwatch, light: true},
		{name: "wait", arity: 3, flags: noMulti, family: "generic", since: "3.0.0", summary: "Returns how many nodes hold all preceding writes of the connection, and waits for as many as asked for.", own: ownWait},
	}
}

// watch is a key and the position of its last change when it was watched; zero: there was no record.
type watch struct {
	key Key
	arg []byte
	at  ident.Position
}

// transaction is what MULTI collects.
type transaction struct {
	queued []queued
	size   int64 // to be given back when it ends
	dirty  bool  // a command was refused: EXEC does nothing
}

type queued struct {
	command *command
	args    [][]byte
}

// queue takes a command, and tells whether what it took in memory stays with the transaction.
func (m *transaction) queue(c *command, q request, l *Limits) (r reply, kept bool) {
	switch {
	case m.dirty: // what is queued is of no use any more
		return simple("QUEUED"), false
	case len(m.queued) == l.Queue || m.size+q.size > l.Command:
		m.dirty = true
		return errQueueFull, false
	case c.plan == nil && !c.light:
		m.dirty = true
		return errInMulti, false
	}
	m.size += q.size
	m.queued = append(m.queued, queued{c, q.args})
	return simple("QUEUED"), true
}

func ownMulti(s *session, _ [][]byte) reply {
	if s.multi != nil {
		return errNestedMulti
	}
	s.multi = &transaction{}
	return ok
}

func ownDiscard(s *session, _ [][]byte) reply {
	if s.multi == nil {
		return errNoDiscard
	}
	s.endMulti()
	return ok
}

// endMulti forgets transaction and watched keys. What the transaction took in memory goes to the next reply.
func (s *session) endMulti() {
	if s.multi != nil {
		s.give(s.multi.size)
	}
	s.multi, s.watched = nil, nil
}

func ownWatch(s *session, args [][]byte) reply {
	if s.multi != nil {
		return errWatchMulti
	}
	if len(s.watched)+len(args)-1 > s.srv.o.Limits.Watches {
		return failure("ERR too many watched keys: at most " + strconv.Itoa(s.srv.o.Limits.Watches))
	}
	keys := s.srv.commands["watch"].keysOf(args)
	at, bad := s.positions(keys, args[1:])
	if bad != nil {
		return bad
	}
	for i, k := range keys {
		s.watched = append(s.watched, watch{key: k, arg: args[1+i], at: at[i]})
	}
	return ok
}

func ownUnwatch(s *session, _ [][]byte) reply {
	s.watched = nil
	return ok
}

// positionsJob reads the positions of records at the primary.
func (s *session) positionsJob(keys []Key, args [][]byte) (*job, reply) {
	group, bad := s.groupOf(keys)
	if bad != nil {
		return nil, bad
	}
	return &job{group: group, keys: keys, reads: true, fresh: true, wire: [][][]byte{append([][]byte{[]byte("understudy"), []byte("positions")}, args...)}, step: func(t *tx) reply {
		all := make(array, len(keys))
		for i, k := range keys {
			var at ident.Position
			if r := t.get(k); r != nil {
				at = r.Position
			}
			all[i] = text(at.String())
		}
		return all
	}}, nil
}

// positions returns the positions of the last changes of keys.
func (s *session) positions(keys []Key, args [][]byte) ([]ident.Position, reply) {
	j, bad := s.positionsJob(keys, args)
	if bad != nil {
		return nil, bad
	}
	r := s.run(j)
	all, is := r.(array)
	if !is || len(all) != len(keys) {
		if f, is := r.(failure); is {
			return nil, f
		}
		return nil, failure("ERR another node answered in an unknown form")
	}
	at := make([]ident.Position, len(all))
	for i, r := range all {
		b, _ := r.(bulk)
		p, valid := positionOf(string(b))
		if !valid {
			return nil, failure("ERR another node answered in an unknown form")
		}
		at[i] = p
	}
	return at, nil
}

// positionOf parses epoch.history.
func positionOf(s string) (ident.Position, bool) {
	e, h, cut := strings.Cut(s, ".")
	epoch, err1 := strconv.ParseUint(e, 10, 64)
	history, err2 := strconv.ParseUint(h, 10, 64)
	return ident.Position{Epoch: ident.Epoch(epoch), History: ident.History(history)}, cut && err1 == nil && err2 == nil
}

// ownExec makes one job of the transaction: it is done as a whole, or not at all.
func ownExec(s *session, args [][]byte) reply {
	m, watched := s.multi, s.watched
	switch {
	case m == nil:
		return errNoMulti
	case m.dirty:
		s.endMulti()
		return errExecAbort
	}
	s.multi, s.watched = nil, nil // its memory is given back with the slot
	done := func(r reply) reply {
		s.push(r, m.size)
		return nil
	}
	j := &job{reads: true}
	for _, w := range watched {
		j.keys = append(j.keys, w.key)
		j.wire = append(j.wire, [][]byte{[]byte("understudy"), []byte("watched"), w.arg, []byte(w.at.String())})
	}
	j.wire = append(j.wire, [][]byte{[]byte("multi")})
	steps := make([]step, len(m.queued))
	for i, q := range m.queued {
		j.wire = append(j.wire, q.args)
		if q.command.plan == nil {
			r := q.command.own(s, q.args)
			steps[i] = func(*tx) reply { return r }
			continue
		}
		keys := q.command.keysOf(q.args)
		p, bad := q.command.plan(&call{name: q.command.name, args: q.args, keys: keys, limits: &s.srv.o.Limits})
		if bad != nil {
			steps[i] = func(*tx) reply { return bad }
			continue
		}
		steps[i] = p
		j.keys = append(j.keys, keys...)
		if q.command.flags&writes != 0 {
			j.reads = false
		}
	}
	j.wire = append(j.wire, args)
	j.size = m.size
	group, bad := s.groupOf(j.keys)
	if bad != nil {
		return done(bad)
	}
	j.group = group
	j.step = func(t *tx) reply {
		for _, w := range watched {
			var at ident.Position
			if r := t.get(w.key); r != nil {
				at = r.Position
			}
			if at != w.at {
				return nothing{}
			}
		}
		all := make(array, len(steps))
		var size int64
		for i, p := range steps {
			all[i] = p(t)
			if size += all[i].weight(); size > t.limits.Reply && t.err == nil {
				t.err = errReplyTooLarge // before the rest is read, too
			}
			if t.err != nil {
				return all[i]
			}
		}
		return all
	}
	if len(j.keys) == 0 { // nothing to be asked
		all := make(array, len(steps))
		for i, p := range steps {
			all[i] = p(nil)
		}
		return done(all)
	}
	s.submit(j, m.size)
	return nil
}

// ownWait counts the nodes that hold the connection's last writes.
func ownWait(s *session, args [][]byte) reply {
	want, valid1 := integerOf(args[1])
	ms, valid2 := integerOf(args[2])
	if !valid1 || !valid2 {
		return errNotInteger
	}
	if ms < 0 {
		return failure("ERR timeout is negative")
	}
	end := s.srv.o.Limits.Wait
	if ms > 0 && ms < end.Milliseconds() {
		end = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(s.ctx, end)
	defer cancel()
	pause := firstPause
	for {
		n, err := s.holders(ctx)
		if errors.Is(err, ErrAlone) { // waiting changes nothing
			return integer(0)
		}
		if err != nil && ctx.Err() == nil {
			return told(err)
		}
		if int64(n) >= want || ctx.Err() != nil || s.pause(ctx, nil, &pause) != nil {
			return integer(n)
		}
	}
}

// holders is the smallest number of nodes over all groups that the connection has written to; without a write, over all groups.
func (s *session) holders(ctx context.Context) (int, error) {
	last := s.last
	if len(last) == 0 {
		last = map[string]ident.Position{}
		for _, g := range s.srv.o.Roles.Groups() {
			last[g.Name] = ident.Position{}
		}
	}
	least := -1
	for group, at := range last {
		n, err := s.srv.o.Roles.Holders(ctx, group, at)
		if err != nil {
			return max(least, 0), err
		}
		if least < 0 || n < least {
			least = n
		}
	}
	return max(least, 0), nil
}
