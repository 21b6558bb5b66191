package replica

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// BackoutReport lists what this node had written or applied and what is not, or not by its own journal, part of the
// history. It is a file <data>/backouts/<group>/<id>.json.
type BackoutReport struct {
	ID      string          `json:"id"`
	Group   ident.GroupName `json:"group"`
	Node    ident.NodeID    `json:"node"`
	Epoch   ident.Epoch     `json:"epoch"`   // the opened epoch that put the entries outside
	Primary ident.NodeID    `json:"primary"` // of that epoch
	Fork    ident.Position  `json:"fork"`    // where this epoch continued the history
	Undone  int             `json:"undone"`  // entries undone in the store
	Lost    int             `json:"lost"`    // entries that do not live on
	At      time.Time       `json:"at"`
	Entries []BackoutEntry  `json:"entries"` // by journal and sequence
}

// BackoutEntry is one R entry, with both images where the journal has them.
type BackoutEntry struct {
	Journal       ident.JournalID `json:"journal"`
	Sequence      ident.Sequence  `json:"sequence"`
	Position      ident.Position  `json:"position"`
	Type          string          `json:"type"`
	File          string          `json:"file"`
	Key           []byte          `json:"key"`
	Before        []byte          `json:"before,omitempty"`
	BeforeKind    entry.Kind      `json:"before_kind,omitempty"`
	BeforeExpiry  int64           `json:"before_expiry,omitempty"` // unix nanoseconds; 0: none
	BeforeExists  bool            `json:"before_exists"`
	BeforeOmitted bool            `json:"before_omitted,omitempty"` // there was a record, its image was not journaled
	After         []byte          `json:"after,omitempty"`
	AfterKind     entry.Kind      `json:"after_kind,omitempty"`
	AfterExpiry   int64           `json:"after_expiry,omitempty"` // unix nanoseconds; 0: none
	AfterExists   bool            `json:"after_exists"`
	Undone        bool            `json:"undone"`   // it had been applied here and was taken back
	LivesOn       bool            `json:"lives_on"` // it is part of the history, through the new primary's journal
}

// backouts keeps the reports of one group on disk.
type backouts struct {
	fs    vfs.FS
	dir   string
	group ident.GroupName
}

func (r *Replica) backouts() backouts {
	return backouts{fs: r.o.FS, dir: r.o.FS.PathJoin(r.o.Dir, "backouts", string(r.o.Group)), group: r.o.Group}
}

// Backouts returns all reports of this node, oldest first.
func (r *Replica) Backouts() ([]BackoutReport, error) { return r.backouts().all() }

// Backout returns one report; ErrNotFound when there is none of that id. The zeros before an id may be left out.
func (r *Replica) Backout(id string) (BackoutReport, error) {
	if n, err := strconv.ParseUint(id, 10, 64); err == nil {
		id = backoutID(ident.Epoch(n))
	}
	return r.backouts().read(id)
}

// backoutID is the id of the report of an opened epoch; their order as text is that of the epochs.
func backoutID(e ident.Epoch) string { return fmt.Sprintf("%08d", e) }

// add writes the report of the opened epoch, or completes it: after a crash in the middle of an undo the rest is added.
func (s backouts) add(g *fsm.Group, node ident.NodeID, lost, undone []located, now time.Time) error {
	id := backoutID(g.OpenEpoch)
	report, err := s.read(id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if report.ID == "" {
		report = BackoutReport{ID: id, Group: s.group, Node: node, Epoch: g.OpenEpoch, Primary: g.OpenNode, Fork: core.BeforeRow(g.History), At: now}
	}
	known := make(map[string]int)
	key := func(e *BackoutEntry) string { return fmt.Sprint(e.Journal, e.Sequence) }
	for i := range report.Entries {
		known[key(&report.Entries[i])] = i
	}
	put := func(from []located, undone bool) error {
		for _, b := range from {
			entries, err := b.All()
			if err != nil {
				return fmt.Errorf("back-out report: bundle %s of %s: %w", b.First, b.author, err)
			}
			for i := range entries {
				if entries[i].Code != entry.Record {
					continue
				}
				e := backoutEntry(ident.JournalID{Group: s.group, Node: b.author}, &entries[i])
				e.Undone, e.LivesOn = undone, g.History.Contains(e.Position)
				if at, ok := known[key(&e)]; ok {
					report.Entries[at].Undone = report.Entries[at].Undone || undone
					continue
				}
				known[key(&e)] = len(report.Entries)
				report.Entries = append(report.Entries, e)
			}
		}
		return nil
	}
	if err := put(undone, true); err != nil {
		return err
	}
	if err := put(lost, false); err != nil {
		return err
	}
	return s.write(report)
}

// addLiving adds the entries of the author's own journal that live on although the new primary had not heard them
// confirmed, to a report that exists. It does nothing when there is none.
func (s backouts) addLiving(g *fsm.Group, own ident.JournalID, bundles []located) error {
	report, err := s.read(backoutID(g.OpenEpoch))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	known := make(map[ident.Sequence]bool)
	for _, e := range report.Entries {
		known[e.Sequence] = known[e.Sequence] || e.Journal == own
	}
	for _, b := range bundles {
		entries, err := b.All()
		if err != nil {
			return fmt.Errorf("back-out report: bundle %s: %w", b.First, err)
		}
		for i := range entries {
			e := &entries[i]
			if e.Code == entry.Record && !known[e.Sequence] && g.History.Contains(e.Position) {
				living := backoutEntry(own, e)
				living.LivesOn = true
				report.Entries = append(report.Entries, living)
			}
		}
	}
	return s.write(report)
}

func backoutEntry(id ident.JournalID, e *entry.Entry) BackoutEntry {
	out := BackoutEntry{
		Journal: id, Sequence: e.Sequence, Position: e.Position, Type: e.Type.String(), File: e.File, Key: slices.Clone(e.Key),
		BeforeOmitted: e.BeforeOmitted, BeforeExists: e.Before != nil || e.BeforeOmitted, AfterExists: e.After != nil,
	}
	if e.Before != nil {
		out.Before, out.BeforeKind, out.BeforeExpiry = slices.Clone(e.Before.Value), e.Before.Kind, e.Before.Expiry
	}
	if e.After != nil {
		out.After, out.AfterKind, out.AfterExpiry = slices.Clone(e.After.Value), e.After.Kind, e.After.Expiry
	}
	return out
}

func (s backouts) write(report BackoutReport) error {
	slices.SortStableFunc(report.Entries, func(a, b BackoutEntry) int {
		return cmp.Or(strings.Compare(string(a.Journal.Node), string(b.Journal.Node)), cmp.Compare(a.Sequence, b.Sequence))
	})
	report.Undone, report.Lost = 0, 0
	for _, e := range report.Entries {
		if e.Undone {
			report.Undone++
		}
		if !e.LivesOn {
			report.Lost++
		}
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode back-out report: %w", err)
	}
	if err := replaceFile(s.fs, s.dir, report.ID+".json", append(b, '\n')); err != nil {
		return fmt.Errorf("write back-out report %s: %w", report.ID, err)
	}
	return nil
}

func (s backouts) read(id string) (BackoutReport, error) {
	var report BackoutReport
	if id == "" || strings.ContainsAny(id, "/\\.") {
		return report, fmt.Errorf("%w: back-out report %q", ErrNotFound, id)
	}
	b, err := readFile(s.fs, s.fs.PathJoin(s.dir, id+".json"))
	if isNotExist(err) {
		return report, fmt.Errorf("%w: back-out report %q", ErrNotFound, id)
	}
	if err == nil {
		err = json.Unmarshal(b, &report)
	}
	if err != nil {
		return BackoutReport{}, fmt.Errorf("read back-out report %s: %w", id, err)
	}
	return report, nil
}

func (s backouts) all() ([]BackoutReport, error) {
	names, err := s.fs.List(s.dir)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list back-out reports: %w", err)
	}
	slices.Sort(names)
	var out []BackoutReport
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".json")
		if !ok {
			continue
		}
		report, err := s.read(id)
		if err != nil {
			return nil, err
		}
		out = append(out, report)
	}
	return out, nil
}

// switchData is the payload of U SW, part of the format (JSON).
type switchData struct {
	Journal  string         `json:"journal"`  // of the primary before, as group/node; "" for the first epoch
	Last     ident.Sequence `json:"last"`     // last confirmed sequence known in it here: where the copy ends once it is inactive
	Received ident.Sequence `json:"received"` // last sequence received here; what lies between lives on through this journal
	Epoch    ident.Epoch    `json:"epoch"`    // that begins
	Node     ident.NodeID   `json:"node"`     // its primary
}

// readSwitch finds the SW of an epoch in the journals held.
func (r *Replica) readSwitch(sw ident.Position) (data switchData, first ident.Sequence, in *journal.Journal, err error) {
	b, j, err := r.bundleOf(sw)
	if err != nil {
		return data, 0, nil, err
	}
	for e, err := range b.Entries() {
		if err != nil {
			return data, 0, nil, err
		}
		if e.Position == sw && e.Code == entry.User && e.Type == entry.Switch {
			return data, e.Sequence, j, json.Unmarshal(e.Data, &data)
		}
	}
	return data, 0, nil, fmt.Errorf("no U SW stands at %s in journal %s", sw, j.ID())
}
