package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Archived lists what is archived of a group's journals.
func (j journals) Archived(ctx context.Context, group string, q client.ArchiveQuery) (client.ArchivePage, error) {
	if _, _, err := j.n.group(group); err != nil {
		return client.ArchivePage{}, err
	}
	a := j.n.archiver
	if a == nil {
		return client.ArchivePage{}, &client.Error{Code: client.CodeUnsupported, Detail: fmt.Sprintf("node %s has no archive", j.n.config.Node), Remedy: "set archive.url, or ask a node that has it set"}
	}
	var after archive.Name
	if q.After != "" {
		var ok bool
		if after, ok = archive.ParseName(q.After); !ok {
			return client.ArchivePage{}, &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("after=%.100s is no name of an archived receiver", q.After), Remedy: "go on with next of the page before"}
		}
	}
	id := ident.JournalID{Group: ident.GroupName(group), Node: ident.NodeID(q.Node)}
	all, err := a.to.Objects(ctx, j.n.directory.ClusterID(), id)
	if err != nil {
		return client.ArchivePage{}, silentStorage(err)
	}
	if q.After != "" {
		all = slices.DeleteFunc(all, func(o archive.Object) bool { return !after.Before(o.Name) })
	}
	p := client.ArchivePage{URL: archive.Shown(j.n.config.Archive.URL)}
	more := len(all) > q.Limit
	ends := j.n.startsHere(id.Group)
	for i, o := range all[:min(len(all), q.Limit)] {
		x := client.ArchivedReceiver{Journal: o.Name.Journal.String(), Receiver: uint32(o.Name.Number), First: uint64(o.Name.First), Last: uint64(o.Name.Last),
			Chain: o.Name.Chain.String(), Name: o.Name.String(), Bytes: o.Bytes, Written: o.Written, Verified: a.Holds(o.Name)}
		var damaged *archive.DamagedError
		switch h, err := a.to.Header(ctx, o.Name); {
		case errors.As(err, &damaged):
			x.Damaged = damaged.Err.Error()
		case err != nil:
			return client.ArchivePage{}, silentStorage(err)
		default:
			x.Start = h.Start.Format(id.Group)
			for k := i - 1; k >= 0 && all[k].Name.Journal == h.ID && all[k].Name.Number+1 >= h.Number; k-- { // those before it, mostly one
				if all[k].Name.Number+1 == h.Number && all[k].Name.Chain == h.Chain {
					p.Items[k].End = x.Start
				}
			}
		}
		if at, ok := ends[followed{o.Name.Journal, o.Name.Number + 1, o.Name.Chain}]; ok {
			x.End = at.Format(id.Group)
		}
		p.Items = append(p.Items, x)
		if more {
			p.Next = x.Name
		}
	}
	return p, nil
}

// followed names a receiver by the chain that it begins with.
type followed struct {
	journal ident.JournalID
	number  ident.ReceiverNumber
	chain   ident.Chain
}

// startsHere says where in the history the receivers begin that this node holds.
func (n *Node) startsHere(group ident.GroupName) map[followed]ident.Position {
	out := map[followed]ident.Position{}
	if rep := n.replicas.get(group); rep != nil {
		for _, j := range rep.Journals() {
			for _, r := range j.Receivers() {
				out[followed{j.ID(), r.Number, r.Chain}] = r.Start
			}
		}
	}
	return out
}

func silentStorage(err error) error {
	return &client.Error{Code: client.CodeUnavailable, Detail: "the archive does not answer as it should", Reason: err.Error(), Remedy: "check the storage and the way to it; the node goes on by itself. See the event ARCHIVE_FAILED"}
}

// ofGroup is what the status of a group shows; nil without an archive.
func (a *archiver) ofGroup(group ident.GroupName) *client.ArchiveStatus {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &client.ArchiveStatus{URL: archive.Shown(a.node.config.Archive.URL), Pending: a.pending[group], Newest: map[string]uint32{}, Failure: a.failure,
		Failed: a.failedAt, Failures: a.failed.Load(), Succeeded: a.wellAt}
	for id, number := range a.newest {
		if id.Group == group {
			out.Newest[id.String()] = uint32(number)
		}
	}
	return out
}

// replaysOf is what the status of a group shows of the journal of replays; nil when there is none.
func (n *Node) replaysOf(group ident.GroupName) *client.Journal {
	if rep := n.replicas.get(group); rep != nil {
		if j, ok := replayed(rep); ok {
			return &j
		}
	}
	return nil
}
