package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// membersFile lists, in the data directory, where the other members answer HTTP. Whoever releases this node when it is dead
// has nobody else to ask.
const membersFile = "members.json"

// DeadLife is what is known of the last process that used a data directory.
type DeadLife struct {
	Node    ident.NodeID
	Life    ident.Incarnation
	Members map[ident.NodeID]string // HTTP addresses of the others, as this node knew them last
}

// ErrStillRuns says that a process holds the lock of the data directory.
var ErrStillRuns = errors.New("a process holds the lock of the data directory: the node still runs")

// ErrNeverLived says that no process has recorded a life in the data directory.
var ErrNeverLived = errors.New("no process of this node has recorded a life in the data directory yet")

// ErrForeignLock says that the lock of a data directory proves nothing, since the life was recorded elsewhere.
var ErrForeignLock = errors.New("the lock of the data directory does not show that the node is dead")

// FindDeadLife proves that the last life of the node is over and says which it was. The proof is the exclusive lock of the
// data directory: a process holds it from before it records its life until its end. The lock of a copy proves nothing: the
// directory must lie where the life was recorded. The lock is held for the reading only, so that a new process is not kept
// from starting; a life never comes back, so what was read stays true.
func FindDeadLife(c Config) (DeadLife, error) { return FindDeadLifeIn(vfs.Default, c) }

// FindDeadLifeIn is FindDeadLife on another file system.
func FindDeadLifeIn(fsys vfs.FS, c Config) (_ DeadLife, err error) {
	dir, node := c.Data, c.Node
	if _, err := fsys.Stat(fsys.PathJoin(dir, lifeFile)); errors.Is(err, fs.ErrNotExist) {
		return DeadLife{}, fmt.Errorf("%w: %s", ErrNeverLived, dir)
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, "LOCK"))
	var unusable *fs.PathError
	if errors.As(err, &unusable) {
		return DeadLife{}, fmt.Errorf("lock data directory %s: run this as the user of the node: %w", dir, err)
	}
	if err != nil {
		return DeadLife{}, fmt.Errorf("%w: %s: %w", ErrStillRuns, dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	d := DeadLife{Node: node, Members: map[ident.NodeID]string{}}
	raw, err := readFile(fsys, fsys.PathJoin(dir, "identity.json"))
	if err == nil {
		var id identity
		if err := json.Unmarshal(raw, &id); err != nil {
			return DeadLife{}, fmt.Errorf("read identity of data directory %s: %w", dir, err)
		}
		if id.Node != node {
			return DeadLife{}, &PreconditionError{fmt.Errorf("data directory %s belongs to node %q, the configuration says node %q: correct `data` or `node`", dir, id.Node, node)}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return DeadLife{}, fmt.Errorf("read identity of data directory %s: %w", dir, err)
	}
	life, recorded, err := readLife(fsys, dir)
	if err != nil {
		return DeadLife{}, fmt.Errorf("%w; the lease of the node runs out by itself", err)
	}
	here, err := findPlace(fsys, dir)
	if err != nil {
		return DeadLife{}, err
	}
	if why := recorded.silent(here); why != "" {
		return DeadLife{}, fmt.Errorf("%w: %s: %s; run this where the node ran, on the directory that it used; otherwise its lease runs out by itself", ErrForeignLock, dir, why)
	}
	d.Life = life
	raw, err = readFile(fsys, fsys.PathJoin(dir, membersFile))
	if err == nil {
		err = json.Unmarshal(raw, &d.Members)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return DeadLife{}, fmt.Errorf("read the members in %s: %w", dir, err)
	}
	return d, nil
}

// noteMembers keeps the members file as the state is. It is written when it changes, which is when nodes join or move.
func (n *Node) noteMembers(st *fsm.State, noted map[ident.NodeID]string) map[ident.NodeID]string {
	now := map[ident.NodeID]string{}
	for id, x := range st.Nodes {
		if id != n.config.Node && x.Addresses.HTTP != "" {
			now[id] = x.Addresses.HTTP
		}
	}
	if noted != nil && maps.Equal(now, noted) {
		return noted
	}
	raw, err := json.Marshal(now)
	if err == nil {
		err = writeAtomic(n.directory.fs, n.directory.path, membersFile, append(raw, '\n'))
	}
	if err != nil {
		n.log.Warn("the members could not be noted: if this process dies, its lease may have to run out", "error", err)
	}
	return now
}

// Release ends a life that somebody knows to be over.
func (r roles) Release(ctx context.Context, node string, life uint64) (client.Release, error) {
	id, dead := ident.NodeID(node), ident.Incarnation(life)
	out := client.Release{Node: node, Incarnation: dead.String(), Groups: []string{}}
	if id == r.n.config.Node && dead == r.n.directory.life {
		return out, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("life %s of %s is this process, and it answers", dead, node),
			Reason: "only a process that is dead can be released", Remedy: "to move its roles use `understudy switchover`; to stop it send it SIGTERM"}
	}
	st, _ := r.n.cluster.State()
	x := st.Nodes[id]
	if x == nil {
		return out, &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("node %q is not registered", node), Remedy: "name one that `status` lists"}
	}
	if x.Incarnation == dead && !x.Released {
		if r.n.cluster.Answers(ctx, id) {
			return out, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("a process of node %s answers at %s: it is not dead", node, x.Addresses.Raft),
				Reason: "released while it lives, it and its successor could both answer", Remedy: "stop the process first; a new process of the node ends the old life by itself"}
		}
		r.n.cluster.LeaderDied(id) // if it led Raft, the rest need not wait until they miss it
		r.n.cluster.AwaitOther(ctx, id)
	}
	res, err := r.n.propose(ctx, fsm.Command{Release: &fsm.Release{Node: id, Incarnation: dead}})
	if res.Refused == fsm.RefusedIncarnation {
		st, _ := r.n.cluster.State()
		return out, otherLife(st.Nodes[id], dead)
	}
	if err != nil {
		return out, err
	}
	for _, g := range res.Ended {
		out.Groups = append(out.Groups, string(g))
	}
	if x.Incarnation == dead && x.Released { // it was told before, or stopped in good order
		return out, nil
	}
	r.n.events.add("warning", "", "RELEASED", fmt.Sprintf("life %s of %s was released: its process is dead, said its keeper", dead, node),
		map[string]string{"peer": node, "life": dead.String(), "groups": strings.Join(out.Groups, ",")})
	return out, nil
}

// otherLife says why a life that is not the node's newest is not released.
func otherLife(x *fsm.Node, dead ident.Incarnation) error {
	e := &client.Error{Code: client.CodePrecondition, Reason: client.ReasonOtherLife, Remedy: "nothing is to be done: a later life, or none, holds its roles"}
	if x != nil && dead < x.Incarnation {
		e.Detail = fmt.Sprintf("life %s of node %s is over already: %s followed it", dead, x.ID, x.Incarnation)
		return e
	}
	e.Detail = fmt.Sprintf("life %s never held a lease of this cluster", dead)
	return e
}
