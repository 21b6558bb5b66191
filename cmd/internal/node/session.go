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
}

// retryRole is how long a role waits after an attempt that ended early, so that a failing one does not spin.
const retryRole = 50 * time.Millisecond

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
			cancel(nil)
			if err := s.judge(ctx, err); err != nil {
				return err
			}
			select {
			case <-time.After(retryRole):
			case <-ctx.Done():
			}
			return nil
		case <-changed:
		case <-cover:
			promise = nil
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
	res, err := s.control.Propose(ctx, fsm.Command{Promise: &fsm.Promise{Group: s.control.group, Report: report}})
	if err != nil {
		return err
	}
	if res.Refused != "" {
		return fmt.Errorf("report refused: %s %s", res.Refused, res.Detail)
	}
	s.log.Info("promised", "epoch", a.Group.Epoch, "received", report.Received, "applied", report.Applied)
	return nil
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
