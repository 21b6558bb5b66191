package resp

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Pauses between two looks at who is primary, when no change is signalled.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond

	aboutToServe = 100 * time.Millisecond // a relayed command waits so long where this node is the primary and does not serve yet
)

// smallReply is taken from the memory of all even when that is used up: to refuse it would leave an outcome unknown.
const smallReply = 1 << 10

// job is a command, or a transaction, on its way to an answer.
type job struct {
	group   string
	keys    []Key
	reads   bool
	ordered bool  // though it changes nothing, it is run in the order of changes
	fresh   bool  // it reads at the primary, whatever the client wants; such a job is alone
	size    int64 // about how many bytes it may put
	step    step
	// direct is run instead of step where there is no program.
	direct func(ctx context.Context) (reply, error)
	// wire are the commands by which another node is asked; the reply to the last one is the answer.
	wire [][][]byte
	// local are the parts of a transaction's answer that this node gives, by their place; another node is asked something that is nobody's.
	local map[int]reply
	slot  *slot
}

// jobOf makes a job of a data command.
func (s *session) jobOf(c *command, args [][]byte) (*job, reply) {
	keys := c.keysOf(args)
	p, bad := c.plan(&call{name: c.name, args: args, keys: keys, limits: &s.srv.o.Limits})
	if bad != nil {
		return nil, bad
	}
	group, bad := s.groupOf(keys)
	if bad != nil {
		return nil, bad
	}
	j := &job{group: group, keys: keys, reads: c.flags&writes == 0, step: p, wire: [][][]byte{args}}
	if !j.reads {
		for _, a := range args {
			j.size += int64(len(a))
		}
	}
	return j, nil
}

// groupOf names the one group of all keys.
func (s *session) groupOf(keys []Key) (string, reply) {
	group := ""
	for i, k := range keys {
		switch {
		case k.File == "":
			return "", failure("ERR the key has no file name: keys are `file:key`, or `key` in the file default")
		case len(k.File) > s.srv.o.Limits.File:
			return "", failure(fmt.Sprintf("ERR the file name, which is what stands before the first colon of the key, has %d bytes, at most %d are possible", len(k.File), s.srv.o.Limits.File))
		case len(k.Key) == 0:
			return "", failure("ERR the key is empty")
		case len(k.Key) > s.srv.o.Limits.Key:
			return "", failure(fmt.Sprintf("ERR the key is too long: it has %d bytes, at most %d are possible", len(k.Key), s.srv.o.Limits.Key))
		}
		g, err := s.srv.o.Store.Group(k)
		if err != nil {
			return "", told(err)
		}
		if i > 0 && g != group {
			if local := s.srv.o.Local; local != "" && (g == local || group == local) {
				return "", errCrossLocal(keys[0], k, group == local)
			}
			return "", crossGroup(keys[0], group, k, g)
		}
		group = g
	}
	if s.peer && len(keys) > 0 && group == s.srv.o.Local {
		return "", errNotMeant
	}
	return group, nil
}

// told is an error after which surely nothing was done, as a reply.
func told(err error) reply {
	var f failure
	if errors.As(err, &f) {
		return f
	}
	var r *Refusal
	if errors.As(err, &r) {
		return failure(r.Error())
	}
	return failure("ERR " + err.Error())
}

// submit puts a job into the batch.
func (s *session) submit(j *job, size int64) {
	j.slot = &slot{job: j, size: size}
	s.pending = append(s.pending, j.slot)
	s.size += size
}

// run answers one job now. What is pending was answered before.
func (s *session) run(j *job) reply {
	j.slot = &slot{job: j}
	s.runGroup([]*job{j})
	s.give(j.slot.charged) // it is small, or soon in a slot of its own
	return j.slot.reply
}

// answer sets the reply of a job; it was charged for.
func (s *session) answer(j *job, r reply, charged int64) {
	s.write.Lock()
	defer s.write.Unlock()
	j.slot.reply, j.slot.charged = r, charged
}

func (s *session) answered(j *job) bool {
	s.write.Lock()
	defer s.write.Unlock()
	return j.slot.reply != nil
}

// unanswered lists the jobs without a reply.
func (s *session) unanswered(jobs []*job) []*job {
	var left []*job
	for _, j := range jobs {
		if !s.answered(j) {
			left = append(left, j)
		}
	}
	return left
}

// flush answers everything that is pending. Jobs of one group are run in their order, groups beside each other. Jobs whose replies find no
// room wait until those before them are written.
func (s *session) flush() {
	s.advance()
	for len(s.pending) > 0 && !s.failed() {
		groups := map[string][]*job{}
		for _, p := range s.pending {
			if p.job != nil && p.reply == nil { // nobody else answers now
				groups[p.job.group] = append(groups[p.job.group], p.job)
			}
		}
		if len(groups) == 1 {
			for _, jobs := range groups {
				s.runGroup(jobs)
			}
		} else {
			var all sync.WaitGroup
			for _, jobs := range groups {
				all.Go(func() {
					defer s.recovered()
					s.runGroup(jobs)
				})
			}
			all.Wait()
		}
		s.advance()
	}
	if s.failed() {
		s.pending, s.size = nil, 0
	}
}

// runGroup answers jobs of one group, at least the first: here, at the primary, or, when there is none in time, with an error.
func (s *session) runGroup(jobs []*job) {
	ctx, cancel := context.WithTimeout(s.ctx, s.wait)
	defer cancel()
	waits := false // counted among those that wait
	defer func() {
		if waits {
			s.srv.waiting.give(1)
		}
	}()
	pause, about := firstPause, time.Now().Add(aboutToServe)
	for again := false; ; again = true {
		changed := s.srv.o.Roles.Changed() // before the question, so that no change is missed
		left := s.unanswered(jobs)
		if again {
			left = s.ofTheirGroup(left)
		}
		if len(left) == 0 {
			return
		}
		other := s.try(ctx, left)
		if other == nil {
			return // what is not answered has found no room
		}
		left = s.unanswered(left)
		if s.peer && (!other.Retry || time.Now().After(about)) {
			s.answerAll(left, failure("ELSEWHERE "+other.Redis))
			return
		}
		if s.srv.o.NotPrimary == ReadOnly && !other.Retry {
			for _, j := range left {
				if !j.reads {
					s.answer(j, errReadOnly, 0)
				}
			}
			left = s.unanswered(left)
		}
		if other.Redis != "" && !other.Retry && len(left) > 0 {
			s.relay(ctx, other.Redis, left)
			if left = s.unanswered(left); len(left) == 0 {
				return
			}
		}
		if len(left) == 0 {
			return
		}
		if !waits {
			if !s.srv.waiting.take(1) {
				s.answerAll(left, errWaiting)
				return
			}
			waits = true
		}
		if bad := s.pause(ctx, changed, &pause); bad != nil {
			s.srv.counters.late.Add(float64(len(left)))
			s.answerAll(left, bad)
			return
		}
	}
}

// ofTheirGroup answers jobs whose keys have become another group's since their group was looked up: the node that they go to would
// turn them away each time. It returns the others.
func (s *session) ofTheirGroup(jobs []*job) []*job {
	return slices.DeleteFunc(jobs, func(j *job) bool {
		if len(j.keys) == 0 {
			return false
		}
		group, bad := s.groupOf(j.keys)
		if bad == nil && group != j.group {
			bad = errMoved
		}
		if bad != nil {
			s.answer(j, bad, 0)
		}
		return bad != nil
	})
}

func (s *session) answerAll(jobs []*job, r reply) {
	for _, j := range jobs {
		s.answer(j, r, 0)
	}
}

// pause waits for a change of roles, or a while; a reply says why there is no more waiting.
func (s *session) pause(ctx context.Context, changed <-chan struct{}, pause *time.Duration) reply {
	t := time.NewTimer(*pause)
	defer t.Stop()
	*pause = min(2**pause, lastPause)
	select {
	case <-changed:
	case <-t.C:
	case <-s.srv.sessions.draining():
		return errStopping
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return failure("TRYAGAIN no node became primary in time: nothing was done")
	}
	return nil
}

// try runs jobs here. It returns who else has to run those that are not answered then; nil when there are none, or when they have to wait
// until replies before them are written.
func (s *session) try(ctx context.Context, jobs []*job) *Elsewhere {
	if jobs[0].direct != nil {
		return s.tryDirect(ctx, jobs[0])
	}
	attempts, batch := s.attempts(jobs)
	reads := true
	for _, p := range batch {
		reads = reads && p.Reads
	}
	var outcomes []Outcome
	if reads {
		outcomes = s.srv.o.Store.Read(ctx, jobs[0].group, s.local() && !jobs[0].fresh, batch)
	} else {
		outcomes = s.srv.o.Store.Update(ctx, jobs[0].group, batch)
	}
	var other *Elsewhere
	from := len(jobs)
	for i, a := range attempts {
		r, charged, full := a.close()
		o := Outcome{Err: errAbandoned}
		if i < len(outcomes) {
			o = outcomes[i]
		}
		j := jobs[i]
		if e, is := elsewhere(o.Err); is {
			if other == nil {
				other, from = e, i
			}
			s.give(charged)
			continue
		}
		if full && o.Err != nil {
			s.give(charged)
			continue
		}
		if other != nil { // a store that goes on after an Elsewhere breaks its word: the order of the client is gone for those before
			s.answerAll(s.unanswered(jobs[from:i]), failure("TRYAGAIN the primary changed: nothing was done"))
		}
		if o.Err != nil {
			s.give(charged)
			s.answer(j, s.failure(j, o.Err), 0)
			continue
		}
		if !j.reads {
			s.wrote(j.group, o.Position)
		}
		s.answer(j, r, charged)
	}
	if other != nil && len(s.unanswered(jobs[from:])) == 0 {
		return nil
	}
	return other
}

func (s *session) tryDirect(ctx context.Context, j *job) *Elsewhere {
	r, err := j.direct(ctx)
	if e, is := elsewhere(err); is {
		return e
	}
	if err != nil {
		r = s.failure(j, err)
	}
	s.answer(j, r, 0)
	return nil
}

// wrote remembers the position of the connection's last write to a group.
func (s *session) wrote(group string, at ident.Position) {
	s.write.Lock()
	defer s.write.Unlock()
	s.last[group] = at
}

// local tells whether reads are answered from this node's copy. Who relays wants the primary's.
func (s *session) local() bool { return (s.readOnly || s.srv.o.LocalReads) && !s.peer }

// failure is the reply for an error that is not an Elsewhere.
func (s *session) failure(j *job, err error) reply {
	var f failure
	var r *Refusal
	switch {
	case errors.As(err, &f), errors.As(err, &r), j.reads:
		return told(err)
	}
	var at *Unknown
	if errors.As(err, &at) && !at.Position.IsZero() {
		return s.unknownAt(at.Position.Format(s.srv.history(j.group)), at.Err)
	}
	return s.unknown(err.Error())
}

// unknown says that a write may have been done. Clients must not repeat it blindly, so none of the codes that they repeat for is used.
func (s *session) unknown(why string) reply {
	s.srv.counters.unknown.Inc()
	return failure("UNKNOWNOUTCOME the write may have been done, or will be: read what it should have changed before you repeat it: " + why)
}

// unknownAt is unknown for a write that was sequenced: its position is what a receipt is asked for with.
func (s *session) unknownAt(position string, why error) reply {
	s.srv.counters.unknown.Inc()
	return failure(fmt.Sprintf("UNKNOWNOUTCOME the write at %s may have been done, or will be: ask `understudy receipt %s`, or read what it should have changed, before you repeat it: %v",
		position, position, why))
}

// attempt is one try of one job. The Store may run its program several times, and even after the try is over.
type attempt struct {
	s      *session
	job    *job
	before *attempt // of the batch; nil: this is the first one

	mu      sync.Mutex
	closed  bool
	full    bool // there was no room for the reply: this and all after it wait
	reply   reply
	charged int64 // for the reply
	total   int64 // of this and all before it
}

// attempts makes the programs of a batch.
func (s *session) attempts(jobs []*job) ([]*attempt, []Program) {
	attempts, batch := make([]*attempt, len(jobs)), make([]Program, len(jobs))
	var before *attempt
	for i, j := range jobs {
		a := &attempt{s: s, job: j, before: before}
		attempts[i], before = a, a
		batch[i] = Program{Keys: j.keys, Reads: j.reads && !j.ordered, Size: j.size, Run: a.run}
	}
	return attempts, batch
}

// errFull ends a program whose reply has no room.
var errFull = errors.New("the reply has to wait")

// room returns what the replies before take, and whether one of them had no room.
func (a *attempt) room() (total int64, full bool) {
	if a == nil {
		return 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total, a.full
}

// run is the program.
func (a *attempt) run(v View) (err error) {
	before, full := a.before.room()
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // the sequencer runs this: one command must not end it
			a.s.srv.o.Logger.Error("a Redis command failed in an unforeseen way; it was not done", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	if a.closed {
		return errAbandoned
	}
	a.s.give(a.charged)
	a.reply, a.charged, a.total, a.full = nil, 0, before, full
	if full {
		return errFull
	}
	limits := &a.s.srv.o.Limits
	t := &tx{view: v, limits: limits}
	r := a.job.step(t)
	if t.err != nil {
		return t.err
	}
	n := r.weight()
	switch { // twice: for the reply, and for what is rendered of it
	case before+n > limits.Reply && a.before != nil:
		a.full = true
		return errFull
	case n > limits.Reply:
		return errReplyTooLarge
	case !a.s.charge(2 * n):
		if a.before != nil {
			a.full = true
			return errFull
		}
		return errReplyMemory
	}
	a.reply, a.charged, a.total = r, 2*n, before+n
	return nil
}

// close ends the try and returns its result.
func (a *attempt) close() (reply, int64, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return a.reply, a.charged, a.full
}

// charge takes memory for a reply.
func (s *session) charge(n int64) bool {
	if s.take(n) {
		return true
	}
	if n > smallReply {
		return false
	}
	s.srv.memory.used.Add(n)
	s.held.Add(n)
	return true
}
