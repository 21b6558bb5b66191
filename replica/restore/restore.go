package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
	"github.com/understudy-ha/understudy/replica/store"
)

// Conditions, to be tested with errors.Is.
var (
	ErrNothing  = errors.New("there are no receivers")
	ErrTarget   = errors.New("that point cannot be restored")
	ErrNotEmpty = errors.New("the directory is not empty; name one that does not exist")
)

// GapError says that receivers are missing.
type GapError struct {
	At       ident.Position // nothing holds it
	Missing  []string       // receivers that may
	Unusable []string       // receivers that are there and cannot be read
}

func (e *GapError) Error() string {
	s := fmt.Sprintf("the history has a gap: no receiver here holds %s", e.At)
	if len(e.Missing) > 0 {
		s += "; missing: " + strings.Join(e.Missing, ", ")
	}
	if len(e.Unusable) > 0 {
		s += "; not usable: " + strings.Join(e.Unusable, ", ")
	}
	return s + "; add the data directory of a node that has them, or restore to an earlier position"
}

// Target is the point to restore to; the zero Target is the end of what is known to be committed. At most one of Position, Time and Sequence is set.
type Target struct {
	Position ident.Position // the last fact that is wanted
	Of       ident.NodeID   // with Options.Local: whose history Position is of, "": not said
	Time     time.Time      // everything before the first transaction that is later
	Sequence ident.Sequence // the last entry that is wanted, in the journal of Node
	Node     ident.NodeID   // "": the only journal there is
}

// Options say what is restored from where to where. Archive or Data, or both.
type Options struct {
	Group       ident.GroupName
	Cluster     ident.ClusterID // of the archive; "": the only one that is there
	To          Target
	Local       bool // local files: each node has a history of its own, and positions name it
	Uncommitted bool // beyond what is known to be committed, too: as far as the receivers go
	Archive     *archive.Archive
	Data        []string // data directories; they are only read
	FS          vfs.FS   // of Data and Out
	Out         string   // a directory that is empty or does not exist
	Progress    func(step string, done, of int)
}

// Result says what was restored.
type Result struct {
	Group     ident.GroupName `json:"group"`
	Position  string          `json:"position"`
	Time      time.Time       `json:"time"` // of the last entry
	Files     int             `json:"files"`
	Records   uint64          `json:"records"`
	Bytes     uint64          `json:"bytes"`
	Digest    string          `json:"digest"`
	Committed string          `json:"committed"` // up to here the receivers prove that everything is committed
	Beyond    uint64          `json:"beyond"`    // facts that continue that, of which it is not known; left out unless asked for
	Receivers int             `json:"receivers"` // that were read
	Unusable  []string        `json:"unusable,omitempty"`
	Out       string          `json:"out"`
}

// resultFile says that a restore was finished. It is written last.
const resultFile = "restored.json"

// Run restores. On an error Out may hold a part; it has no restored.json then and is not read by Records.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	if err := empty(o.FS, o.Out); err != nil {
		return Result{}, err
	}
	all, err := o.sources(ctx)
	if err != nil {
		return Result{}, err
	}
	x, err := build(ctx, all, func(done, of int) { o.Progress("read", done, of) })
	if err != nil {
		return Result{}, err
	}
	history, err := x.history(&o)
	if err != nil {
		return Result{}, err
	}
	end, err := x.end(ctx, &o)
	if err != nil {
		return Result{}, err
	}
	way, err := x.down(end)
	if err != nil {
		return Result{}, err
	}
	r := Result{Group: o.Group, Receivers: len(x.sources), Unusable: x.unusable, Out: o.Out, Committed: x.tip().Format(history)}
	r.Beyond = uint64(x.beyond(x.tip()).History - x.tip().History)
	if err := r.write(ctx, &o, way, end, history); err != nil {
		return Result{}, err
	}
	return r, nil
}

// history names the history that is restored: the group's, or that of one node's local files.
func (x *index) history(o *Options) (ident.GroupName, error) {
	if !o.Local {
		return o.Group, nil
	}
	node := x.sources[0].header.ID.Node
	if of := o.To.Of; of != "" && of != node {
		return "", fmt.Errorf("%w: %s is of the local files of node %s, and the receivers here are of those of node %s", ErrTarget, o.To.Position.Format(o.Group.Of(of)), of, node)
	}
	return o.Group.Of(node), nil
}

// end returns the position to go to. With a time it is found on the way there.
func (x *index) end(ctx context.Context, o *Options) (ident.Position, error) {
	p := o.To.Position
	if o.To.Sequence != 0 {
		var err error
		if p, err = x.at(ctx, o.To.Node, o.To.Sequence); err != nil {
			return p, err
		}
	}
	if !p.IsZero() {
		err := x.inHistory(p)
		if err != nil && o.Uncommitted && !x.tip().IsZero() {
			if through, ok := x.passes(p, x.tip()); ok && through {
				err = nil
			}
		}
		return p, err
	}
	if o.Uncommitted {
		return x.beyond(x.tip()), nil
	}
	if x.tip().IsZero() {
		return p, fmt.Errorf("%w: nothing in the receivers of group %s is known to be committed", ErrTarget, o.Group)
	}
	return x.tip(), nil
}

// at returns the position of the history after entry seq of node's journal.
func (x *index) at(ctx context.Context, node ident.NodeID, seq ident.Sequence) (ident.Position, error) {
	var in *source
	for _, s := range x.sources {
		if node != "" && s.header.ID.Node != node || seq < s.header.First || seq > s.last {
			continue
		}
		if in != nil && in.header.ID != s.header.ID {
			return ident.Position{}, fmt.Errorf("%w: several journals have an entry %s: write NODE/%s", ErrTarget, seq, seq)
		}
		in = s // of several with that number the longest counts, which is the last one
	}
	if in == nil {
		return ident.Position{}, fmt.Errorf("%w: no receiver here holds entry %s", ErrTarget, seq)
	}
	p := in.header.Start
	var wrong error
	_, err := in.read(ctx, func(b entry.Bundle) bool {
		entries, err := b.All()
		if err != nil {
			wrong = err
			return false
		}
		for i := range entries {
			if entries[i].Sequence > seq {
				return false
			}
			if entries[i].Fact() {
				p = entries[i].Position
			}
		}
		return true
	})
	return p, errors.Join(err, wrong)
}

// table makes the history table of a way.
func table(way []part) ident.HistoryTable {
	var t ident.HistoryTable
	for _, c := range way {
		if n := len(t); n == 0 || t[n-1].Epoch != c.Epoch {
			t = append(t, ident.HistoryRow{Epoch: c.Epoch, Node: c.in.header.ID.Node, SW: c.From})
		}
	}
	return t
}

// write replays the way into a new store.
func (r *Result) write(ctx context.Context, o *Options, way []part, end ident.Position, history ident.GroupName) (err error) {
	if err := o.FS.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	s, err := store.Open(store.Options{FS: o.FS, Dir: o.FS.PathJoin(o.Out, "store")})
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, s.Close())
		}
	}()
	data := s.Group(o.Group)
	replay := replica.NewReplay(data, table(way))
	full := false // the end was reached
	for i, c := range way {
		o.Progress("apply", i, len(way))
		if full {
			break
		}
		var failed error
		if _, err := c.in.read(ctx, func(b entry.Bundle) bool {
			if b.Facts == 0 || b.Before != replay.Position() || b.Fact.Epoch != c.Epoch {
				return true // not the history's, or had already
			}
			n := int(b.Count)
			if b.After().History >= end.History || !o.To.Time.IsZero() {
				if n, full, failed = cut(b, end, o.To.Time); failed != nil || n == 0 {
					return failed == nil && !full
				}
			}
			taken, err := replay.Take(b, n)
			if failed = err; taken {
				r.Time = time.Unix(0, b.Time)
			} else {
				full = false // it was not the history's
			}
			return failed == nil && !full && replay.Position().History < c.To
		}); err != nil || failed != nil {
			return errors.Join(err, failed)
		}
		if have := replay.Position(); !full && have.History < c.To {
			return fmt.Errorf("%s does not lead from %s to %s.%s: please report this", c.in.where, have, c.Epoch, c.To)
		}
	}
	if err := errors.Join(replay.Land(), s.Flush(ctx)); err != nil {
		return err
	}
	d, err := data.Digest(ctx)
	if err != nil {
		return err
	}
	r.Position, r.Files, r.Records, r.Bytes, r.Digest = d.Position.Format(history), d.Files, d.Records, d.Bytes, d.Sum
	closed = true
	if err := s.Close(); err != nil {
		return err
	}
	return r.finish(o)
}

// cut returns how many entries of the bundle are wanted: whole transactions, up to end and not later than until. full tells that
// nothing after it is wanted.
func cut(b entry.Bundle, end ident.Position, until time.Time) (n int, full bool, err error) {
	entries, err := b.All()
	if err != nil {
		return 0, false, err
	}
	for i := 0; i < len(entries); {
		k := i + 1
		for k < len(entries) && entries[k].Transaction == entries[i].Transaction && entries[i].Transaction != 0 {
			k++
		}
		for _, e := range entries[i:k] {
			if e.Fact() && e.Position.History > end.History || !until.IsZero() && e.Time > until.UnixNano() {
				return i, true, nil
			}
		}
		i = k
	}
	return len(entries), b.After().History >= end.History, nil
}

// finish makes the result durable and known.
func (r *Result) finish(o *Options) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := o.FS.Create(o.FS.PathJoin(o.Out, resultFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("finish the restore: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("finish the restore: %w", err)
	}
	dir, err := o.FS.OpenDir(o.Out)
	if err != nil {
		return fmt.Errorf("finish the restore: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// empty refuses a directory that has something in it.
func empty(fs vfs.FS, dir string) error {
	if dir == "" {
		return errors.New("no directory to restore into")
	}
	names, err := fs.List(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into %s: %w", dir, err)
	case len(names) > 0:
		return fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	}
	return nil
}

// Record is a record of a restored directory.
type Record struct {
	File string
	Key  []byte
	entry.Image
}

// Records hands every record of a restored directory to each, in order, and returns what Run returned for it.
func Records(ctx context.Context, fs vfs.FS, dir string, each func(Record) error) (Result, error) {
	if fs == nil {
		fs = vfs.Default
	}
	r, err := readResult(fs, dir)
	if err != nil {
		return r, err
	}
	s, err := store.Open(store.Options{FS: fs, Dir: fs.PathJoin(dir, "store")})
	if err != nil {
		return r, err
	}
	return r, errors.Join(records(ctx, s.Group(r.Group), each), s.Close())
}

func records(ctx context.Context, g *store.Group, each func(Record) error) error {
	files, err := g.Files()
	if err != nil {
		return err
	}
	for _, file := range files {
		for from := []byte(nil); ; {
			page, err := g.Scan(file, nil, from, 0)
			if err != nil {
				return err
			}
			for _, rec := range page.Records {
				if err := each(Record{File: file, Key: rec.Key, Image: rec.Image}); err != nil {
					return err
				}
			}
			if from = page.Next; from == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func readResult(fs vfs.FS, dir string) (r Result, err error) {
	f, err := fs.Open(fs.PathJoin(dir, resultFile))
	if err != nil {
		return r, fmt.Errorf("%s holds no finished restore: %w", dir, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r, json.NewDecoder(f).Decode(&r)
}
