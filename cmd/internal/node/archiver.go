package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Archive says where detached receivers are archived.
type Archive struct {
	URL       string        `yaml:"url"`                  // file:///folder or s3://bucket/prefix; "": nowhere
	After     time.Duration `yaml:"after,omitempty"`      // a receiver is archived so long after it was detached
	Rate      ByteSize      `yaml:"rate,omitempty"`       // of reading and writing, per second; 0: not limited
	KeepLocal *int          `yaml:"keep_local,omitempty"` // detached receivers of each journal that stay here although they are archived; default: the group's keep_receivers
}

// check says what is wrong with the archive's keys.
func (a Archive) check() (p []error) {
	add := func(key, format string, args ...any) {
		p = append(p, fmt.Errorf("archive.%s: %w", key, fmt.Errorf(format, args...)))
	}
	if a.URL == "" {
		if a != (Archive{}) {
			add("url", "is missing; name where receivers go, such as file:///backup/understudy")
		}
		return p
	}
	if err := archive.Check(a.URL); err != nil {
		add("url", "%w", err)
	}
	if a.After < 0 {
		add("after", "%s: must not be negative", a.After)
	}
	if a.Rate != 0 && a.Rate < 64<<10 {
		add("rate", "%d bytes per second: at least 64KiB, or a receiver takes hours", int64(a.Rate))
	}
	if a.KeepLocal != nil && *a.KeepLocal < 0 {
		add("keep_local", "%d: must not be negative", *a.KeepLocal)
	}
	return p
}

// Times of the archiver.
const (
	archiveLook      = time.Second      // how often journals are looked at
	archiveAuthor    = 30 * time.Second // a living author gets so long to archive its own receiver
	archivePause     = time.Second      // after a failure, doubling up to
	archivePauseMost = time.Minute
)

// archiver archives the detached receivers of the journals held, its own at once and those of others when their author does not. It
// reads back whatever is to count, also what others archived: only what this life of the node has read back is ever deleted here
// for being archived. Its one goroutine waits for the storage as long as that takes; nothing waits for it.
type archiver struct {
	node *Node
	to   *archive.Archive
	log  hclog.Logger
	look time.Duration

	mu      sync.Mutex
	held    map[archive.Name]bool                    // read back; only of receivers that are still here
	newest  map[ident.JournalID]ident.ReceiverNumber // read back, of each journal
	failure string                                   // of the last attempt; "" when well
	pending map[ident.GroupName]int                  // detached receivers here that do not count as archived

	failedAt, wellAt time.Time // the last attempts of each kind

	written, found, failed, bytes atomic.Int64
}

func newArchiver(n *Node, to *archive.Archive) *archiver {
	return &archiver{node: n, to: to, log: n.log.Named("archive"), look: archiveLook, held: map[archive.Name]bool{},
		newest: map[ident.JournalID]ident.ReceiverNumber{}, pending: map[ident.GroupName]int{}}
}

// run archives until ctx ends. Failures are told, counted and tried again later.
func (a *archiver) run(ctx context.Context) error {
	pause := archivePause
	for {
		wait := a.look
		if err := a.pass(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			a.failing(err)
			wait, pause = pause, min(2*pause, archivePauseMost)
		} else {
			a.well()
			pause = archivePause
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// due is a receiver that may be archived.
type due struct {
	name    archive.Name
	journal *journal.Journal
}

// pass looks at all journals once. The first failure of a storage ends it; a receiver that is damaged here does not keep others.
func (a *archiver) pass(ctx context.Context) error {
	present := map[archive.Name]bool{}
	var todo []due
	pending := map[ident.GroupName]int{}
	for _, rep := range a.node.replicas.all() {
		for _, j := range rep.Journals() {
			receivers := j.Receivers()
			for i, r := range receivers {
				name, ok := rep.ArchiveName(j, r)
				if !ok {
					continue
				}
				present[name] = true
				if a.Holds(name) {
					continue
				}
				pending[name.Journal.Group]++
				detached := a.node.host.Clock.Now().Sub(receivers[i+1].Created) // detached when the next one was made
				if wait := a.node.config.Archive.After + a.courtesy(j.ID()); detached >= wait {
					todo = append(todo, due{name, j})
				}
			}
		}
	}
	a.mu.Lock()
	a.pending = pending
	for n := range a.held {
		if !present[n] {
			delete(a.held, n) // it is not here any more
		}
	}
	a.mu.Unlock()
	var damaged error
	for _, d := range todo {
		err := a.save(ctx, d)
		var corrupt *journal.CorruptionError
		switch {
		case err == nil, errors.Is(err, journal.ErrNotHeld):
		case errors.As(err, &corrupt):
			damaged = err
		default:
			return err
		}
	}
	return damaged
}

// courtesy is how long a copy is left to its author.
func (a *archiver) courtesy(id ident.JournalID) time.Duration {
	if id.Node == a.node.config.Node || !a.node.cluster.Alive(id.Node) {
		return 0
	}
	return archiveAuthor
}

// save archives one receiver, or finds it archived.
func (a *archiver) save(ctx context.Context, d due) error {
	content, err := d.journal.Content(d.name.Number)
	if err != nil {
		return err
	}
	written, err := a.to.Save(ctx, d.name, func() io.Reader { return content.Section() })
	if err := errors.Join(err, content.Close()); err != nil {
		return err
	}
	a.mu.Lock()
	a.held[d.name] = true
	a.pending[d.name.Journal.Group]--
	a.newest[d.name.Journal] = max(a.newest[d.name.Journal], d.name.Number)
	a.mu.Unlock()
	if !written {
		a.found.Add(1)
		return nil
	}
	a.written.Add(1)
	a.bytes.Add(content.Size())
	a.node.events.add(client.SeverityInfo, string(d.name.Journal.Group), "ARCHIVED", "a detached receiver was archived and read back", a.fields(d.name))
	return nil
}

func (a *archiver) fields(n archive.Name) map[string]string {
	return map[string]string{"journal": n.Journal.String(), "receiver": n.Number.String(), "first": n.First.String(), "last": n.Last.String()}
}

// failing tells once per reason.
func (a *archiver) failing(err error) {
	a.failed.Add(1)
	a.mu.Lock()
	news := a.failure != err.Error()
	a.failure, a.failedAt = err.Error(), a.node.host.Clock.Now()
	a.mu.Unlock()
	if news {
		a.node.events.add(client.SeverityWarning, "", "ARCHIVE_FAILED", "receivers are not archived and stay here: "+err.Error()+"; it is tried again", map[string]string{"archive": archive.Shown(a.node.config.Archive.URL)})
	}
}

func (a *archiver) well() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failure, a.wellAt = "", a.node.host.Clock.Now()
}

// backlog counts the detached receivers here that do not count as archived.
func (a *archiver) backlog() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.pending {
		n += k
	}
	return n
}

// Holds is replica.Archive.
func (a *archiver) Holds(n archive.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[n]
}

// List is replica.Archive.
func (a *archiver) List(ctx context.Context, id ident.JournalID) ([]archive.Name, error) {
	return a.to.List(ctx, a.node.directory.ClusterID(), id)
}

// Fetch is replica.Archive.
func (a *archiver) Fetch(ctx context.Context, n archive.Name) (io.ReadCloser, error) {
	return a.to.Fetch(ctx, n)
}

// openArchive opens the archive, when there is one. The archiver runs once the cluster is known.
func (n *Node) openArchive(ctx context.Context, undo *closers) error {
	c := n.config.Archive
	if c.URL == "" || n.config.Kind != fsm.KindData {
		return nil
	}
	to, err := archive.Open(ctx, c.URL, archive.Options{Rate: int64(c.Rate)})
	if err != nil {
		return &PreconditionError{fmt.Errorf("archive.url: %w", err)}
	}
	undo.add(to.Close)
	n.archiver = newArchiver(n, to)
	return nil
}
