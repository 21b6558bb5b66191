package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

// data answers for records: it finds the group of a record and asks this node's replica.
type data struct{ n *Node }

// replicaOf returns the replica of the record's group; when this node has none, where to go instead. What no group selects is in the
// replica of local files.
func (d data) replicaOf(ctx context.Context, file string, key []byte) (ident.GroupName, *replica.Replica, error) {
	s := d.n.selection()
	name, ok := s.owner(file, key)
	if !ok {
		rep, err := d.noOwner(ctx, s, file)
		return localGroup, rep, err
	}
	rep := d.n.replicas.get(name)
	if rep == nil {
		return name, nil, d.n.elsewhere(name)
	}
	return name, rep, nil
}

// noGroup says that no group has a file, or not this key of it: claimed tells that groups have others.
func (d data) noGroup(st *fsm.State, file string, claimed bool) error {
	if len(st.Groups) == 0 {
		return &client.Error{Code: client.CodeUnavailable, Detail: "the cluster has no group yet", Remedy: "wait until the bootstrapping node has created it, or create one with POST /v1/groups"}
	}
	if claimed {
		return &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("groups select other keys of file %q, but none this one", file),
			Remedy: "correct the key, or add a group whose keys hold it (POST /v1/groups)"}
	}
	e := &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("no group selects file %q", file),
		Remedy: "correct the name, or add a group whose patterns match it (POST /v1/groups; \"*\" leaves out what begins with local. and system.), or let nodes keep such files for themselves (local_files: true)"}
	if d.n.config.Kind == fsm.KindWitness {
		e.Detail += fmt.Sprintf(", and node %s is a witness, which keeps no files for itself", d.n.config.Node)
		e.Remedy = "ask a data node, or add a group whose patterns match it (POST /v1/groups)"
	}
	return e
}

func (d data) Put(ctx context.Context, file string, key, value []byte, o api.WriteOptions) (client.WriteResult, error) {
	record := replica.Write{File: file, Key: key, Value: value}
	if !o.Expiry.IsZero() {
		record.Expiry = o.Expiry.UnixNano()
	}
	w, _, err := d.write(ctx, record, o)
	return w, err
}

func (d data) Delete(ctx context.Context, file string, key []byte, o api.WriteOptions) (client.WriteResult, error) {
	w, found, err := d.write(ctx, replica.Write{File: file, Key: key, Delete: true}, o)
	if err == nil && !found {
		return w, &client.Error{Code: client.CodeNotFound, Detail: "there was no such record to delete", Replayed: w.Replayed}
	}
	return w, err
}

// write does one write; found tells whether the record existed before.
func (d data) write(ctx context.Context, w replica.Write, o api.WriteOptions) (_ client.WriteResult, found bool, _ error) {
	group, rep, err := d.ownerOf(ctx, w.File, w.Key, o.Group)
	if err != nil {
		return client.WriteResult{}, false, err
	}
	t := replica.Transaction{Writes: []replica.Write{w}, Once: d.n.once(o)}
	if c, ok, err := d.n.conditionOf(group, w.File, w.Key, o.IfAbsent, o.IfExists, o.IfPosition); err != nil {
		return client.WriteResult{}, false, err
	} else if ok {
		t.Conditions = []replica.Condition{c}
	}
	receipt, err := rep.Write(ctx, t)
	if err != nil {
		return client.WriteResult{}, false, repeatable(o, d.n.explainWrite(group, err))
	}
	if o.Group != "" {
		d.n.local.lookAgain()
	}
	return d.n.writeResult(group, receipt), receipt.Found, nil
}

// Receipt tells what has become of the write at a position.
func (d data) Receipt(ctx context.Context, group ident.GroupName, at ident.Position, wait time.Duration) (client.Receipt, error) {
	if group == localGroup || strings.HasPrefix(string(group), string(localGroup.Of(""))) {
		if err := d.n.local.owns(group, at.Format(group)); err != nil {
			return client.Receipt{}, err
		}
		group = localGroup
	}
	rep, err, ok := d.n.local.asked(string(group))
	if !ok && group == localGroup {
		err = d.n.local.none()
	} else if !ok {
		if _, _, err := d.n.group(string(group)); err != nil {
			return client.Receipt{}, err
		}
		rep = d.n.replicas.get(group)
	}
	if err != nil {
		return client.Receipt{}, err
	}
	if rep == nil {
		return client.Receipt{}, d.n.elsewhere(group)
	}
	s, err := rep.Settle(ctx, at, wait)
	if err != nil {
		return client.Receipt{}, d.n.explain(group, err)
	}
	return client.Receipt{Position: d.n.position(group, at), Outcome: string(s.Outcome), Committed: d.n.position(group, s.Committed), Epoch: uint64(s.Epoch), Node: string(d.n.config.Node)}, nil
}

func (n *Node) writeResult(group ident.GroupName, r replica.Receipt) client.WriteResult {
	return client.WriteResult{Local: n.mark(group), Position: n.position(group, r.Position), Journal: r.Journal.String(), Sequence: uint64(r.Sequence), Created: r.Created, Replayed: r.Replayed}
}

func (d data) Get(ctx context.Context, file string, key []byte, o client.ReadOptions) (client.Record, error) {
	group, rep, err := d.ownerOf(ctx, file, key, o.Group)
	if err != nil {
		return client.Record{}, err
	}
	o.Local = d.n.local.reads(group, o.Local)
	copied := o.Local && group != localGroup
	age := d.n.ageing(rep, copied)
	if err := tooOld(age(), o.MaxLag); err != nil {
		return client.Record{}, err
	}
	image, at, err := rep.Read(ctx, file, key, o.Local)
	if err != nil && !(copied && errors.Is(err, replica.ErrNotFound)) {
		return client.Record{}, d.n.explain(group, err)
	}
	old := age()
	if late := tooOld(old, o.MaxLag); late != nil {
		return client.Record{}, late
	}
	if err != nil {
		var e *client.Error
		if err = d.n.explain(group, err); errors.As(err, &e) {
			e.Applied, e.Age = d.n.position(group, at), old
		}
		return client.Record{}, err
	}
	r := record(d.n.history(group), file, key, image)
	r.Node, r.Local, r.Applied, r.Age = string(d.n.config.Node), d.n.mark(group), d.n.position(group, at), old
	return r, nil
}

func record(history ident.GroupName, file string, key []byte, image entry.Image) client.Record {
	return client.Record{File: file, Key: client.MakeKey(key), Value: image.Value, Position: image.Position.Format(history), Time: wallTime(image.Time), Expiry: wallTime(image.Expiry), Kind: uint8(image.Kind)}
}

// wallTime turns Unix nanoseconds into a time; 0 is the zero time.
func wallTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// ageing tells, each time it is asked, how old by then what is read from now on may be. This copy may become level between the look and
// the answer, and the node may stand still there: neither makes what was seen newer.
func (n *Node) ageing(rep *replica.Replica, local bool) func() float64 {
	if !local {
		return func() float64 { return 0 }
	}
	before, began := n.age(rep, true), time.Now()
	return func() float64 { return aged(before, n.age(rep, true), time.Since(began)) }
}

// aged is the age of what was read from a copy, of the copy's age before the look and after it; below zero: not known.
func aged(before, after float64, between time.Duration) float64 {
	if before < 0 || after < 0 {
		return -1
	}
	return max(after, before+between.Seconds())
}

// tooOld judges an age in seconds, which is below zero when it is not known.
func tooOld(age float64, limit time.Duration) error {
	detail := fmt.Sprintf("this copy is %.3f s old, at most %s is wanted", age, limit)
	switch {
	case limit <= 0, age >= 0 && age <= limit.Seconds():
		return nil
	case age < 0:
		detail = fmt.Sprintf("how old this copy is is not known, at most %s is wanted", limit)
	}
	return &client.Error{Code: client.CodeStale, Detail: detail, Remedy: "read without local=true, or allow a larger max_lag"}
}

// age tells how old this node's copy may be, in seconds; 0 when the primary's answer is asked for.
func (n *Node) age(rep *replica.Replica, local bool) float64 {
	if !local {
		return 0
	}
	s := rep.Status()
	return n.leases.copyLag(s, n.cluster.CheckLease(s.Group, s.Epoch))
}

// elsewhere names the primary of a group as far as it is known here.
func (n *Node) elsewhere(group ident.GroupName) *api.Elsewhere {
	st, _ := n.cluster.State()
	g := st.Groups[group]
	if g == nil || g.Phase != fsm.PhaseOpened {
		return &api.Elsewhere{}
	}
	if g.Primary == n.config.Node {
		return &api.Elsewhere{Retry: true}
	}
	if p := st.Nodes[g.Primary]; p != nil {
		return &api.Elsewhere{HTTP: p.Addresses.HTTP}
	}
	return &api.Elsewhere{}
}

// explainWrite is explain for a write: an error that does not say that surely nothing was done leaves the outcome unknown.
func (n *Node) explainWrite(group ident.GroupName, err error) error {
	if replica.NotDone(err) {
		return n.explain(group, err)
	}
	if group == localGroup {
		return n.local.unknownOutcome(err)
	}
	e := &client.Error{Code: client.CodeUnknownOutcome, Detail: "the write was journaled, but it is not confirmed: the primary lost its role or its secondaries, or the time for the request was over",
		Reason: err.Error(), Remedy: "read the record to see whether it was done"}
	var unknown *replica.UnknownOutcomeError
	if errors.As(err, &unknown) {
		e.Position = unknown.Position.Format(group)
		e.Remedy = "ask GET /v1/receipts/" + e.Position + " whether it was done, before you repeat it"
	}
	return e
}

// explain turns an error of the replica into what a caller over HTTP is told.
func (n *Node) explain(group ident.GroupName, err error) error {
	var stale *replica.StaleError
	var condition *replica.ConditionError
	if group == localGroup {
		if told := n.local.explain(err); told != nil {
			return told
		}
	}
	switch {
	case errors.Is(err, replica.ErrNotPrimary), errors.Is(err, replica.ErrNoLease):
		return n.elsewhere(group)
	case errors.Is(err, replica.ErrNotOwned), errors.Is(err, replica.ErrClosing):
		return &api.Elsewhere{Retry: true} // who asks again asks the group that owns it now
	case errors.Is(err, replica.ErrNotFound):
		return &client.Error{Code: client.CodeNotFound, Detail: "no such record", Remedy: "GET /v1/files/FILE/records lists the keys of a file"}
	case errors.Is(err, replica.ErrForgotten):
		return &client.Error{Code: client.CodeGone, Detail: "the write is of an epoch that is not kept in the history any more: whether it was done cannot be said", Remedy: "read what it should have changed"}
	case errors.Is(err, replica.ErrNoSync):
		return &client.Error{Code: client.CodeNoSync, Detail: fmt.Sprintf("group %s has no in-sync secondary and on_no_sync does not allow writes without one", group),
			Remedy: "start a second data node and wait until it is in sync"}
	case errors.Is(err, replica.ErrJournalFull):
		return &client.Error{Code: client.CodeJournalFull, Detail: fmt.Sprintf("the journal of group %s at its primary %s takes nothing now", group, n.config.Node), Reason: fullReason(err), Remedy: n.fullRemedy(group, err)}
	case errors.Is(err, replica.ErrQueueFull):
		return &client.Error{Code: client.CodeUnavailable, Detail: "the primary's queue is full", Remedy: "send again later, or slower"}
	case errors.Is(err, replica.ErrNotReconciled):
		return &client.Error{Code: client.CodeUnavailable, Detail: "this node's copy is not level with the history yet", Remedy: "read from the primary (without local=true), or wait"}
	case errors.Is(err, replica.ErrNeedsPriming):
		return &client.Error{Code: client.CodeUnavailable, Detail: "this node's copy cannot be brought level by the journals: a receiver or a before-image it needs is gone", Remedy: "read from another node; take this one out, and start a node with an empty data directory and a new `node` id"}
	case errors.Is(err, replica.ErrTooLarge):
		return &client.Error{Code: client.CodeTooLarge, Detail: err.Error(), Remedy: "split the record or the transaction"}
	case errors.Is(err, replica.ErrInvalid):
		return &client.Error{Code: client.CodeInvalid, Detail: err.Error()}
	case errors.As(err, &condition):
		return failedCondition(n.history(group), condition)
	case errors.Is(err, replica.ErrKeyReused):
		return keyReused(n.history(group), err)
	case errors.Is(err, replica.ErrCondition):
		return &client.Error{Code: client.CodePrecondition, Detail: err.Error()}
	case errors.Is(err, replica.ErrClosed), errors.Is(err, replica.ErrNotAttached):
		return &client.Error{Code: client.CodeUnavailable, Detail: "this node is starting or stopping", Remedy: "send the request to another node, or again"}
	case errors.As(err, &stale):
		return &client.Error{Code: client.CodeStale, Detail: err.Error()}
	case errors.Is(err, replica.ErrNotSequenced), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &client.Error{Code: client.CodeUnavailable, Detail: "the request's time was over before it could be taken", Reason: err.Error(), Remedy: "send it again, or with a longer ?wait="}
	}
	return err
}
