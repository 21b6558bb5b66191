package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote"
	"github.com/understudy-ha/understudy/journal/remote/wire"
	"github.com/understudy-ha/understudy/replica"
)

// replicas are this node's copies of the groups: opened when a group appears, closed with the node.
type replicas struct {
	node *Node
	fs   vfs.FS

	mu   sync.RWMutex
	open map[ident.GroupName]*replica.Replica
}

func newReplicas(n *Node, fs vfs.FS) *replicas {
	return &replicas{node: n, fs: fs, open: map[ident.GroupName]*replica.Replica{}}
}

// run opens a replica for every group the cluster has and holds its role sessions, until ctx ends. A fatal error of one
// group is fatal for the node.
func (r *replicas) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	var once sync.Once
	var fatal error
	if r.node.config.Kind != fsm.KindData {
		<-ctx.Done()
		return nil
	}
	p := newParts(r)
	if fatal = p.recover(); fatal != nil {
		return fatal
	}
	for {
		st, changed := r.node.cluster.State()
		for _, g := range p.retired(st) {
			sessions.Go(func() { p.remove(ctx, g) })
		}
		for _, g := range toStart(st, p.begun()) {
			name := g.Spec.Name
			own, end := context.WithCancelCause(ctx)
			ended := p.begin(name, end)
			s, err := r.start(g)
			if err != nil && !journal.Damaged(err) {
				ended()
				cancel(err)
				return err
			}
			sessions.Go(func() {
				defer ended()
				if err != nil {
					if s, err = r.mend(own, g, err); err != nil {
						if own.Err() == nil {
							once.Do(func() { fatal = err })
							cancel(err)
						}
						return
					}
				}
				if err := s.run(own); err != nil {
					once.Do(func() { fatal = err })
					cancel(err)
				}
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			sessions.Wait()
			return fatal
		}
	}
}

// toStart lists the groups without a replica, in the order in which they start: each is recovered before the next one, and its role
// session begins first.
func toStart(st *fsm.State, started map[ident.GroupName]bool) []*fsm.Group {
	return slices.DeleteFunc(st.InOrder(), func(g *fsm.Group) bool { return started[g.Spec.Name] })
}

func (r *replicas) start(g *fsm.Group) (*sessions, error) {
	n, name, spec := r.node, g.Spec.Name, g.Spec
	log := n.log.With("group", string(name))
	var kept replica.Archive // a nil *archiver in it would not be nil
	if n.archiver != nil {
		kept = n.archiver
	}
	rep, err := replica.Open(replica.Options{
		Archive: kept, KeepLocal: n.config.Archive.KeepLocal,
		Cluster: n.directory.ClusterID(), Node: n.config.Node, Protocol: n.protocol, Group: name, FS: r.fs, Dir: n.config.Data, Store: n.store,
		Host: n.host, Logger: log, Life: n.directory.life, ReceiverBytes: spec.ReceiverBytes, Network: n.host.Network,
		Timing: replica.Timing{ShrinkAfter: n.config.Timing.ShrinkAfter}, Events: n.replicaEvent,
		Replays: replica.ReplaysKept{Bytes: int64(n.config.Replays.Bytes), Age: n.config.Replays.Age},
		Veto:    n.veto(), Rotten: n.scrub.suspect, Selection: n.owns(name),
	})
	if err != nil {
		return nil, fmt.Errorf("recover group %s: %w", name, err)
	}
	c := control{cluster: n.cluster, self: n.config.Node, life: n.directory.life, group: name, last: newLastSeen(g)}
	rep.Attach(c)
	r.mu.Lock()
	r.open[name] = rep
	r.mu.Unlock()
	return &sessions{replica: rep, control: c, cluster: n.cluster, log: log}, nil
}

// take takes the replica of a group away from everybody who looks for it; nil when there is none.
func (r *replicas) take(name ident.GroupName) *replica.Replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.open[name]
	delete(r.open, name)
	return rep
}

// get returns the replica of a group, nil while there is none on this node.
func (r *replicas) get(name ident.GroupName) *replica.Replica {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.open[name]
}

// all returns the replicas that are open, ordered by group.
func (r *replicas) all() []*replica.Replica {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*replica.Replica, 0, len(r.open))
	for _, name := range slices.Sorted(maps.Keys(r.open)) {
		out = append(out, r.open[name])
	}
	return out
}

// Replica returns this node's copy of a group, nil while there is none: for programs that run a node in their own process.
func (n *Node) Replica(name ident.GroupName) *replica.Replica { return n.replicas.get(name) }

// Admit passes a shipping session to the group it is for.
func (r *replicas) Admit(ctx context.Context, h wire.Hello) (remote.Admission, error) {
	rep := r.get(h.Journal.Group)
	if rep == nil {
		return nil, &remote.Refusal{Code: wire.CodeGroup, Text: fmt.Sprintf("node %s has no copy of group %s (yet)", r.node.config.Node, h.Journal.Group)}
	}
	return rep.Admit(ctx, h)
}

// flushed tells the position each group would fall back to if this node crashed now.
func (r *replicas) flushed() map[ident.GroupName]ident.Position {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[ident.GroupName]ident.Position, len(r.open))
	for name := range r.open {
		out[name] = r.node.store.Group(name).Flushed()
	}
	return out
}

// copies tells how far the journals held reach on this node's disk and on their authors'.
func (r *replicas) copies() map[ident.GroupName]fsm.Ends {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[ident.GroupName]fsm.Ends, len(r.open))
	for name, rep := range r.open {
		out[name] = rep.CopyEnds()
	}
	return out
}

func (r *replicas) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for name, rep := range r.open {
		errs = append(errs, rep.Close())
		delete(r.open, name)
	}
	return errors.Join(errs...)
}
