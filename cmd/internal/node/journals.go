package node

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

// journals answers for the journals and copies this node holds.
type journals struct{ n *Node }

// held returns this node's replica of a group; without one, what to tell the caller.
func (j journals) held(group string) (*replica.Replica, error) {
	if rep, err, ok := j.n.local.asked(group); ok {
		return rep, err
	}
	if _, _, err := j.n.group(group); err != nil {
		return nil, err
	}
	rep := j.n.replicas.get(ident.GroupName(group))
	if p, damaged := j.n.damages.of(ident.GroupName(group)); rep == nil && damaged {
		return nil, &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("group %s is closed on node %s, since a journal is damaged: %s", group, j.n.config.Node, p.Detail), Remedy: "start the other data nodes, whose copies complete it; ask another node meanwhile"}
	}
	if rep == nil {
		return nil, &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("node %s holds no copy of group %s", j.n.config.Node, group), Remedy: "ask a data node"}
	}
	return rep, nil
}

func (j journals) journal(group, node string) (*replica.Replica, *journal.Journal, error) {
	rep, err := j.held(group)
	if err != nil {
		return nil, nil, err
	}
	jr, ok := rep.Journal(ident.NodeID(node))
	if !ok {
		return nil, nil, &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("node %s holds no journal %s/%s", j.n.config.Node, group, node), Remedy: "GET /v1/groups/" + group + "/journals lists those it holds; another node may hold it"}
	}
	return rep, jr, nil
}

func (j journals) Journals(_ context.Context, group string) ([]client.Journal, error) {
	rep, err := j.held(group)
	if err != nil {
		return nil, err
	}
	s := rep.Status()
	out := []client.Journal{}
	for _, x := range s.Journals {
		kind := client.JournalRemote
		if x.Local {
			kind = client.JournalLocal
		}
		c := shownJournal(x, kind)
		if x.ID == s.Journal {
			c.Applied = uint64(s.AppliedSequence)
		}
		out = append(out, c)
	}
	if c, ok := replayed(rep); ok {
		out = append(out, c)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].ID < out[b].ID })
	return out, nil
}

// shownJournal describes a journal of a kind.
func shownJournal(x replica.JournalStatus, kind string) client.Journal {
	c := client.Journal{ID: x.ID.String(), Node: string(x.ID.Node), Kind: kind, State: string(x.State), First: uint64(x.View.First), Last: uint64(x.View.Last),
		Durable: uint64(x.View.Durable), Confirmed: uint64(x.View.Confirmed), Committed: uint64(x.View.Committed), Attached: uint32(x.View.Attached), Receivers: x.Receivers,
		Bytes: x.View.Bytes, Position: x.View.After.Format(HistoryOf(x.ID))}
	c.Spare, c.Limit, c.Free, c.Runway = x.Space.Spare, x.Space.Limit, x.Space.Free, runwaySeconds(runway(x))
	if x.Space.Full != nil {
		c.Full = replica.FullText(x.Space.Full, x.Kept)
	}
	if x.View.Err != nil {
		c.Error = x.View.Err.Error()
	}
	return c
}

func (j journals) Receivers(_ context.Context, group, node string) ([]client.Receiver, error) {
	if _, damaged := j.n.damages.of(ident.GroupName(group)); damaged {
		return j.closedReceivers(ident.GroupName(group), node)
	}
	_, jr, err := j.journal(group, node)
	if err != nil {
		return nil, err
	}
	out := []client.Receiver{}
	for _, r := range jr.Receivers() {
		out = append(out, receiver(jr.ID(), r))
	}
	return out, nil
}

func receiver(id ident.JournalID, r journal.ReceiverInfo) client.Receiver {
	c := client.Receiver{Journal: id.String(), Number: uint32(r.Number), Start: r.Start.Format(HistoryOf(id)), Chain: r.Chain.String(), Bytes: r.Bytes, Attached: r.Attached, Created: r.Created}
	if r.Last >= r.First {
		c.First, c.Last = uint64(r.First), uint64(r.Last)
	}
	return c
}

func (j journals) explain(jr *journal.Journal, err error) error {
	var damaged *journal.CorruptionError
	switch {
	case errors.As(err, &damaged) && jr.ID().Group == localGroup:
		return &client.Error{Code: client.CodeCorrupt, Detail: fmt.Sprintf("journal %s: %v", jr.ID(), err), Remedy: "no other node has a copy of local files; the records in the store are not affected"}
	case errors.As(err, &damaged):
		return &client.Error{Code: client.CodeCorrupt, Detail: fmt.Sprintf("journal %s: %v", jr.ID(), err), Remedy: "another node holds an identical copy, from which this one is repaired: understudy journal repair " + jr.ID().String()}
	case errors.Is(err, entry.ErrInvalid):
		return &client.Error{Code: client.CodeInvalid, Detail: err.Error()}
	case errors.Is(err, journal.ErrNotHeld):
		return &client.Error{Code: client.CodeNotFound, Detail: fmt.Sprintf("journal %s: %v", jr.ID(), err), Remedy: "list the receivers to see what is held"}
	}
	return err
}

func entryOf(history ident.GroupName, e *entry.Entry, confirmed bool) client.Entry {
	c := client.Entry{Sequence: uint64(e.Sequence), Code: string(rune(e.Code)), Type: string(e.Type[:]), Time: wallTime(e.Time), Transaction: uint64(e.Transaction),
		File: e.File, Key: client.MakeKey(e.Key), Before: image(history, e.Before), BeforeOmitted: e.BeforeOmitted, After: image(history, e.After), Data: e.Data, Confirmed: confirmed,
		BeforeBytes: imageBytes(e.Before), AfterBytes: imageBytes(e.After)}
	if !e.Position.IsZero() {
		c.Position = e.Position.Format(history)
	}
	return c
}

func image(history ident.GroupName, i *entry.Image) *client.Image {
	if i == nil {
		return nil
	}
	return &client.Image{Position: i.Position.Format(history), Time: wallTime(i.Time), Expiry: wallTime(i.Expiry), Kind: uint8(i.Kind), Value: i.Value}
}

func (j journals) ChangeReceiver(ctx context.Context, group string) (client.Receiver, error) {
	rep, err := j.held(group)
	if err != nil {
		return client.Receiver{}, err
	}
	info, err := rep.ChangeReceiver(ctx)
	if err != nil {
		return client.Receiver{}, j.n.explain(ident.GroupName(group), err)
	}
	return receiver(ident.JournalID{Group: ident.GroupName(group), Node: j.n.config.Node}, info), nil
}

func (j journals) DepositEntry(ctx context.Context, group, typ string, data []byte, o api.WriteOptions) (client.WriteResult, error) {
	rep, err, local := j.n.local.asked(group)
	if !local {
		_, _, err = j.n.group(group)
	}
	if err != nil {
		return client.WriteResult{}, err
	}
	if len(typ) != 2 || strings.ToUpper(typ) != typ || typ == "SW" || typ == "MK" || typ == "HB" {
		return client.WriteResult{}, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("%q is not a type for user entries", typ), Remedy: "use two upper-case letters or digits; SW, MK and HB are the product's own"}
	}
	name := ident.GroupName(group)
	if !local {
		rep = j.n.replicas.get(name)
	}
	if rep == nil {
		return client.WriteResult{}, j.n.elsewhere(name)
	}
	receipt, err := rep.DepositOnce(ctx, entry.Type{typ[0], typ[1]}, data, j.n.once(o))
	if err != nil {
		return client.WriteResult{}, repeatable(o, j.n.explainWrite(name, err))
	}
	return j.n.writeResult(name, receipt), nil
}

func (j journals) Backouts(_ context.Context, group string) ([]client.Backout, error) {
	rep, err := j.held(group)
	if err != nil {
		return nil, err
	}
	promotions := j.promotions(group)
	reports, err := rep.Backouts()
	if err != nil {
		return nil, err
	}
	out := []client.Backout{}
	for i := range reports {
		b := backout(&reports[i], promotions)
		b.Entries = nil
		out = append(out, b)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Time.After(out[b].Time) })
	return out, nil
}

func (j journals) Backout(_ context.Context, group, id string) (client.Backout, error) {
	rep, err := j.held(group)
	if err != nil {
		return client.Backout{}, err
	}
	b, err := rep.Backout(id)
	if errors.Is(err, replica.ErrNotFound) {
		return client.Backout{}, &client.Error{Code: client.CodeNotFound, Detail: fmt.Sprintf("node %s has no back-out report %q of group %s", j.n.config.Node, id, group),
			Remedy: "GET /v1/groups/" + group + "/backouts lists the reports of a node; each node has its own"}
	}
	if err != nil {
		return client.Backout{}, j.n.explain(ident.GroupName(group), err)
	}
	return backout(&b, j.promotions(group)), nil
}

func (j journals) Digest(ctx context.Context, group string) (client.Digest, error) {
	rep, err := j.held(group)
	if err != nil {
		return client.Digest{}, err
	}
	d, err := rep.Digest(ctx)
	if err != nil {
		return client.Digest{}, j.n.explain(ident.GroupName(group), err)
	}
	return client.Digest{Group: group, Node: string(j.n.config.Node), Position: j.n.position(ident.GroupName(group), d.Position), Files: uint64(d.Files), Records: uint64(d.Records), Bytes: uint64(d.Bytes), Sum: d.Sum}, nil
}

func (j journals) Verify(ctx context.Context, group, node string) error {
	_, jr, err := j.journal(group, node)
	if err != nil {
		return err
	}
	if err := jr.Verify(ctx); err != nil {
		return j.explain(jr, err)
	}
	return nil
}
