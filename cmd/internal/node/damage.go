package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Bounds of the repair of a group whose journals do not open.
const (
	mendFirst = 200 * time.Millisecond // waited after an attempt that failed, twice as long each time
	mendLast  = 30 * time.Second       // at most
	mendTold  = 10 * time.Minute       // an event says so again that often
)

// damages are the groups of this node whose journals do not open. Such a group takes no part in anything: nothing is received,
// applied, answered or promised for it, until other nodes' copies have made it whole.
type damages struct {
	mu   sync.Mutex
	open map[ident.GroupName]client.RotPlace
}

func (d *damages) set(name ident.GroupName, p client.RotPlace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[ident.GroupName]client.RotPlace{}
	}
	d.open[name] = p
}

func (d *damages) clear(name ident.GroupName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, name)
}

func (d *damages) of(name ident.GroupName) (client.RotPlace, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.open[name]
	return p, ok
}

func (d *damages) all() (out []client.RotPlace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.open {
		out = append(out, p)
	}
	return out
}

// mend repairs the journals of a group that do not open, and opens it. It goes on until that has succeeded, or ctx ends.
func (r *replicas) mend(ctx context.Context, g *fsm.Group, why error) (*sessions, error) {
	n, name, spec := r.node, g.Spec.Name, g.Spec
	place := client.RotPlace{Journal: string(name), Kind: "closed", Detail: why.Error()}
	n.damages.set(name, place)
	n.scrub.count(&n.scrub.found, 1)
	n.events.add(client.SeverityError, string(name), "ROT_FOUND", "the group is not opened on this node, since a journal is damaged; other nodes are asked for what is missing", map[string]string{"error": why.Error()})
	var told time.Time
	for wait := mendFirst; ; wait = min(2*wait, mendLast) {
		done, err := r.mendAll(ctx, name, spec)
		if err == nil {
			var s *sessions
			if s, err = r.start(g); err == nil {
				n.damages.clear(name)
				n.scrub.count(&n.scrub.repaired, 1)
				for _, d := range done {
					n.repairedEvent(d, "was repaired before the journal was opened")
				}
				return s, nil
			}
			if !journal.Damaged(err) {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		place.Detail = err.Error()
		n.damages.set(name, place)
		if now := n.host.Clock.Now(); told.IsZero() && wait > time.Second || !told.IsZero() && now.Sub(told) > mendTold {
			told = now
			n.events.add(client.SeverityError, string(name), "ROT_STAYS", "the group stays closed on this node: start the other data nodes; this is tried again by itself", map[string]string{"error": err.Error()})
		}
		n.log.Warn("damaged journal not repaired yet", "group", string(name), "error", err, "again", wait)
		select {
		case <-time.After(wait):
		case <-n.mendNow:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// mendAll repairs every journal of the group on this node's disk.
func (r *replicas) mendAll(ctx context.Context, name ident.GroupName, spec fsm.GroupSpec) ([]journal.Repaired, error) {
	authors, err := r.authors(name)
	if err != nil {
		return nil, err
	}
	var all []journal.Repaired
	for _, author := range authors {
		o := r.closed(name, author)
		o.ReceiverBytes = spec.ReceiverBytes
		done, err := journal.Mend(ctx, o, author == r.node.config.Node, r.node.twins(o.ID), nil)
		if all = append(all, done...); err != nil {
			return all, err
		}
	}
	return all, nil
}

// authors lists the nodes whose journals of the group stand on this node's disk.
func (r *replicas) authors(name ident.GroupName) ([]ident.NodeID, error) {
	dir := r.fs.PathJoin(r.node.config.Data, "journals", string(name))
	names, err := r.fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list journals of group %s: %w", name, err)
	}
	var out []ident.NodeID
	for _, author := range names {
		if info, err := r.fs.Stat(r.fs.PathJoin(dir, author)); err == nil && info.IsDir() {
			out = append(out, ident.NodeID(author))
		}
	}
	return out, nil
}

// closed says where a journal is that is not open.
func (r *replicas) closed(name ident.GroupName, author ident.NodeID) journal.Options {
	return journal.Options{
		FS: r.fs, Dir: r.fs.PathJoin(r.node.config.Data, "journals", string(name), string(author)), ID: ident.JournalID{Group: name, Node: author},
		Cluster: r.node.directory.ClusterID(), Host: r.node.host, Logger: r.node.log,
	}
}

// repairedEvent tells of a repair.
func (n *Node) repairedEvent(d journal.Repaired, what string) {
	severity := client.SeverityInfo
	fields := map[string]string{"journal": d.Journal.String(), "receiver": d.Receiver.String(), "bytes": fmt.Sprint(d.Bytes)}
	if len(d.From) > 0 {
		fields["from"] = fmt.Sprint(d.From)
	}
	if d.Kept != "" {
		fields["kept"] = d.Kept
	}
	text := fmt.Sprintf("receiver %s of journal %s %s", d.Receiver, d.Journal, what)
	if d.Receiver == 0 {
		text = fmt.Sprintf("the state file of journal %s %s", d.Journal, what)
	}
	if d.Torn {
		severity = client.SeverityWarning
		text += "; its end came from another node, so this one is not promoted before it was compared"
	}
	n.events.add(severity, string(d.Journal.Group), "ROT_REPAIRED", text, fields)
}
