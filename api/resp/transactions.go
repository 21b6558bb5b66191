package resp

import (
	"context"
	"errors"
	"slices"
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

// watch is a key as it was when it was watched.
type watch struct {
	key Key
	arg []byte
	sight
}

// sight is what was seen of a record: the position of its last change, or, when there was none, where the history stood. Both are of one
// group's history: a record that belongs to another one by now has changed, whatever the numbers say.
type sight struct {
	group  string
	at     ident.Position
	absent bool
}

// look is what a program sees of a record.
func (t *tx) look(k Key) sight {
	if r := t.get(k); r != nil {
		return sight{at: r.Position}
	}
	return sight{at: t.view.End(), absent: true}
}

// unchanged tells whether a record is as it was seen. One that was absent, and made and deleted again since, is not: who has read it
// between would take what it read for what is there.
func (t *tx) unchanged(w watch) bool {
	r := t.get(w.key)
	switch {
	case t.err != nil:
		return false
	case w.absent:
		return r == nil && t.view.Deleted(w.key.File, w.key.Key) <= w.at.History
	}
	return r != nil && r.Position == w.at
}

// String is how nodes tell each other: a position with its group, with a minus sign when there was no record.
func (s sight) String() string {
	at := s.at.Format(ident.GroupName(s.group))
	if s.absent {
		return "-" + at
	}
	return at
}

func sightOf(text string) (sight, bool) {
	rest, absent := strings.CutPrefix(text, "-")
	group, rest, named := strings.Cut(rest, "@")
	at, valid := positionOf(rest)
	return sight{group: group, at: at, absent: absent}, valid && named
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
	seen, bad := s.sights(keys, args[1:])
	if bad != nil {
		return bad
	}
	for i, k := range keys {
		s.watched = append(s.watched, watch{k, args[1+i], seen[i]})
	}
	return ok
}

func ownUnwatch(s *session, _ [][]byte) reply {
	s.watched = nil
	return ok
}

// sightsJob looks at records at the primary.
func (s *session) sightsJob(keys []Key, args [][]byte) (*job, reply) {
	group, bad := s.groupOf(keys)
	if bad != nil {
		return nil, bad
	}
	return &job{group: group, keys: keys, reads: true, fresh: true, wire: [][][]byte{append([][]byte{[]byte("understudy"), []byte("positions")}, args...)}, step: func(t *tx) reply {
		all := make(array, len(keys))
		for i, k := range keys {
			saw := t.look(k)
			saw.group = group
			all[i] = text(saw.String())
		}
		return all
	}}, nil
}

// sights returns what is to be seen of keys.
func (s *session) sights(keys []Key, args [][]byte) ([]sight, reply) {
	j, bad := s.sightsJob(keys, args)
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
	seen := make([]sight, len(all))
	for i, r := range all {
		b, _ := r.(bulk)
		saw, valid := sightOf(string(b))
		if !valid {
			return nil, failure("ERR another node answered in an unknown form")
		}
		seen[i] = saw
	}
	return seen, nil
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
		j.ordered = j.ordered || w.absent
		j.wire = append(j.wire, [][]byte{[]byte("understudy"), []byte("watched"), w.arg, []byte(w.sight.String())})
	}
	j.wire = append(j.wire, [][]byte{[]byte("multi")})
	steps := make([]step, len(m.queued))
	var local int64 // bytes of what is answered here
	for i, q := range m.queued {
		if q.command.plan == nil {
			r := q.command.own(s, q.args)
			n := r.weight()
			if bad := s.chargeLocal(&local, n); bad != nil {
				return done(bad)
			}
			m.size += n
			if j.local == nil {
				j.local = map[int]reply{}
			}
			j.local[i] = r
			j.wire = append(j.wire, [][]byte{[]byte("ping")})
			steps[i] = func(*tx) reply { return r }
			continue
		}
		j.wire = append(j.wire, q.args)
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
	j.size = m.size - local
	group, bad := s.groupOf(j.keys)
	if bad != nil {
		return done(bad)
	}
	if slices.ContainsFunc(watched, func(w watch) bool { return w.group != group }) {
		return done(nothing{})
	}
	j.group = group
	j.step = func(t *tx) reply {
		for _, w := range watched {
			if !t.unchanged(w) {
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

// chargeLocal takes memory for a part of an answer that is given here; a reply says why it cannot be had.
func (s *session) chargeLocal(sum *int64, n int64) reply {
	if *sum += n; *sum > s.srv.o.Limits.Reply {
		return errReplyTooLarge
	}
	if !s.charge(n) {
		return errReplyMemory
	}
	return nil
}

// complete puts the parts that this node gives into what another node has answered to a transaction.
func (j *job) complete(r reply) reply {
	if all, is := r.(array); is && len(j.local) > 0 {
		for i, part := range j.local {
			if i < len(all) {
				all[i] = part
			}
		}
	}
	return r
}

// ownWait counts the nodes that hold the connection's last writes.
func ownWait(s *session, args [][]byte) reply {
	want, valid := integerOf(args[1])
	if !valid {
		return errNotInteger
	}
	ms, valid := integerOf(args[2])
	switch {
	case !valid:
		return errTimeout
	case ms < 0:
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
