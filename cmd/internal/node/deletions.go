package node

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// DeleteGroup deletes a group without records, or says what keeps it from that. It answers at the group's primary, which knows its store.
func (r roles) DeleteGroup(ctx context.Context, name string, dryRun bool, by string) (client.GroupDeletion, error) {
	st, g, err := r.n.group(name)
	if err != nil {
		return client.GroupDeletion{}, err
	}
	if g.Phase == fsm.PhaseOpened && g.Primary != r.n.config.Node {
		return client.GroupDeletion{}, r.n.elsewhere(g.Spec.Name)
	}
	out, err := r.n.deletable(ctx, st, g)
	if err != nil || dryRun {
		return out, err
	}
	if len(out.Blockers) > 0 {
		return client.GroupDeletion{}, refusedDeletion(out)
	}
	return r.n.deleteGroup(ctx, g, by, out)
}

// deletable says what a deletion would find.
func (n *Node) deletable(ctx context.Context, st *fsm.State, g *fsm.Group) (client.GroupDeletion, error) {
	name := g.Spec.Name
	out := client.GroupDeletion{Group: string(name), Epoch: uint64(g.Epoch), Blockers: []client.DeletionBlocker{}}
	for _, b := range st.Blockers(g) {
		out.Blockers = append(out.Blockers, client.DeletionBlocker{Code: b.Refused, Text: b.Text})
	}
	rep := n.replicas.get(name)
	switch {
	case g.Phase != fsm.PhaseOpened:
	case rep == nil || n.cluster.CheckLease(name, g.Epoch) != nil:
		out.Blockers = append(out.Blockers, client.DeletionBlocker{Code: fsm.RefusedEpoch, Text: fmt.Sprintf("its primary %s has no valid lease now: wait until it has one", g.Primary)})
	default:
		held, err := rep.FirstHeld()
		if err == nil && held != nil {
			out.File, out.Key = held.File, client.MakeKey(held.Key).Text
			var records int64
			if records, err = n.counts.count(ctx, name, rep); err == nil {
				out.Records = uint64(records)
				text := fmt.Sprintf("%s (records: %d; one that has expired counts until its deletion is journaled): delete them, or copy them elsewhere", heldText(name, held), records)
				out.Blockers = append(out.Blockers, client.DeletionBlocker{Code: blockedByRecords, Text: text})
			}
		}
		if err != nil {
			return out, n.explain(name, err)
		}
	}
	out.Note = afterDeletion(st, g)
	return out, nil
}

// blockedByRecords is the code of a blocker that only the group's primary knows.
const blockedByRecords = "records"

// afterDeletion says what becomes of what the group selects.
func afterDeletion(st *fsm.State, g *fsm.Group) string {
	text := fmt.Sprintf("the name %s is never used again; its journals, copies and history go with it on every node, also on those that are away", g.Spec.Name)
	for _, other := range st.Selecting() {
		if _, may := fsm.Meet(other, &g.Spec); may && other.Name != g.Spec.Name && other.TakesAll() {
			return text + fmt.Sprintf("; what it selects belongs to group %s from then on", other.Name)
		}
	}
	return text + "; no other group takes all that it selects: such files are refused from then on, or local to each node where local_files is on"
}

// refusedDeletion is what a request hears that cannot be done now.
func refusedDeletion(d client.GroupDeletion) error {
	e := &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s cannot be deleted now", d.Group), Remedy: "see the checks that failed, and ask again; nothing has changed"}
	for _, b := range d.Blockers {
		switch b.Code {
		case blockedByRecords:
			e.Code = client.CodeExists
		case fsm.RefusedBusy:
			if e.Code == client.CodePrecondition {
				e.Code = client.CodeBusy
			}
		}
		e.Detail += fmt.Sprintf("; %s", b.Text)
		e.Checks = append(e.Checks, client.Check{Name: b.Code, Detail: b.Text})
	}
	return e
}

// deleteGroup closes a group and waits until its primary, this node, has answered.
func (n *Node) deleteGroup(ctx context.Context, g *fsm.Group, by string, out client.GroupDeletion) (client.GroupDeletion, error) {
	name := g.Spec.Name
	ctx, cancel := context.WithTimeout(ctx, fsm.AnswerTime)
	defer cancel()
	res, err := n.propose(ctx, fsm.Command{CloseGroup: &fsm.CloseGroup{Group: name, Epoch: g.Epoch, By: by}})
	if err != nil {
		return client.GroupDeletion{}, err
	}
	for {
		st, changed := n.cluster.State()
		if gone, ok := st.Retirement(name); ok {
			at := gone.At
			out.Deleted, out.At = true, &at
			return out, nil
		}
		if now := st.Groups[name]; now == nil || now.Closing == nil || now.Closing.ID != res.Operation {
			return client.GroupDeletion{}, keptError(name, st.WhyDeclined(res.Operation))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return n.stayOpen(ctx, name, res.Operation, out)
		}
	}
}

func keptError(name ident.GroupName, why string) error {
	if why == "" {
		why = "its deletion was given up"
	}
	return &client.Error{Code: client.CodeExists, Detail: fmt.Sprintf("group %s was not deleted: %s", name, why),
		Remedy: "the group goes on as before; delete the records, or copy them elsewhere, wait until the group has a primary, and ask again"}
}

// stayOpen gives a deletion up that was not answered in time.
func (n *Node) stayOpen(ctx context.Context, name ident.GroupName, id uint64, out client.GroupDeletion) (client.GroupDeletion, error) {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpLimit)
	defer cancel()
	_, err := n.propose(ctx, fsm.Command{DropClosing: &fsm.DropClosing{Closing: id, Group: name, Reason: "no answer in time"}})
	st, _ := n.cluster.State()
	if gone, ok := st.Retirement(name); ok { // at the last moment
		out.Deleted, out.At = true, &gone.At
		return out, nil
	}
	if now := st.Groups[name]; err != nil && (now == nil || now.Closing != nil && now.Closing.ID == id) {
		return client.GroupDeletion{}, &client.Error{Code: client.CodeUnknownOutcome, Detail: fmt.Sprintf("group %s is being deleted, and its primary has yet to say whether it holds records", name),
			Reason: err.Error(), Remedy: "GET /v1/groups tells what became of it; without an answer it goes on as before in a moment"}
	}
	return client.GroupDeletion{}, &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("group %s was not deleted: its primary did not say in time whether it holds records", name),
		Reason: cause.Error(), Remedy: "the group goes on as before; wait until its writes are acknowledged again, and ask again"}
}

// deletionChanges compares which groups are being deleted, and which there were.
type deletionChanges map[ident.GroupName]*fsm.Closing

func (d deletionChanges) see(n *Node, st *fsm.State, first bool) {
	for name, was := range d {
		if st.Groups[name] != nil {
			continue
		}
		delete(d, name)
		gone, ok := st.Retirement(name)
		if first || !ok {
			continue
		}
		by := ""
		if was != nil {
			by = was.By
		}
		n.events.add(client.SeverityInfo, string(name), "GROUP_DELETED", "the group was deleted: it held no records, and its name is never used again",
			map[string]string{"epoch": gone.Epoch.String(), "by": by, "at": gone.At.Format(time.RFC3339)})
	}
	for name, g := range st.Groups {
		was, is := d[name], g.Closing
		d[name] = is
		if first || was == is || was != nil && is != nil && was.ID == is.ID {
			continue
		}
		if was != nil {
			why := st.WhyDeclined(was.ID)
			if why == "" {
				why = "not known"
			}
			n.events.add(client.SeverityWarning, string(name), "GROUP_KEPT", "the group is not deleted and goes on: "+why, map[string]string{"by": was.By})
		}
		if is != nil {
			n.events.add(client.SeverityInfo, string(name), "GROUP_CLOSING", "the group is to be deleted: its primary takes no write until it has looked for records", map[string]string{"by": is.By})
		}
	}
}
