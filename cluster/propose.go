package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

const (
	retryFirst = 20 * time.Millisecond // back-off while no leader takes a command
	retryLast  = 200 * time.Millisecond
	lookLeader = 10 * time.Millisecond // how often a waiting proposal looks whether another node leads
	settle     = time.Second           // how long an unknown outcome may still turn up by itself
)

// verdict is what became of one attempt to propose.
type verdict int

const (
	verdictNotTaken verdict = iota // surely not proposed
	verdictUnknown                 // handed to Raft, or perhaps
	verdictApplied
)

// attempt is the result of one attempt to propose.
type attempt struct {
	verdict verdict
	outcome outcome // when applied
	err     error   // otherwise
}

// Propose has a command applied, wherever the leader is. It returns when the command is applied and visible in State; a
// refusal is a Result, not an error. Without a deadline in ctx it gives up after Timing.Propose. Errors: ErrNoQuorum (not
// proposed), *UnknownOutcomeError, ErrClosed, or the context's when it was cancelled before anything was proposed.
func (c *Cluster) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timing.Propose)
		defer cancel()
	}
	cmd.Version = fsm.CommandVersion
	if cmd.ID == 0 {
		cmd.ID = c.o.Host.Random()
	}
	if cmd.At.IsZero() {
		cmd.At = c.o.Host.Clock.Now().UTC()
	}
	done, forget := c.board.watch(cmd.ID)
	defer forget()

	backoff := retryFirst
	for {
		a := c.attempt(ctx, cmd, done)
		switch a.verdict {
		case verdictApplied:
			return c.shown(ctx, cmd.ID, a.outcome)
		case verdictUnknown:
			return c.settle(ctx, cmd.ID, done, a.err)
		}
		if c.ctx.Err() != nil {
			return fsm.Result{}, ErrClosed
		}
		if err := c.rest(ctx, backoff); errors.Is(err, context.DeadlineExceeded) {
			return fsm.Result{}, fmt.Errorf("%w (last attempt: %w)", ErrNoQuorum, a.err)
		} else if err != nil {
			return fsm.Result{}, err
		}
		backoff = min(2*backoff, retryLast)
	}
}

// rest waits before the next attempt, for no longer than it takes until another leader is known.
func (c *Cluster) rest(ctx context.Context, backoff time.Duration) error {
	before := c.leaderAddress()
	end := time.NewTimer(backoff)
	defer end.Stop()
	look := time.NewTicker(lookLeader)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-look.C:
			if now := c.leaderAddress(); now != "" && now != before {
				return nil
			}
		case <-c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// attempt hands the command to the leader once. It ends early when the command is seen applied here, or when another
// leader is elected: the old one may be paused and never answer.
func (c *Cluster) attempt(ctx context.Context, cmd fsm.Command, done <-chan outcome) attempt {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := c.leaderAddress()
	reply := make(chan attempt, 1)
	if !c.spawn(func() { reply <- c.hand(ctx, asked, cmd) }) {
		return attempt{err: ErrClosed}
	}
	look := time.NewTicker(lookLeader)
	defer look.Stop()
	for {
		select {
		case o := <-done:
			return attempt{verdict: verdictApplied, outcome: o}
		case a := <-reply:
			return a
		case <-look.C:
			if now := c.leaderAddress(); now != "" && now != asked {
				cancel()
			}
			continue
		case <-parent.Done():
		case <-c.ctx.Done():
		}
		cancel()
		select { // the exchange knows whether anything was sent
		case a := <-reply:
			return a
		case <-time.After(retryFirst):
			return attempt{verdict: verdictUnknown, err: errors.Join(parent.Err(), c.ctx.Err())}
		}
	}
}

// hand gives the command to this node's Raft when it leads, else to the leader.
func (c *Cluster) hand(ctx context.Context, addr string, cmd fsm.Command) attempt {
	if err := c.o.Host.Failpoint("cluster.propose"); err != nil {
		return attempt{err: err}
	}
	if c.raft.State() == raft.Leader { // routing only: Raft itself refuses what a deposed leader gets
		return c.apply(ctx, cmd)
	}
	if addr == "" {
		return attempt{err: errors.New("no leader is known")}
	}
	r, err := c.port.call(ctx, addr, request{Propose: &cmd})
	var failed *callError
	if errors.As(err, &failed) {
		if failed.Sent {
			return attempt{verdict: verdictUnknown, err: err}
		}
		return attempt{err: err}
	}
	switch {
	case r.Code == codeOK && r.Result != nil:
		return attempt{verdict: verdictApplied, outcome: outcome{result: *r.Result, applied: r.Applied}}
	case r.Code == codeUnknown:
		return attempt{verdict: verdictUnknown, err: errors.New(r.Detail)}
	}
	return attempt{err: fmt.Errorf("%s: %s %s", addr, r.Code, r.Detail)}
}

// apply appends the command to the log as the leader and waits until it is applied here.
func (c *Cluster) apply(ctx context.Context, cmd fsm.Command) attempt {
	raw, err := fsm.EncodeCommand(cmd)
	if err != nil {
		return attempt{err: err}
	}
	enqueue := settle
	if d, ok := ctx.Deadline(); ok {
		enqueue = max(time.Until(d), time.Millisecond)
	}
	f := c.raft.ApplyLog(raft.Log{Data: raw}, enqueue)
	if err := f.Error(); err != nil { // returns when the entry is applied or leadership is lost
		if errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrAbortedByRestore) {
			return attempt{verdict: verdictUnknown, err: err}
		}
		return attempt{err: err} // not leader, leadership transfer, queue full, shut down: not appended
	}
	res, ok := f.Response().(fsm.Result)
	if !ok {
		return attempt{verdict: verdictUnknown, err: fmt.Errorf("unexpected answer of the state machine: %v", f.Response())}
	}
	st, _ := c.board.read()                       // may be later already, which only makes the proposer wait for more
	if c.deciding(cmd, res) || awaited(cmd, st) { // so that followers learn of it now, not with the next heartbeat
		c.spawn(func() { _ = c.raft.Barrier(settle) })
	}
	return attempt{verdict: verdictApplied, outcome: outcome{result: res, applied: st.Applied}}
}

// deciding tells whether followers should learn of the command at once. A plain renewal can wait: to count from a later
// apply only makes a cover longer. So can the end of a switch-over, and the begin of a hold at this node: its Handover follows, and would
// wait for this.
func (c *Cluster) deciding(cmd fsm.Command, res fsm.Result) bool {
	if x := cmd.AdvanceSwitch; cmd.FinishSwitch != nil || x != nil && x.From == fsm.StepHold && x.Node == c.o.Node {
		return false
	}
	return res.Refused == "" && (cmd.Renew == nil || len(res.Ended) > 0)
}

// awaited tells whether a renewal is what a node that was just given a role waits for: without a lease that covers it, it answers nobody.
func awaited(cmd fsm.Command, st *fsm.State) bool {
	if cmd.Renew == nil {
		return false
	}
	for _, g := range st.Groups {
		if op := g.Operation; op != nil && op.Committed && g.Holds(cmd.Renew.Node, cmd.Renew.Incarnation) {
			return true
		}
	}
	return false
}

// shown waits until the state here has counted as far as the leader's had after the command.
func (c *Cluster) shown(ctx context.Context, id uint64, o outcome) (fsm.Result, error) {
	for {
		st, changed := c.board.read()
		if st.Applied >= o.applied {
			return o.result, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if o.result.Refused != "" {
				return o.result, nil // nothing was changed, so there is nothing to see
			}
			return fsm.Result{}, &UnknownOutcomeError{Command: id, Unseen: o.applied, Err: fmt.Errorf("applied, but not visible here yet: %w", ctx.Err())}
		case <-c.ctx.Done():
			return fsm.Result{}, &UnknownOutcomeError{Command: id, Err: ErrClosed}
		}
	}
}

// settle waits a little for a command whose outcome is unknown to turn up in the log.
func (c *Cluster) settle(ctx context.Context, id uint64, done <-chan outcome, cause error) (fsm.Result, error) {
	select {
	case o := <-done:
		return o.result, nil
	case <-time.After(settle):
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return fsm.Result{}, &UnknownOutcomeError{Command: id, Err: cause}
}

// leaderAddress returns where the leader's Raft port is, "" when none is known.
func (c *Cluster) leaderAddress() string {
	addr, id := c.raft.LeaderWithID()
	if n := c.book.node(ident.DirectoryID(id)); n != nil {
		return c.book.of(n)
	}
	return string(addr)
}
