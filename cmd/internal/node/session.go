package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// role is what a node does for a group. A role session is the lifetime of one function call with one role.
type role struct {
	primary bool
	epoch   ident.Epoch // of the primary role; 0 for a backup, whose session outlives epochs
}

// roleFor decides the role: primary only in the life that was promoted, backup in every other case.
func roleFor(a fsm.Assignment) role {
	g := a.Group
	if g.Primary == a.Self && g.Incarnation == a.Life && g.Phase != fsm.PhaseFenced {
		return role{primary: true, epoch: g.Epoch}
	}
	return role{}
}

// promiseDue tells whether the node still owes the group a promise.
func promiseDue(a fsm.Assignment) bool {
	if a.Group.Phase != fsm.PhaseFenced {
		return false
	}
	for _, r := range a.Group.Reports {
		if r.Node == a.Self && r.Epoch == a.Group.Epoch && r.Incarnation == a.Life {
			return false
		}
	}
	return true
}

// sessions runs one role session after the other for one group until its context ends.
type sessions struct {
	replica *replica.Replica
	control control
	cluster *cluster.Cluster
	log     hclog.Logger
	trial   trial
	revise  time.Time // when a promise that said "unable" is given again without it; zero: not at all
}

// Bounds of a role that fails.
const (
	retryRole   = 50 * time.Millisecond // waited after an attempt that ended early, so that a failing one does not spin
	retrySlow   = time.Second           // at most, where attempts at the primary role fail one after the other
	maxFailed   = 5                     // so many in a row, and the role is given up
	steady      = 30 * time.Second      // an attempt that lasted so long begins a new row
	slow        = 15 * time.Second      // fenced after so long without having served: as good as failed
	reviseAfter = 10 * time.Second      // still nobody was chosen: better this node than none
)

// trial is how this node fares as primary of one epoch.
type trial struct {
	epoch  ident.Epoch
	since  time.Time // of the first attempt
	served bool      // the state showed it as a primary whose takeover is finished
	failed int       // attempts in a row that ended early
	why    string    // what ended the last one
}

// begin is told of an attempt at the primary role of e.
func (t *trial) begin(e ident.Epoch, now time.Time) {
	if t.epoch != e {
		*t = trial{epoch: e, since: now}
	}
}

// see is told what the state shows while the role is held.
func (t *trial) see(g *fsm.Group) {
	op := g.Operation
	handed := op != nil && op.Kind == fsm.OperationSwitchover && op.Committed
	t.served = t.served || g.Epoch == t.epoch && g.Phase == fsm.PhaseOpened && !handed
}

// fail is told of an attempt that ended early, and returns how long to wait before the next.
func (t *trial) fail(err error, lasted time.Duration) time.Duration {
	if lasted >= steady {
		t.failed = 0
	}
	t.failed++
	t.why = err.Error()
	return min(retryRole<<min(t.failed-1, 10), retrySlow)
}

// verdict says why the node should not be primary; "" when nothing speaks against it.
func (t *trial) verdict(now time.Time) string {
	switch {
	case t.epoch == 0:
		return ""
	case t.failed >= maxFailed:
		return fmt.Sprintf("failed %d times as primary of epoch %s: %s", t.failed, t.epoch, t.why)
	case !t.served && now.Sub(t.since) >= slow:
		return fmt.Sprintf("was primary of epoch %s for %s without serving", t.epoch, now.Sub(t.since).Round(time.Second))
	}
	return ""
}

// resignation is the command by which a primary that fails again and again gives its role up; nil while nobody could take
// it, or where roles do not move by themselves.
func resignation(a fsm.Assignment, t trial, alive func(ident.NodeID) bool) *fsm.Fence {
	g := a.Group
	if t.failed < maxFailed || !a.IsPrimary() || g.Epoch != t.epoch || g.Spec.AutoFailover == fsm.FailoverOff || a.Pause != nil || !g.Another(a.Self, a.Nodes, alive) {
		return nil
	}
	return &fsm.Fence{Group: g.Spec.Name, Epoch: g.Epoch, Force: true, Automatic: true, Reason: fmt.Sprintf("%s %s", a.Self, t.verdict(t.since))}
}

// unable is what a promise says against its own node: it was the last primary, it failed, and somebody else could be chosen.
func unable(a fsm.Assignment, t trial, now time.Time, alive func(ident.NodeID) bool) string {
	g := a.Group
	if g.Primary != a.Self || g.Incarnation != a.Life || g.Epoch <= t.epoch || !g.Another(a.Self, a.Nodes, alive) {
		return ""
	}
	return t.verdict(now)
}

// servesAlready tells whether the node is the group's primary and, by the state, has nothing left to do before it serves.
func servesAlready(g *fsm.Group, n *fsm.Node) bool {
	t := trial{epoch: g.Epoch}
	t.see(g)
	return g.Holds(n.ID, n.Incarnation) && !n.Released && t.served
}

// serves tells whether nothing known to this node speaks against another's, or its own, being a serving primary.
func (n *Node) serves(g *fsm.Group, as *fsm.Node) bool {
	if as.ID == n.config.Node {
		rep := n.replicas.get(g.Spec.Name)
		return servesAlready(g, as) && rep != nil && rep.Status().Serving && n.cluster.CheckLease(g.Spec.Name, g.Epoch) == nil
	}
	return servesAlready(g, as) && n.cluster.LeaseHeld(as.ID)
}

func (s *sessions) alive(n ident.NodeID) bool { return s.cluster.Alive(n) && s.cluster.LeaseHeld(n) }

func (s *sessions) run(ctx context.Context) error {
	for ctx.Err() == nil {
		a, _ := s.control.Assignment()
		if err := s.session(ctx, roleFor(a)); err != nil {
			return err
		}
	}
	return nil
}

// session holds r until the assignment asks for another role or the session ends by itself.
func (s *sessions) session(ctx context.Context, r role) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	began := time.Now()
	if r.primary {
		s.trial.begin(r.epoch, began)
		s.revise = time.Time{}
	}
	go func() {
		if r.primary {
			ended <- s.replica.RunPrimary(ctx, s.control)
		} else {
			ended <- s.replica.RunBackup(ctx, s.control)
		}
	}()
	var promise <-chan time.Time
	for {
		a, changed := s.control.Assignment()
		if now := roleFor(a); now != r {
			cancel(fmt.Errorf("role changed: primary %q at epoch %s, %s", a.Group.Primary, a.Group.Epoch, a.Group.Phase))
			return s.judge(ctx, <-ended)
		}
		if r.primary {
			s.trial.see(a.Group)
		}
		var revise <-chan time.Time
		if !s.revise.IsZero() {
			revise = time.After(time.Until(s.revise))
		}
		if promiseDue(a) && promise == nil {
			var wait time.Duration
			if over, rest, _ := s.cluster.CoverEnded(s.control.group); !over {
				wait = rest
			}
			promise = time.After(wait)
		}
		_, _, cover := s.cluster.CoverEnded(s.control.group)
		select {
		case err := <-ended:
			if err := s.judge(ctx, err); err != nil {
				cancel(nil)
				return err
			}
			wait := retryRole
			if r.primary && err != nil && ctx.Err() == nil {
				wait = s.trial.fail(err, time.Since(began))
				s.resign(ctx)
			}
			s.pause(ctx, r, wait)
			cancel(nil)
			return nil
		case <-changed:
		case <-cover:
			promise = nil
		case <-revise:
			s.revise, s.trial = time.Time{}, trial{}
			if a.Group.Phase == fsm.PhaseFenced {
				if err := s.promise(ctx, a); err != nil {
					s.log.Warn("promise not revised yet", "epoch", a.Group.Epoch, "error", err)
					s.revise = time.Now().Add(time.Second)
				}
			}
		case <-promise:
			promise = nil
			if promiseDue(a) {
				if err := s.promise(ctx, a); err != nil {
					s.log.Warn("promise not given yet", "epoch", a.Group.Epoch, "error", err)
					promise = time.After(retryRole)
				}
			}
		}
	}
}

// promise gives the group's new epoch this node's promise, once no lease of the old one can still be valid by its own count.
func (s *sessions) promise(ctx context.Context, a fsm.Assignment) error {
	if over, _, _ := s.cluster.CoverEnded(s.control.group); !over {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	report, err := s.replica.Promise(ctx, a.Group.Epoch)
	if err != nil {
		return err
	}
	report.Node, report.Incarnation, report.Epoch = a.Self, a.Life, a.Group.Epoch
	if own := unable(a, s.trial, time.Now(), s.alive); report.Unable == "" && own != "" {
		report.Unable = own
		s.revise = time.Now().Add(reviseAfter)
	}
	res, err := s.control.Propose(ctx, fsm.Command{Promise: &fsm.Promise{Group: s.control.group, Report: report}})
	if err != nil {
		return err
	}
	if res.Refused == fsm.RefusedEpoch {
		s.log.Debug("promise came late: the group has gone on", "epoch", a.Group.Epoch, "detail", res.Detail)
		return nil
	}
	if res.Refused != "" {
		return fmt.Errorf("report refused: %s %s", res.Refused, res.Detail)
	}
	s.log.Info("promised", "epoch", a.Group.Epoch, "received", report.Received, "applied", report.Applied)
	return nil
}

// pause waits until r may be tried again or is not the role any more.
func (s *sessions) pause(ctx context.Context, r role, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		a, changed := s.control.Assignment()
		if roleFor(a) != r {
			return
		}
		select {
		case <-t.C:
			return
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// resign gives the primary role up when it has failed too often and somebody else could take it.
func (s *sessions) resign(ctx context.Context) {
	a, _ := s.control.Assignment()
	f := resignation(a, s.trial, s.alive)
	if f == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	res, err := s.control.Propose(ctx, fsm.Command{Fence: f})
	s.log.Warn("gives the primary role up", "epoch", f.Epoch, "reason", f.Reason, "refused", res.Refused, "error", err)
}

// judge tells an end that another session may follow from one that the node must not survive.
func (s *sessions) judge(ctx context.Context, err error) error {
	var fatal *replica.FatalError
	switch {
	case err == nil, ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil
	case errors.As(err, &fatal):
		return err
	}
	s.log.Warn("role session ended", "error", err)
	return nil
}
