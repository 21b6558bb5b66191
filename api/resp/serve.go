package resp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// refusalTime is how long a connection that is one too many may take to hear so.
const refusalTime = 100 * time.Millisecond

// Serve answers on ln until ctx ends. Then it takes no more connections; what was read is answered, and what arrives within Limits.Linger,
// too; what is not done after Limits.Shutdown is cut off. It owns ln. No session runs any more when it returns nil, or the first real
// error. It is called once.
func (srv *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx)) // running commands outlive ctx
	defer cancel()
	known := map[string]Group{} // before the first client: what it hears of later is news
	for _, g := range srv.o.Roles.Groups() {
		known[g.Name] = g
	}
	failed := make(chan error, 1) // gets one value: how accepting ended
	go func() { failed <- srv.accept(ctx, base, ln) }()
	watched := make(chan struct{}) // closed when the roles are no longer watched
	go func() {
		defer close(watched)
		srv.watchRoles(base, known)
	}()

	var err error
	accepting := true
	select {
	case <-ctx.Done():
	case err = <-failed:
		accepting = false
	}
	if closing := ln.Close(); closing != nil && accepting && !errors.Is(closing, net.ErrClosed) {
		err = fmt.Errorf("close the Redis listener: %w", closing)
	}
	if accepting {
		<-failed // what Close causes
	}
	srv.sessions.drain()
	if !srv.sessions.join(srv.o.Limits.Shutdown) {
		cancel()
		srv.sessions.cut()
		if !srv.sessions.join(srv.o.Limits.Shutdown) && err == nil {
			err = errors.New("close Redis: some commands do not end")
		}
	}
	cancel()
	<-watched
	srv.peers.sweep(0)
	return err
}

// accept takes connections until the listener is closed.
func (srv *Server) accept(ctx, base context.Context, ln net.Listener) error {
	pause := firstPause
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if conn != nil {
				_ = conn.Close()
			}
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("serve Redis: %w", err)
		case err != nil: // no file descriptors, most likely: trying again at once would only burn time
			srv.o.Logger.Warn("could not accept a Redis connection", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = firstPause
		s := newSession(base, srv, conn)
		if !srv.sessions.add(s) {
			srv.counters.refused.Inc()
			_ = conn.SetWriteDeadline(time.Now().Add(refusalTime))
			_, _ = conn.Write(errConnections.render(nil, 2)) // a new connection's buffer has room
			_ = conn.Close()
			continue
		}
		srv.counters.connections.Inc()
		go func() {
			defer srv.sessions.remove(s)
			defer srv.counters.connections.Dec()
			s.serve()
		}()
	}
}

// sessions are the open connections.
type sessions struct {
	limit int

	mu    sync.Mutex
	open  map[int64]*session
	ended chan struct{} // closed when the last one ends; nil until join
	stop  chan struct{} // closed when all have to leave; nil until somebody asks
	left  bool          // drain was called
}

// add counts a session; false when there are too many.
func (c *sessions) add(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.limit || c.left {
		return false
	}
	if c.open == nil {
		c.open = map[int64]*session{}
	}
	c.open[s.id] = s
	return true
}

func (c *sessions) remove(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, s.id)
	if len(c.open) == 0 && c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
}

// list returns the open sessions, the oldest first.
func (c *sessions) list() []*session {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*session, 0, len(c.open))
	for _, s := range c.open {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return int(a.id - b.id) })
	return all
}

// draining returns a channel that is closed when all sessions have to leave.
func (c *sessions) draining() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		c.stop = make(chan struct{})
	}
	return c.stop
}

// drain asks all sessions to leave, and lets no new one in.
func (c *sessions) drain() {
	c.draining()
	c.mu.Lock()
	if !c.left {
		c.left = true
		close(c.stop)
	}
	c.mu.Unlock()
	for _, s := range c.list() {
		s.leave()
	}
}

// cut closes all connections.
func (c *sessions) cut() {
	for _, s := range c.list() {
		_ = s.conn.Close()
	}
}

// join waits until all sessions have ended; false when some have not.
func (c *sessions) join(within time.Duration) bool {
	c.mu.Lock()
	if len(c.open) == 0 {
		c.mu.Unlock()
		return true
	}
	if c.ended == nil {
		c.ended = make(chan struct{})
	}
	ended := c.ended
	c.mu.Unlock()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
		return false
	}
}

// watchRoles tells subscribers about new primaries and deleted groups, and lets clients go when this node stops being one. The groups known are as they were
// told last.
func (srv *Server) watchRoles(ctx context.Context, known map[string]Group) {
	sweep := time.NewTicker(srv.o.Limits.RelayIdle)
	defer sweep.Stop()
	for {
		changed := srv.o.Roles.Changed()
		lost := false
		groups := srv.o.Roles.Groups()
		for name, old := range known {
			if !slices.ContainsFunc(groups, func(g Group) bool { return g.Name == name }) { // deleted
				lost = lost || old.Serving
				delete(known, name)
				srv.hub.publish("-monitor", monitorMessage(name, old.address()))
			}
		}
		for _, g := range groups {
			old, told := known[g.Name]
			if told && old.Serving && !g.Serving {
				lost = true
			}
			next := g
			if from, to := old.address(), g.address(); to == "" {
				next.Primary, next.Nodes = old.Primary, old.Nodes // nobody new yet
			} else if told && from != "" && from != to {
				srv.hub.publish("+switch-master", switchMessage(g.Name, from, to))
			}
			known[g.Name] = next
		}
		if lost && srv.o.OnRoleChange == Close {
			for _, s := range srv.sessions.list() {
				if s.normal() {
					s.leave()
				}
			}
		}
		select {
		case <-changed:
		case <-sweep.C:
			srv.peers.sweep(srv.o.Limits.RelayIdle)
		case <-ctx.Done():
			return
		}
	}
}
