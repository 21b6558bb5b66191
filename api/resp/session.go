package resp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// flushAt is how many rendered bytes are collected before they are written.
const flushAt = 64 << 10

// session is one connection. What stands in the first block belongs to the goroutine of serve.
type session struct {
	srv  *Server
	ctx  context.Context // of everything that the session does; ends when the grace of a stop is over
	conn net.Conn
	id   int64
	rd   *reader

	rights    Rights // 0: not authenticated
	user      string
	proto     int
	readOnly  bool // the client has sent READONLY: reads are local
	peer      bool // another node relays over it: what cannot be done here is not relayed again, and nothing waits
	multi     *transaction
	watched   []watch
	last      map[string]ident.Position // of this connection's last write, by group; guarded by write
	pending   []*slot                   // commands not yet answered, in their order
	size      int64                     // of pending
	quit      bool                      // closed after the replies
	commandAt time.Time                 // when the first byte of the command begun was seen; zero: none is begun
	born      time.Time                 // by the machine's own clock
	wait      time.Duration

	held     atomic.Int64 // bytes taken from the memory of all
	identity atomic.Pointer[identity]

	write struct { // the way out, shared with the subscriber's goroutine
		sync.Mutex
		out    []byte
		broken error // of the first write that failed; nothing is written after it
	}
	deadline struct { // of reading, shared with who wants the session to leave
		sync.Mutex
		leaving bool
		until   time.Time // what arrives by then is answered; set when leaving is
	}
	subscriber subscriber
}

// identity is what others may see of a session. It is replaced, never changed.
type identity struct {
	name, library, version string
	command                string
	proto                  int
	peer                   bool
	at, since              time.Time // of the last command, of the connection
}

// slot is the place of one reply in the order of a connection.
type slot struct {
	reply   reply // nil: not yet known; guarded by write
	job     *job  // nil: reply is set from the beginning
	size    int64 // to be given back once the reply is written
	charged int64 // for the reply
}

func newSession(ctx context.Context, srv *Server, conn net.Conn) *session {
	s := &session{srv: srv, ctx: ctx, conn: conn, id: srv.ids.Add(1), proto: 2, user: "default", last: map[string]ident.Position{}, born: time.Now(), wait: srv.o.Limits.Wait}
	s.rd = newReader(conn, &srv.o.Limits, s.take, s.give)
	if srv.o.Authenticate == nil {
		s.rights = allRights
	}
	s.rd.login = s.rights == 0
	s.identity.Store(&identity{proto: 2, at: srv.o.Clock(), since: srv.o.Clock()})
	return s
}

// take reserves memory that lasts at most as long as the session.
func (s *session) take(n int64) bool {
	if !s.srv.memory.take(n) {
		return false
	}
	s.held.Add(n)
	return true
}

func (s *session) give(n int64) {
	s.held.Add(-n)
	s.srv.memory.give(n)
}

// serve answers until the client leaves, the connection breaks, or the session has to leave.
func (s *session) serve() {
	defer func() {
		s.unsubscribeAll()
		s.part()
		_ = s.conn.Close() // what was answered is written
		s.subscriber.join()
		s.srv.memory.give(s.held.Swap(0))
	}()
	defer s.recovered()
	for !s.quit {
		q, complete, err := s.rd.next()
		switch {
		case err != nil:
			s.refuse(err)
			return
		case complete:
			s.commandAt = time.Time{}
			s.srv.counters.commands.Inc()
			s.srv.processed.Add(1)
			s.dispatch(q)
			l := &s.srv.o.Limits
			if len(s.pending) >= l.Batch || s.size >= l.BatchSize {
				s.flush()
			}
			if s.failed() {
				return
			}
			continue
		}
		s.flush()
		if s.failed() {
			return
		}
		if err := s.fill(); err != nil {
			if !errors.Is(err, errMemory) {
				return // the client has left, or took too long
			}
			s.refuse(err)
			return
		}
	}
	s.flush()
}

// part ends a connection that the client did not want to end: it hears the end behind the last reply. Commands that are on their way are
// read and not done: closing on top of them would have the client's side throw away replies that it has not read yet.
func (s *session) part() {
	s.deadline.Lock()
	leaving := s.deadline.leaving
	s.deadline.Unlock()
	half, can := s.conn.(interface{ CloseWrite() error })
	if leaving && s.peer { // another node has to know, so that it need not leave an outcome open
		s.write.Lock()
		s.write.out = farewell.render(s.write.out, s.proto)
		s.writeLocked()
		s.write.Unlock()
	}
	if !leaving || !can || s.failed() || half.CloseWrite() != nil || s.conn.SetReadDeadline(time.Now().Add(s.srv.o.Limits.Linger)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, s.conn, partBytes) // whatever ends it
}

// partBytes bounds what is read and not done at the end of a connection.
const partBytes = 1 << 20

// recovered ends the connection, and only that, when its goroutine has panicked.
func (s *session) recovered() {
	if p := recover(); p != nil {
		s.srv.o.Logger.Error("a Redis command failed in an unforeseen way; its connection is closed", "panic", p, "stack", string(debug.Stack()))
		_ = s.conn.Close()
		s.write.Lock()
		s.write.broken = net.ErrClosed
		s.write.Unlock()
	}
}

// refuse ends the connection with the reason why it cannot go on.
func (s *session) refuse(err error) {
	s.flush()
	text := failure("ERR " + err.Error())
	if errors.Is(err, errMemory) {
		text = errCommandMemory
	}
	s.srv.counters.broken.Inc()
	s.srv.o.Logger.Debug("a Redis connection is closed", "peer", s.conn.RemoteAddr(), "error", err)
	s.write.Lock()
	s.write.out = text.render(s.write.out, s.proto)
	s.writeLocked()
	s.write.Unlock()
	s.discard()
}

func (s *session) failed() bool {
	s.write.Lock()
	defer s.write.Unlock()
	return s.write.broken != nil
}

// fill waits for more bytes.
func (s *session) fill() error {
	l := &s.srv.o.Limits
	now := time.Now()
	var end time.Time
	switch {
	case s.rights == 0:
		end = s.born.Add(l.Login)
	case s.rd.begun():
		if s.commandAt.IsZero() {
			s.commandAt = now
		}
		end = s.commandAt.Add(l.Read)
	case s.subscriptions() == 0:
		end = now.Add(l.Idle)
	}
	s.deadline.Lock()
	if s.deadline.leaving && (end.IsZero() || s.deadline.until.Before(end)) {
		end = s.deadline.until
	}
	err := s.conn.SetReadDeadline(end)
	s.deadline.Unlock()
	if err != nil {
		return err
	}
	err = s.rd.fill()
	if errors.Is(err, os.ErrDeadlineExceeded) && s.rd.begun() {
		s.srv.counters.broken.Inc()
	}
	return err
}

// leave lets the session answer what arrives within Limits.Linger, and then end. It may be called by anybody.
func (s *session) leave() {
	s.deadline.Lock()
	defer s.deadline.Unlock()
	if !s.deadline.leaving {
		s.deadline.leaving, s.deadline.until = true, time.Now().Add(s.srv.o.Limits.Linger)
		_ = s.conn.SetReadDeadline(s.deadline.until) // a closed connection ends anyway
	}
}

// push appends a reply that is known.
func (s *session) push(r reply, size int64) {
	s.pending = append(s.pending, &slot{reply: r, size: size})
	s.size += size
}

// dispatch answers a command, or puts it into the batch.
func (s *session) dispatch(q request) {
	name := ""
	if len(q.args[0]) <= 64 {
		name = lower(q.args[0])
	}
	c := s.srv.commands[name]
	if name == "host:" || name == "post" { // a browser was made to speak to this port: as in Redis there is no answer
		s.srv.counters.broken.Inc()
		s.srv.o.Logger.Warn("a Redis connection that speaks HTTP is closed", "peer", s.conn.RemoteAddr())
		s.quit = true
		s.give(q.size)
		return
	}
	if bad := s.check(c, name, q.args); bad != nil {
		switch {
		case c != nil && c.name == "exec": // there is nothing else to be done with the transaction
			s.endMulti()
			bad = errExecRefused(bad)
		case s.multi != nil:
			s.multi.dirty = true
		}
		s.push(bad, q.size)
		return
	}
	old := s.identity.Load()
	if old.command != name || time.Since(old.at) > time.Second { // not for each command of a pipeline
		next := *old
		next.command, next.at = name, s.srv.o.Clock()
		s.identity.Store(&next)
	}
	switch {
	case s.multi != nil && !c.ends():
		r, kept := s.multi.queue(c, q, &s.srv.o.Limits)
		if kept {
			q.size = 0
		}
		s.push(r, q.size)
	case c.plan != nil:
		j, bad := s.jobOf(c, q.args)
		if bad != nil {
			s.push(bad, q.size)
			return
		}
		s.submit(j, q.size)
	default:
		if !c.light {
			s.flush()
		}
		if r := c.own(s, q.args); r != nil { // nil: it has put its own slot
			s.push(r, q.size)
		} else if len(s.pending) > 0 {
			s.pending[len(s.pending)-1].size += q.size
			s.size += q.size
		}
	}
}

// ends tells whether a command ends or concerns a transaction instead of being queued in it.
func (c *command) ends() bool {
	switch c.name {
	case "exec", "discard", "multi", "watch", "reset", "quit":
		return true
	}
	return false
}

// check finds what keeps a command from being run at all.
func (s *session) check(c *command, name string, args [][]byte) reply {
	switch {
	case c == nil && s.rights == 0: // who is not known learns nothing
		return errNoAuth
	case c == nil:
		return errUnknownCommand(args)
	}
	if bad := c.fits(args); bad != nil {
		return bad
	}
	switch {
	case s.rights == 0 && c.flags&early == 0:
		return errNoAuth
	case c.rights()&^s.rights != 0:
		return failure(fmt.Sprintf("NOPERM User %s has no permissions to run the '%s' command", clean([]byte(s.user), 64), c.name))
	case s.proto == 2 && c.flags&subscribed == 0 && s.subscriptions() > 0:
		return failure(fmt.Sprintf(errNotSubscribed, name))
	case s.multi != nil && c.flags&noMulti != 0:
		return errInMulti
	}
	return nil
}

// advance writes the replies that are known, up to the first that is not.
func (s *session) advance() {
	s.write.Lock()
	defer s.write.Unlock()
	n := 0
	for _, p := range s.pending {
		if p.reply == nil {
			break
		}
		n++
		if s.write.broken == nil {
			s.write.out = p.reply.render(s.write.out, s.proto)
			if len(s.write.out) >= flushAt {
				s.writeLocked()
			}
		}
		s.size -= p.size
		s.give(p.size + p.charged)
	}
	s.pending = append(s.pending[:0], s.pending[n:]...)
	if len(s.pending) == 0 {
		s.writeLocked()
	}
}

// writeLocked writes what was rendered. The client has to take a piece of it within Limits.Write, again and again.
func (s *session) writeLocked() {
	out := s.write.out
	for len(out) > 0 && s.write.broken == nil {
		if s.write.broken = s.conn.SetWriteDeadline(time.Now().Add(s.srv.o.Limits.Write)); s.write.broken != nil {
			break
		}
		var n int
		n, s.write.broken = s.conn.Write(out[:min(len(out), 4*flushAt)])
		out = out[n:]
	}
	if s.write.out = s.write.out[:0]; cap(s.write.out) > 2*flushAt {
		s.write.out = nil
	}
}
