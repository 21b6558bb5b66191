package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// localGroup is the name under which what no group selects is kept, in positions, paths and answers. No group may have it.
const localGroup = ident.GroupName(client.LocalGroup)

// LocalJournal bounds the journal of local files.
type LocalJournal struct {
	ReceiverBytes ByteSize      `yaml:"receiver_bytes,omitempty"` // change of receiver at this size
	KeepReceivers int           `yaml:"keep_receivers,omitempty"` // detached ones that stay; -1: all
	MaximumBlocks int           `yaml:"maximum_blocks,omitempty"` // MiB, hard cap; 0: none
	ReceiverAge   time.Duration `yaml:"receiver_age,omitempty"`   // a receiver is changed when it is older; 0: never for that
}

// defaultLocalJournal keeps a bounded part of the past: nobody else will ever need it.
func defaultLocalJournal() LocalJournal {
	return LocalJournal{ReceiverBytes: 64 << 20, KeepReceivers: 16}
}

// reservedGroup says why no group may have a name, or nil.
func reservedGroup(name ident.GroupName) error {
	if name == localGroup {
		return fmt.Errorf("%q stands for the files that no group selects and cannot be the name of a group: choose another one", string(name))
	}
	return nil
}

func (l LocalJournal) spec() fsm.GroupSpec {
	return fsm.GroupSpec{Name: localGroup, ReceiverBytes: int64(l.ReceiverBytes), KeepReceivers: l.KeepReceivers, MaximumBlocks: l.MaximumBlocks, ReceiverAge: l.ReceiverAge}.Normalize()
}

func (l LocalJournal) check() (p []error) {
	if l.ReceiverBytes < 1<<20 {
		p = append(p, fmt.Errorf("local_journal.receiver_bytes: %d: a receiver has at least 1 MiB (1048576)", int64(l.ReceiverBytes)))
	}
	if l.KeepReceivers < 1 && l.KeepReceivers != -1 {
		p = append(p, fmt.Errorf("local_journal.keep_receivers: %d: want -1 (all), or how many, at least 1", l.KeepReceivers))
	}
	if len(p) > 0 {
		return p
	}
	if err := l.spec().Validate(); err != nil {
		p = append(p, fmt.Errorf("local_journal: %w", err))
	}
	return p
}

// local keeps the records of files that no group selects: in a journal and a part of the store that are this node's alone. They are
// shipped to nobody, and nobody's role depends on them: whatever fails here ends only this.
type local struct {
	n *Node

	plane  *replica.Solitary
	rep    *replica.Replica // nil: there is none in this life
	served chan struct{}    // closed when it has served for the first time, or will not
	again  chan struct{}    // what is hidden may have become less

	mu     sync.Mutex
	failed error // why it takes no writes in this life
	hidden []client.HiddenFiles
}

func newLocal(n *Node) *local {
	return &local{n: n, served: make(chan struct{}), again: make(chan struct{}, 1)}
}

// open recovers the local journal. An error is told, and does not end the node.
func (l *local) open(fs vfs.FS) {
	n := l.n
	dir := n.directory.file("local")
	if n.config.Kind != fsm.KindData {
		return
	}
	if !n.config.LocalFiles {
		if _, err := fs.Stat(fs.PathJoin(dir, "journals")); err == nil || !errors.Is(err, os.ErrNotExist) {
			n.events.add(client.SeverityWarning, "", "LOCAL_FILES_OFF", "local_files is off, but this node keeps local records from before: nobody can read them until it is on again", map[string]string{"directory": dir})
		}
		return
	}
	if err := l.recover(fs, dir); err != nil {
		l.fail(err)
		close(l.served)
	}
}

func (l *local) recover(fs vfs.FS, dir string) (err error) {
	n := l.n
	if st, _ := n.cluster.State(); st.Groups[localGroup] != nil {
		return fmt.Errorf("there is a group called %q, a name that stands for local files: local files stay off", string(localGroup))
	}
	spec := n.config.LocalJournal.spec()
	l.plane, err = replica.OpenSolitary(replica.SolitaryOptions{FS: fs, Dir: dir, Cluster: n.directory.ClusterID(), Node: n.config.Node, Directory: n.directory.id.Directory,
		Life: n.directory.life, Group: localGroup, Spec: spec, Clock: n.host.Clock})
	if err != nil {
		return err
	}
	l.rep, err = replica.Open(replica.Options{
		Cluster: n.directory.ClusterID(), Node: n.config.Node, Group: localGroup, FS: fs, Dir: dir, Store: n.store, Host: n.host,
		Logger: n.log.With("group", string(localGroup)), Life: n.directory.life, ReceiverBytes: spec.ReceiverBytes, Events: l.event, Veto: n.veto(), Rotten: l.rotten,
	})
	if err != nil {
		l.rep = nil
		return fmt.Errorf("recover local files: %w", err)
	}
	l.rep.Attach(l.plane)
	return nil
}

// run keeps the local journal writable until ctx ends. It returns nil in any case: groups go on without it.
func (l *local) run(ctx context.Context) error {
	if l.rep == nil {
		return nil
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	served := func() { once.Do(func() { close(l.served) }) }
	defer served()
	parts.Go(func() {
		if l.rep.Wait(ctx, func(s replica.Status) bool { return s.Serving }) == nil {
			served()
			l.watch(ctx)
		}
	})
	err := l.plane.Run(ctx, l.rep, func(err error) { l.n.log.Warn("local files: the session ended, another one begins", "error", err) })
	if err != nil {
		l.fail(err)
	}
	return nil
}

func (l *local) close() error {
	if l.rep == nil {
		return nil
	}
	err := l.rep.Close()
	if err != nil && l.failure() != nil { // it was told when it failed
		l.n.log.Warn("local files closed after their failure", "error", err)
		return nil
	}
	return err
}

// await waits until local files are served or are not going to be, at most for d.
func (l *local) await(d time.Duration) {
	if !l.on() {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.served:
	case <-t.C:
		return
	}
	for {
		st, changed := l.n.cluster.State()
		if l.knows(st) {
			return
		}
		select {
		case <-changed:
		case <-t.C:
			return
		}
	}
}

// knows tells whether the state holds a command of this life. A restarted node begins with an old one: a group that it had known may be
// missing from it.
func (l *local) knows(st *fsm.State) bool {
	self := st.Nodes[l.n.config.Node]
	return self != nil && self.Incarnation >= l.n.directory.life
}

// on tells whether this node keeps local files.
func (l *local) on() bool { return l.n.config.LocalFiles && l.n.config.Kind == fsm.KindData }

// fail says, loudly, that local files take no writes any more in this life.
func (l *local) fail(err error) {
	l.mu.Lock()
	l.failed = err
	l.mu.Unlock()
	l.n.events.add(client.SeverityError, string(localGroup), "LOCAL_FILES_FAILED", fmt.Sprintf("local files of this node take no writes; groups are not affected: %v", err), nil)
}

func (l *local) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// event tells what concerns the journal. The roles of one node alone are nobody's news.
func (l *local) event(e replica.Event) {
	switch e.Kind {
	case replica.EventReceiver, replica.EventReceiversGone, replica.EventVetoed, replica.EventJournalFree, replica.EventNeedsPriming:
		l.n.replicaEvent(e)
	case replica.EventJournalFull:
		e.Detail += "; writes to local files are refused meanwhile, groups are not affected"
		l.n.replicaEvent(e)
	}
}

// rotten is told when a reader of the local journal meets a place that does not agree with its checksum.
func (l *local) rotten(id ident.JournalID, number ident.ReceiverNumber) {
	l.n.events.add(client.SeverityError, string(localGroup), "LOCAL_JOURNAL_ROTTEN",
		fmt.Sprintf("receiver %s of journal %s is damaged on the disk, and no other node has a copy of it: the records in the store are not affected", number, id), nil)
}

// noOwner answers for a record that no group selects: by this node's own copy, or by an error. Of a file some of whose keys a group selects
// nothing is local. A request that another node has passed on was
// meant for a group that this node does not know, yet or any more: it is never answered from here.
func (d data) noOwner(ctx context.Context, s *selection, file string) (*replica.Replica, error) {
	l := d.n.local
	switch {
	case len(s.state.Groups) == 0, !l.on(), s.claims(file):
		return nil, d.noGroup(s.state, file, s.claims(file))
	case api.Forwarded(ctx):
		return nil, &api.Elsewhere{}
	}
	return l.replica(s.state)
}

// ownerOf is replicaOf, or, where a request names local files itself, this node's own copy even of what a group hides.
func (d data) ownerOf(ctx context.Context, file string, key []byte, named string) (ident.GroupName, *replica.Replica, error) {
	if named == "" {
		return d.replicaOf(ctx, file, key)
	}
	rep, err, ok := d.n.local.asked(named)
	if !ok {
		err = d.n.local.none()
	}
	return localGroup, rep, err
}

// none says that this node keeps no local files.
func (l *local) none() error {
	return &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("node %s keeps no files for itself", l.n.config.Node), Remedy: "set local_files: true at a data node, and ask that one"}
}

// replica returns the copy that local files are in.
func (l *local) replica(st *fsm.State) (*replica.Replica, error) {
	if l.rep == nil {
		return nil, l.unavailable(nil)
	}
	if !l.knows(st) {
		return nil, &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("node %s has restarted and does not know yet which groups there are: whether the file is local cannot be said", l.n.config.Node),
			Remedy: "wait until the node has reached a majority of the nodes once; what it keeps can be read by name meanwhile, with ?group=local"}
	}
	return l.rep, nil
}

// asked returns the copy for requests that name it in place of a group; ok is false when they name something else, or it is off.
func (l *local) asked(group string) (rep *replica.Replica, err error, ok bool) {
	if group != string(localGroup) || !l.on() {
		return nil, nil, false
	}
	if l.rep == nil {
		return nil, l.unavailable(nil), true
	}
	return l.rep, nil, true
}

// reads tells whether reads are answered from the store alone: after a failure, when all that was acknowledged in this life is there.
func (l *local) reads(group ident.GroupName, local bool) bool {
	return local && group != localGroup || group == localGroup && l.failure() != nil
}

// localPatience bounds how long the start of a node waits for its local files.
const localPatience = 5 * time.Second

// notGroup explains that a name stands for local files where a group is wanted.
func (l *local) notGroup() error {
	return &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("%q is not a group: it stands for the files that node %s keeps for itself, which have no primary, no copies and no roles", string(localGroup), l.n.config.Node),
		Remedy: "GET /v1/status shows them as local_files; their journal is at /v1/groups/local/journals/local/entries"}
}

func (l *local) unavailable(err error) error {
	e := &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("the local files of node %s cannot be used now", l.n.config.Node),
		Remedy: "send the request to this node again; no other node has these records"}
	if failed := l.failure(); failed != nil {
		e.Reason, e.Remedy = failed.Error(), "see the events of this node; no other node has these records"
	} else if err != nil {
		e.Reason = err.Error()
	}
	return e
}

// explain turns errors that mean another node for a group into what is true of local files; nil: what is said of groups holds.
func (l *local) explain(err error) error {
	switch {
	case errors.Is(err, replica.ErrNotPrimary), errors.Is(err, replica.ErrNoLease), errors.Is(err, replica.ErrNotReconciled), errors.Is(err, replica.ErrNeedsPriming):
		return l.unavailable(err)
	case errors.Is(err, replica.ErrJournalFull):
		return &client.Error{Code: client.CodeJournalFull, Detail: fmt.Sprintf("the journal of local files of node %s takes nothing now", l.n.config.Node), Reason: fullReason(err),
			Remedy: "free space in the data directory, or raise local_journal.maximum_blocks of this node"}
	}
	return nil
}

// unknownOutcome is what a writer hears of a local write that is journaled and not confirmed.
func (l *local) unknownOutcome(err error) *client.Error {
	e := &client.Error{Code: client.CodeUnknownOutcome, Detail: fmt.Sprintf("the write was journaled at node %s, but it is not confirmed: its disk failed, or the time for the request was over", l.n.config.Node),
		Reason: err.Error(), Remedy: "read the record at this node to see whether it was done"}
	var unknown *replica.UnknownOutcomeError
	if errors.As(err, &unknown) {
		e.Position = l.n.position(localGroup, unknown.Position)
		e.Remedy = "ask this node, GET /v1/receipts/" + e.Position + ", whether it was done, before you repeat it; no other node knows"
	}
	return e
}

// mark is the node that answers say records of the group are local to; "" for groups.
func (n *Node) mark(group ident.GroupName) string {
	if group == localGroup {
		return string(n.config.Node)
	}
	return ""
}

// owner says in words whom a file belongs to.
func owner(group ident.GroupName) string {
	if group == localGroup {
		return "no group, so that it is local to a node"
	}
	return "group " + string(group)
}

// files lists the local files that no group hides; none while that is not known.
func (l *local) files(s *selection) ([]string, error) {
	if l.rep == nil || len(s.state.Groups) == 0 || !l.knows(s.state) {
		return nil, nil
	}
	files, err := l.rep.Files()
	return slices.DeleteFunc(files, s.claims), err
}

// visible are the local records that no group hides, as they are counted: with the same files hidden at the same position there are as
// many.
type visible struct {
	rep    *replica.Replica
	hidden string // names of files, quoted, with zero bytes between
}

// visible returns what there is to count; false: nothing is shown.
func (l *local) visible(s *selection) (visible, bool, error) {
	if l.rep == nil || len(s.state.Groups) == 0 || !l.knows(s.state) {
		return visible{}, false, nil
	}
	files, err := l.rep.Files()
	var hidden []string
	for _, f := range files {
		if s.claims(f) {
			hidden = append(hidden, strconv.Quote(f))
		}
	}
	return visible{l.rep, strings.Join(hidden, "\x00")}, err == nil, err
}

func (v visible) Position() ident.Position { return v.rep.Position() }

func (v visible) Count(ctx context.Context) (int64, error) {
	hidden := map[string]bool{}
	for _, f := range strings.Split(v.hidden, "\x00") {
		hidden[f] = true
	}
	return v.rep.CountOf(ctx, func(file string) bool { return !hidden[strconv.Quote(file)] })
}

// watch finds out, whenever groups change, which local records a group has come to hide.
func (l *local) watch(ctx context.Context) {
	var seen map[ident.GroupName]string
	told := map[string]bool{}
	for {
		st, changed := l.n.cluster.State()
		if now := hiders(st); !maps.Equal(now, seen) {
			hidden, err := l.look(ctx, newSelection(st))
			if err != nil {
				l.n.log.Warn("which local records are hidden is not known", "error", err)
			} else {
				seen = now
				l.tell(hidden, told)
			}
		}
		select {
		case <-changed:
		case <-l.again:
			seen = nil
		case <-ctx.Done():
			return
		}
	}
}

// hiders tells what each group selects, and each that is only planned: from the plan on its records are nobody else's.
func hiders(st *fsm.State) map[ident.GroupName]string {
	out := make(map[ident.GroupName]string, len(st.Groups)+len(st.Planned))
	for _, g := range st.Selecting() {
		out[g.Name] = fmt.Sprintf("%d %q %s %t", g.Order, g.Files, g.Keys, st.Groups[g.Name] == nil)
	}
	return out
}

// lookAgain has what is hidden counted anew.
func (l *local) lookAgain() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// look counts the local records in files that a group selects.
func (l *local) look(ctx context.Context, s *selection) ([]client.HiddenFiles, error) {
	files, err := l.rep.Files()
	if err != nil {
		return nil, err
	}
	by := map[ident.GroupName][]string{}
	for _, file := range files {
		if names := owners(s.spans(file)); len(names) > 0 {
			by[names[0]] = append(by[names[0]], file)
		}
	}
	out := []client.HiddenFiles{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		slices.Sort(by[name])
		n, err := l.rep.CountOf(ctx, func(file string) bool { _, ok := slices.BinarySearch(by[name], file); return ok })
		if err != nil {
			return nil, err
		}
		out = append(out, client.HiddenFiles{Group: string(name), Files: uint64(len(by[name])), Records: uint64(n), First: by[name][0], Planned: s.state.Groups[name] == nil})
	}
	return out, nil
}

// tell keeps what is hidden for the status and raises an event for each group once, and again when it has hidden nothing meanwhile, as
// after a plan that was dropped.
func (l *local) tell(hidden []client.HiddenFiles, told map[string]bool) {
	l.mu.Lock()
	l.hidden = hidden
	l.mu.Unlock()
	maps.DeleteFunc(told, func(group string, _ bool) bool {
		return !slices.ContainsFunc(hidden, func(h client.HiddenFiles) bool { return h.Group == group })
	})
	for _, h := range hidden {
		if !told[h.Group] {
			told[h.Group] = true
			l.n.events.add(client.SeverityWarning, h.Group, "LOCAL_HIDDEN", hiddenText(string(l.n.config.Node), h), nil)
		}
	}
}

// concealed returns what groups hide.
func (l *local) concealed() []client.HiddenFiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hidden
}

func hiddenText(node string, h client.HiddenFiles) string {
	how := "selects now: the group does not have them"
	if h.Planned {
		how = "will select, which is planned: the group will not have them, and requests for these files wait for it"
	}
	return fmt.Sprintf("node %s keeps records for itself (records: %d; files: %d, such as %q) that group %s %s; read or delete them at this node with ?group=local",
		node, h.Records, h.Files, h.First, h.Group, how)
}

// notes say what the local files of this node mean for a group.
func (l *local) notes(g *fsm.Group) (out []string) {
	for _, h := range l.concealed() {
		if h.Group == string(g.Spec.Name) {
			out = append(out, hiddenText(string(l.n.config.Node), h))
		}
	}
	return out
}

// status describes local files; nil when the node keeps none.
func (l *local) status() *client.LocalFiles {
	if !l.on() {
		return nil
	}
	out := &client.LocalFiles{Node: string(l.n.config.Node), Hidden: l.concealed()}
	if failed := l.failure(); failed != nil {
		out.Error = failed.Error()
	}
	if l.rep == nil {
		return out
	}
	s := l.rep.Status()
	out.Writable = s.Serving && out.Error == ""
	if out.Error == "" {
		out.Error = s.Error
	}
	out.Position = l.n.position(localGroup, s.Applied)
	for _, j := range s.Journals {
		c := shownJournal(j, client.JournalLocal)
		c.Applied = uint64(s.AppliedSequence)
		out.Journal = &c
		out.Full, out.Runway = localFull(j), c.Runway
	}
	return out
}

// localFull says why the journal takes nothing; "" when it does.
func localFull(j replica.JournalStatus) string {
	if j.Space.Full == nil {
		return ""
	}
	var full *journal.FullError
	remedy := "free space in the data directory, writes then go on by themselves"
	if errors.As(j.Space.Full, &full) && full.Reason == "maximum" {
		remedy = "raise local_journal.maximum_blocks of this node, or lower local_journal.keep_receivers"
	}
	if len(j.Kept) > 0 {
		remedy += "; " + strings.Join(j.Kept, "; ")
	}
	return fmt.Sprintf("%v: %s", j.Space.Full, remedy)
}
