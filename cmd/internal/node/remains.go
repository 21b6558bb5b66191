package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// doomedDir is the directory in the data directory with an empty file for each deleted group whose remains are being removed. It is there
// before anything of them goes: a node that ends in the middle goes on with it at its next start, whatever its state knows by then.
const doomedDir = "deleted"

// removeAgain is waited after a removal that failed, before the next try.
const removeAgain = 10 * time.Second

// parts are the parts of all groups that this node has, or has left of groups that were deleted.
type parts struct {
	r *replicas

	mu      sync.Mutex
	running map[ident.GroupName]activity
	left    map[ident.GroupName]bool // found on the disk at the start, and not begun since
	gone    map[ident.GroupName]bool // deleted: it is never begun again
	doomed  []ident.GroupName        // whose removal had begun when an earlier life ended
}

// activity is what runs for one group.
type activity struct {
	end   context.CancelCauseFunc
	ended chan struct{} // closed when nothing runs any more
}

func newParts(r *replicas) *parts {
	return &parts{r: r, running: map[ident.GroupName]activity{}, left: map[ident.GroupName]bool{}, gone: map[ident.GroupName]bool{}}
}

// recover looks for what earlier lives have left.
func (p *parts) recover() error {
	n := p.r.node
	names, err := p.r.fs.List(n.directory.file(doomedDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list the groups whose remains are being removed: %w", err)
	}
	for _, name := range names {
		p.doomed = append(p.doomed, ident.GroupName(name))
		p.gone[ident.GroupName(name)] = true
	}
	remains, err := replica.Remains(p.r.fs, n.config.Data, n.store)
	if err != nil {
		return fmt.Errorf("look for the remains of deleted groups: %w", err)
	}
	for _, name := range remains {
		p.left[name] = true
	}
	return nil
}

// begun are the groups that are not to be started.
func (p *parts) begun() map[ident.GroupName]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := maps.Clone(p.gone)
	for name := range p.running {
		all[name] = true
	}
	return all
}

// begin notes that something runs for a group from now on, until ended is called.
func (p *parts) begin(name ident.GroupName, end context.CancelCauseFunc) (ended func()) {
	x := activity{end: end, ended: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[name] = x
	delete(p.left, name)
	return sync.OnceFunc(func() {
		end(nil)
		close(x.ended)
	})
}

// retired lists the groups whose remains are to be removed: only what the state knows to be deleted, or has known. A group that is merely
// not there may be one that this node does not know yet. Each is listed once.
func (p *parts) retired(st *fsm.State) []ident.GroupName {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.doomed
	p.doomed = nil
	for _, names := range [][]ident.GroupName{slices.Collect(maps.Keys(p.running)), slices.Collect(maps.Keys(p.left))} {
		for _, name := range names {
			if _, deleted := st.Retirement(name); deleted && !p.gone[name] && name != localGroup { // whose records are in the same store
				p.gone[name] = true
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// remove ends what runs for a deleted group and removes what this node has of it. What fails is tried again until ctx ends, or at the next
// start.
func (p *parts) remove(ctx context.Context, name ident.GroupName) {
	n := p.r.node
	p.mu.Lock()
	x, runs := p.running[name]
	p.mu.Unlock()
	if runs {
		x.end(fmt.Errorf("group %s was deleted", name))
		<-x.ended
	}
	if rep := p.r.take(name); rep != nil {
		if err := rep.Retire(ctx); err != nil {
			n.log.Warn("the replica of a deleted group was not closed well", "group", name, "error", err)
			if ctx.Err() != nil {
				return
			}
		}
	}
	n.damages.clear(name)
	n.scrub.forget(name)
	for told := ""; ; {
		err := p.discard(ctx, name)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		if told != err.Error() {
			told = err.Error()
			n.events.add(client.SeverityWarning, string(name), "GROUP_REMAINS", "what this node has of a deleted group is not removed yet: "+told+"; it is tried again", nil)
		}
		if sleep(ctx, removeAgain) != nil {
			return
		}
	}
	p.mu.Lock()
	delete(p.running, name)
	delete(p.left, name)
	p.mu.Unlock()
	n.events.add(client.SeverityInfo, string(name), "GROUP_REMOVED", "what this node had of a deleted group was removed: journals, copies, records, reports and its promise", nil)
}

// discard removes all files of a deleted group, between a note that says so and its end.
func (p *parts) discard(ctx context.Context, name ident.GroupName) error {
	n, fs := p.r.node, p.r.fs
	dir := n.directory.file(doomedDir)
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := syncDirectory(fs, n.config.Data); err != nil {
		return err
	}
	note, err := fs.Create(fs.PathJoin(dir, string(name)), vfs.WriteCategoryUnspecified) // under its own name from the first moment: what is found here is a group's
	if err != nil {
		return err
	}
	if err := errors.Join(note.Close(), syncDirectory(fs, dir)); err != nil {
		return err
	}
	if err := n.host.Failpoint("node.discard:" + string(name)); err != nil {
		return err
	}
	if err := replica.Discard(ctx, fs, n.config.Data, n.store, name); err != nil {
		return err
	}
	if err := fs.Remove(fs.PathJoin(dir, string(name))); err != nil {
		return err
	}
	return syncDirectory(fs, dir)
}
