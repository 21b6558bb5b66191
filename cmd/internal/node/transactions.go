package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// How long idempotency keys are kept.
const (
	usualIdempotencyKeep  = 24 * time.Hour
	lowestIdempotencyKeep = time.Minute
	mostIdempotencyKeep   = 366 * 24 * time.Hour
)

// checkIdempotencyKeep says what is wrong with the time that keys are kept.
func checkIdempotencyKeep(d time.Duration) error {
	if d < lowestIdempotencyKeep || d > mostIdempotencyKeep {
		return fmt.Errorf("idempotency_keep: %s: want from %s to %s, and more than any client goes on repeating a write", d, lowestIdempotencyKeep, mostIdempotencyKeep)
	}
	return nil
}

// once is what the replica needs to do a request once; nil without a key.
func (n *Node) once(o api.WriteOptions) *replica.Once {
	if o.IdempotencyKey == "" {
		return nil
	}
	return &replica.Once{Key: o.IdempotencyKey, Request: o.Request, Keep: cmp.Or(n.config.IdempotencyKeep, usualIdempotencyKeep)}
}

// repeatable says of a write with a key what to do when its outcome is not known.
func repeatable(o api.WriteOptions, err error) error {
	var e *client.Error
	if o.IdempotencyKey != "" && errors.As(err, &e) && e.Code == client.CodeUnknownOutcome {
		e.Remedy = "repeat the same request with the same " + client.HeaderIdempotencyKey + ": it is done once"
	}
	return err
}

func (d data) Transact(ctx context.Context, t client.Transaction, o api.WriteOptions) (client.TransactionResult, error) {
	group, rep, err := d.groupOfAll(ctx, &t)
	if err != nil {
		return client.TransactionResult{}, err
	}
	tx := replica.Transaction{Once: d.n.once(o), Writes: make([]replica.Write, 0, len(t.Changes))}
	type place struct {
		in    string
		index int
	}
	var places []place // of the conditions
	condition := func(p place, file string, key []byte, absent, exists bool, at string) error {
		c, ok, err := d.n.conditionOf(group, file, key, absent, exists, at)
		if ok {
			tx.Conditions, places = append(tx.Conditions, c), append(places, p)
		}
		return err
	}
	for i := range t.Changes {
		c := &t.Changes[i]
		w := replica.Write{File: c.File, Key: c.Key.Bytes(), Value: c.Content(), Delete: c.Delete}
		if !c.Expiry.IsZero() {
			w.Expiry = c.Expiry.UnixNano()
		}
		tx.Writes = append(tx.Writes, w)
		if err := condition(place{"changes", i}, c.File, w.Key, c.IfAbsent, c.IfExists, c.IfPosition); err != nil {
			return client.TransactionResult{}, err
		}
	}
	for i := range t.Conditions {
		c := &t.Conditions[i]
		if err := condition(place{"conditions", i}, c.File, c.Key.Bytes(), c.IfAbsent, c.IfExists, c.IfPosition); err != nil {
			return client.TransactionResult{}, err
		}
	}
	if rep == nil {
		return client.TransactionResult{}, d.n.elsewhere(group)
	}
	receipt, err := rep.Write(ctx, tx)
	if err != nil {
		err = repeatable(o, d.n.explainWrite(group, err))
		var e *client.Error
		if errors.As(err, &e) && e.Failed != nil {
			p := places[e.Failed.Index]
			e.Failed.In, e.Failed.Index = p.in, p.index
			e.Detail = fmt.Sprintf("%s[%d]: %s", p.in, p.index, e.Detail)
		}
		return client.TransactionResult{}, err
	}
	r := d.n.writeResult(group, receipt)
	out := client.TransactionResult{Local: r.Local, Position: r.Position, Journal: r.Journal, Sequence: r.Sequence, Replayed: r.Replayed}
	for _, c := range receipt.Changes {
		out.Changes = append(out.Changes, client.ChangeResult{Created: c.Created, Found: c.Found})
	}
	if len(receipt.Changes) == 0 { // of a single change
		out.Changes = []client.ChangeResult{{Created: receipt.Created, Found: receipt.Found}}
	}
	for i := range out.Changes { // they are the last entries of one bundle, one for each
		before := len(out.Changes) - 1 - i
		at := receipt.Position
		at.History -= ident.History(before)
		out.Changes[i].Position = d.n.position(group, at)
		if r.Sequence > uint64(before) {
			out.Changes[i].Sequence = r.Sequence - uint64(before)
		}
	}
	return out, nil
}

// groupOfAll returns the group that all records of a transaction belong to, and this node's copy of it, nil when there is none.
func (d data) groupOfAll(ctx context.Context, t *client.Transaction) (ident.GroupName, *replica.Replica, error) {
	if _, _, local := d.n.local.asked(t.Group); t.Group != "" && !local {
		if _, _, err := d.n.group(t.Group); err != nil {
			return "", nil, err
		}
	}
	s := d.n.selection()
	var own *replica.Replica // of local files
	var group ident.GroupName
	var first string
	look := func(file string, key client.Key) error {
		name, ok := s.owner(file, key.Bytes())
		switch {
		case !ok:
			var err error
			if own, err = d.noOwner(ctx, s, file); err != nil {
				return err
			}
			name = localGroup
		}
		switch {
		case t.Group != "" && string(name) != t.Group:
			return &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("key %q of file %q belongs to %s, not to %s", key, file, owner(name), owner(ident.GroupName(t.Group))), Remedy: "a transaction is of one group, or of local files only: leave other records out, and send them a transaction of their own"}
		case group != "" && name != group:
			return &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("%s belongs to %s, key %q of file %q to %s", first, owner(group), key, file, owner(name)), Remedy: "a transaction is of one group, or of local files only: split it, or let one group select both records"}
		}
		if group == "" {
			group, first = name, fmt.Sprintf("key %q of file %q", key, file)
		}
		return nil
	}
	for i := range t.Changes {
		if err := look(t.Changes[i].File, t.Changes[i].Key); err != nil {
			return "", nil, err
		}
	}
	for i := range t.Conditions {
		if err := look(t.Conditions[i].File, t.Conditions[i].Key); err != nil {
			return "", nil, err
		}
	}
	if group == localGroup {
		return group, own, nil
	}
	return group, d.n.replicas.get(group), nil
}

// conditionOf turns what a write asks for into a condition of the replica; ok is false when it asks for nothing.
func (n *Node) conditionOf(group ident.GroupName, file string, key []byte, absent, exists bool, at string) (c replica.Condition, ok bool, err error) {
	c = replica.Condition{File: file, Key: key, Absent: absent}
	if at == "" {
		return c, absent || exists, nil
	}
	name, p, err := ident.ParsePosition(at)
	if err != nil {
		return c, false, &client.Error{Code: client.CodeInvalid, Detail: err.Error(), Remedy: "positions look like default@3.42"}
	}
	if group == localGroup {
		if err := n.local.owns(name, at); err != nil {
			return c, false, err
		}
	} else if name != "" && name != group {
		return c, false, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("position %s is of group %s, file %q belongs to group %s", at, name, file, group), Remedy: "take the position that the record was read with"}
	}
	c.Position, c.Unchanged = p, true
	return c, true, nil
}

// keyReused tells a caller over HTTP that another request had the idempotency key.
func keyReused(history ident.GroupName, err error) *client.Error {
	e := &client.Error{Code: client.CodeKeyReused, Detail: replica.ErrKeyReused.Error()}
	var other *replica.KeyReusedError
	if errors.As(err, &other) {
		e.Detail += ", which was done at " + other.Position.Format(history)
	}
	return e
}

// failedCondition tells a caller over HTTP which condition does not hold.
func failedCondition(history ident.GroupName, c *replica.ConditionError) *client.Error {
	f := &client.FailedCondition{Index: c.Index, File: c.File, Key: client.MakeKey(c.Key), Exists: c.Exists}
	e := &client.Error{Code: client.CodePrecondition, Failed: f, Replayed: c.Replayed, Remedy: "read the record again and decide anew"}
	if !c.Exists {
		e.Detail = fmt.Sprintf("record %q of file %q does not exist", f.Text, c.File)
		return e
	}
	f.Position = c.Position.Format(history)
	e.Detail = fmt.Sprintf("record %q of file %q exists, last changed at %s", f.Text, c.File, f.Position)
	return e
}
