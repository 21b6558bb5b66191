package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Content opens a receiver for other nodes and for people. Of a group that is closed here for its damage the files are given out as
// they are: two damaged nodes can make each other whole, since nobody believes such bytes without a check.
func (j journals) Content(_ context.Context, group, node string, number uint32) (api.ReceiverContent, error) {
	name, n := ident.GroupName(group), ident.ReceiverNumber(number)
	var c *journal.Content
	var err error
	if _, damaged := j.n.damages.of(name); damaged {
		if err := j.holds(name, node); err != nil {
			return nil, err
		}
		c, err = journal.ClosedContent(j.n.replicas.closed(name, ident.NodeID(node)), n)
	} else {
		_, jr, jerr := j.journal(group, node)
		if jerr != nil {
			return nil, jerr
		}
		if c, err = jr.Content(n); err != nil {
			err = j.explain(jr, err)
		}
	}
	if errors.Is(err, journal.ErrNotHeld) {
		return nil, &client.Error{Code: client.CodeNotFound, Detail: err.Error(), Remedy: "list the receivers to see what is held"}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// holds refuses a journal that does not stand on this node's disk; the name comes from a path and must not lead elsewhere.
func (j journals) holds(name ident.GroupName, node string) error {
	authors, err := j.n.replicas.authors(name)
	if err == nil && !slices.Contains(authors, ident.NodeID(node)) {
		err = &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("node %s holds no journal %s/%s", j.n.config.Node, name, node), Remedy: "ask another data node"}
	}
	return err
}

// closedReceivers lists the receivers of a journal of a group that is closed here for its damage.
func (j journals) closedReceivers(name ident.GroupName, node string) ([]client.Receiver, error) {
	if err := j.holds(name, node); err != nil {
		return nil, err
	}
	o := j.n.replicas.closed(name, ident.NodeID(node))
	all, err := journal.ClosedReceivers(o)
	if err != nil {
		return nil, err
	}
	out := []client.Receiver{}
	for _, r := range all {
		out = append(out, receiver(o.ID, r))
	}
	return out, nil
}

func (j journals) Repair(ctx context.Context, group, node string) (client.Repair, error) {
	name := ident.GroupName(group)
	if p, damaged := j.n.damages.of(name); damaged {
		select {
		case j.n.mendNow <- struct{}{}: // it is tried at once
		default:
		}
		return client.Repair{Journal: group + "/" + node, Rot: []client.RotPlace{p}}, nil
	}
	_, jr, err := j.journal(group, node)
	if err != nil {
		return client.Repair{}, err
	}
	out := client.Repair{Journal: jr.ID().String(), OK: true, Rot: []client.RotPlace{}}
	for _, r := range append(jr.Receivers(), journal.ReceiverInfo{}) { // the last one stands for the state file
		p, err := j.n.scrub.check(ctx, jr, r.Number, nil)
		if err != nil {
			return out, j.explain(jr, err)
		}
		if r.Number != 0 {
			out.Receivers++
		}
		if p != nil {
			out.Rot = append(out.Rot, *p)
			out.OK = out.OK && p.Repaired
		}
	}
	return out, nil
}
