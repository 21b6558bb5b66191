package faultlab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// poll is how often a condition is looked at.
const poll = 25 * time.Millisecond

// Await waits until condition returns nil; the error says what it returned last.
func Await(ctx context.Context, what string, limit time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, 2*time.Second)
		err := condition(try)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return fmt.Errorf("waited %s until %s: %w", limit, what, err)
		}
	}
}

// local is the group as one node alone knows it.
func (n *Node) local(ctx context.Context) (client.GroupStatus, error) {
	st, err := n.Client.LocalStatus(ctx)
	if err != nil {
		return client.GroupStatus{}, err
	}
	g, ok := st.Group(group)
	if !ok {
		return g, errors.New("no group yet")
	}
	return g, nil
}

// Serving returns the nodes that say of themselves that they serve as primary now; the error says who did not answer.
func (l *Lab) Serving(ctx context.Context) (names []string, err error) {
	for _, name := range l.names {
		n := l.nodes[name]
		if !n.Answers() {
			continue
		}
		g, nerr := n.local(ctx)
		if nerr != nil {
			err = errors.Join(err, fmt.Errorf("node %s: %w", name, nerr))
		} else if g.Local.Serving {
			names = append(names, name)
		}
	}
	return names, err
}

// Primary waits until exactly one node, none of those excepted, serves, and returns it.
func (l *Lab) Primary(ctx context.Context, limit time.Duration, but ...string) (*Node, error) {
	var found string
	err := Await(ctx, "somebody serves", limit, func(ctx context.Context) error {
		names, err := l.Serving(ctx)
		for _, name := range names {
			if !slices.Contains(but, name) {
				found = name
				return nil
			}
		}
		return errors.Join(errors.New("nobody does"), err)
	})
	if err != nil {
		return nil, err
	}
	return l.nodes[found], nil
}

// Leader returns the node that leads Raft by what a living node knows; nil when nobody knows.
func (l *Lab) Leader(ctx context.Context) *Node {
	for _, name := range l.names {
		n := l.nodes[name]
		if !n.Answers() {
			continue
		}
		if st, err := n.Client.LocalStatus(ctx); err == nil && st.RaftLeader != "" {
			return l.nodes[st.RaftLeader]
		}
	}
	return nil
}

// syncLimit is how long a healed cluster may take until everybody is in sync.
const syncLimit = 60 * time.Second

// AwaitSync waits until the group is open, somebody serves, and every data node follows without lag.
func (l *Lab) AwaitSync(ctx context.Context) error {
	return Await(ctx, "every node is in sync", syncLimit, l.inSync)
}

func (l *Lab) inSync(ctx context.Context) error {
	serving, err := l.Serving(ctx)
	if len(serving) != 1 {
		return errors.Join(fmt.Errorf("serving: %v", serving), err, l.ended())
	}
	st, err := l.nodes[serving[0]].Client.Status(ctx)
	if err != nil {
		return err
	}
	for _, x := range st.Nodes {
		if x.State != "alive" {
			return fmt.Errorf("%s takes %s for %s", serving[0], x.ID, x.State)
		}
	}
	g, ok := st.Group(group)
	if !ok || g.Phase != "opened" || g.Stale || g.Operation != nil {
		return fmt.Errorf("group at %s: %s, stale %v, operation %+v", serving[0], g.Phase, g.Stale, g.Operation)
	}
	data := len(l.names)
	if l.options.Witness != "" {
		data--
	}
	if len(st.Nodes) != len(l.names) || len(g.Targets) != data-1 || len(g.InSync) < 1 {
		return fmt.Errorf("%d nodes, %d targets, in sync %v", len(st.Nodes), len(g.Targets), g.InSync)
	}
	for _, t := range g.Targets {
		if t.LagEntries != 0 || t.State == "connecting" || t.State == "none" || t.State == "catchup" {
			return fmt.Errorf("target %s is %s, %d entries behind: %s", t.Node, t.State, t.LagEntries, t.Error)
		}
	}
	for _, name := range l.names {
		if name == l.options.Witness || name == serving[0] {
			continue
		}
		own, err := l.nodes[name].local(ctx)
		if err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
		if !own.Local.Readable || own.Local.Error != "" || own.Local.Position != g.Position {
			return fmt.Errorf("copy of %s: at %s of %s, readable %v %s", name, own.Local.Position, g.Position, own.Local.Readable, own.Local.Error)
		}
	}
	return nil
}

// ended names the nodes whose process is not there.
func (l *Lab) ended() error {
	var errs []error
	for _, name := range l.names {
		if n := l.nodes[name]; !n.Running() {
			if p := n.current(); p != nil {
				errs = append(errs, fmt.Errorf("node %s ended with %s", name, p.how()))
			}
		}
	}
	return errors.Join(errs...)
}
