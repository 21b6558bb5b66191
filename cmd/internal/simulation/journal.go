package simulation

import (
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/core"
)

// op is one entry that a client asked for.
type op struct {
	id  uint64
	key uint8 // 0: an append of its own
}

// bundle is sealed: never modified.
type bundle struct {
	entry.Header
	ops   []op
	sw    bool
	by    ident.NodeID // SW: whose epoch it begins
	chain uint64       // over all bundles up to this one
}

func (b *bundle) content() uint64 {
	h := mix(uint64(b.Fact.Epoch), uint64(b.Fact.History))
	h = mix(mix(mix(h, uint64(b.Before.Epoch)), uint64(b.Before.History)), uint64(b.Facts))
	for _, o := range b.ops {
		h = mix(mix(h, o.id), uint64(o.key))
	}
	return mix(h, boolean(b.sw))
}

func (b *bundle) link(before uint64) uint64 {
	h := mix(mix(before, uint64(b.First)), uint64(b.Count))
	return mix(mix(h, uint64(b.Session)), b.content())
}

// maxFacts is how many facts a bundle has at most.
const maxFacts = 3

// receiverBundles is how many bundles a receiver has: receivers are deleted as a whole.
const receiverBundles = 5

// journal is what one node holds of what one author wrote.
type journal struct {
	c         *copied
	author    ident.NodeID
	list      []*bundle
	base      ident.Sequence // what is at or below was deleted, or never held
	baseAt    ident.Position
	baseChain uint64
	durable   ident.Sequence
	confirmed ident.Sequence // durable at the author, as it said; of the own journal: durable
	committed ident.Sequence
	found     ident.Sequence   // end that this life found
	cuts      []ident.Sequence // the ends after which something was removed in this life
	syncing   bool
	torn      bool
	runs      []entry.Run
	fresh     bool // runs fit the list
}

func (j *journal) last() ident.Sequence {
	if n := len(j.list); n > 0 {
		return j.list[n-1].Last()
	}
	return j.base
}

func (j *journal) first() ident.Sequence { return j.base + 1 }

func (j *journal) after() ident.Position {
	if n := len(j.list); n > 0 {
		return j.list[n-1].After()
	}
	return j.baseAt
}

func (j *journal) chain() uint64 {
	if n := len(j.list); n > 0 {
		return j.list[n-1].chain
	}
	return j.baseChain
}

// index returns where the bundle with a sequence stands.
func (j *journal) index(seq ident.Sequence) int {
	lo, hi := 0, len(j.list)
	for lo < hi {
		if m := (lo + hi) / 2; j.list[m].Last() < seq {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// at returns the bundle that contains a sequence, or nil.
func (j *journal) at(seq ident.Sequence) *bundle {
	if i := j.index(seq); i < len(j.list) && j.list[i].First <= seq {
		return j.list[i]
	}
	return nil
}

// find returns the bundle that contains a fact, the newest one.
func (j *journal) find(p ident.Position) *bundle {
	for i := len(j.list) - 1; i >= 0; i-- {
		b := j.list[i]
		if b.Facts > 0 && b.Fact.Epoch == p.Epoch && b.Fact.History <= p.History && p.History <= b.After().History {
			return b
		}
	}
	return nil
}

// add appends a sealed bundle, and syncs it by and by.
func (j *journal) add(b *bundle, promisedFor ident.Epoch) {
	w := j.c.n.w
	if b.First != j.last()+1 {
		w.fail("S23", "%s: bundle %s follows sequence %s in journal %s", j.c, b.First, j.last(), j.author)
	}
	w.oracle.writes(j.c, promisedFor, "appended")
	w.oracle.means(j.c.group, b)
	j.list = append(j.list[:len(j.list):len(j.list)], b)
	j.fresh = false
	if j.author != j.c.n.id { // each bundle says what its author had on disk, and committed, when it was made
		j.confirmed, j.committed = max(j.confirmed, b.Durable), max(j.committed, b.Committed)
	}
	j.flush()
}

// flush syncs what is there, and again what came meanwhile.
func (j *journal) flush() {
	if j.syncing || j.durable == j.last() {
		return
	}
	j.syncing = true
	upTo := j.last()
	j.c.n.sync(func() {
		j.syncing = false
		j.durable = max(j.durable, min(upTo, j.last()))
		if j.author == j.c.n.id {
			j.confirmed = j.durable
		}
		j.flush()
		j.c.moved()
	})
}

// rewind removes what lies beyond a sequence, durably.
func (j *journal) rewind(end ident.Sequence, epoch ident.Epoch) {
	j.c.n.w.oracle.writes(j.c, epoch, "removed")
	j.list = j.list[:j.index(end+1):j.index(end+1)]
	j.cuts = append(j.cuts, end)
	j.durable, j.confirmed, j.committed = min(j.durable, end), min(j.confirmed, end), min(j.committed, end)
	j.fresh = false
}

// crash loses what was not synced, or a part of it, when the power fails; a process that dies loses nothing it wrote.
func (j *journal) crash(power bool) {
	w := j.c.n.w
	j.syncing = false
	if keep := j.index(j.durable + 1); power && keep < len(j.list) {
		kept := keep + w.rng.IntN(len(j.list)-keep+1)
		if kept < len(j.list) {
			w.stats.LostTails++
			if w.chance(0.5) { // a part of the next one remains
				j.torn = true
				w.stats.TornTails++
			}
		}
		j.list = j.list[:kept:kept]
	}
	j.fresh = false
	j.durable = j.last()
	j.confirmed, j.committed = 0, 0
	if n := len(j.list); n > 0 { // what the newest bundle says
		j.confirmed, j.committed = min(j.list[n-1].Durable, j.durable), min(j.list[n-1].Committed, j.durable)
	}
	if j.author == j.c.n.id {
		j.confirmed = j.durable
	}
}

// spans returns the runs of the journal.
func (j *journal) spans() []entry.Run {
	if j.fresh {
		return j.runs
	}
	j.runs, j.fresh = j.runs[:0:0], true
	for _, b := range j.list {
		if b.Facts == 0 {
			continue
		}
		n := len(j.runs)
		if n > 0 && j.runs[n-1].Epoch == b.Fact.Epoch && j.runs[n-1].End() == b.Before {
			j.runs[n-1].To, j.runs[n-1].Last = b.After().History, b.Last()
			continue
		}
		j.runs = append(j.runs, entry.Run{Epoch: b.Fact.Epoch, From: b.Fact.History, To: b.After().History, Before: b.Before, First: b.First, Last: b.Last()})
	}
	return j.runs
}

// durableAfter is the position after the last durable bundle.
func (j *journal) durableAfter() ident.Position {
	if i := j.index(j.durable+1) - 1; i >= 0 {
		return j.list[i].After()
	}
	return j.baseAt
}

// headers reads headers for the rules.
func (j *journal) headers(seq ident.Sequence) (entry.Header, error) {
	if b := j.at(seq); b != nil {
		return b.Header, nil
	}
	return entry.Header{}, errUnknown
}

// boughs returns the runs of all journals that a node holds of a group.
func (c *copied) boughs(durable bool) []core.Bough {
	var out []core.Bough
	for _, j := range c.journals {
		if j == nil {
			continue
		}
		runs := j.spans()
		if durable {
			runs = core.RunsUpTo(runs, j.durable, j.durableAfter())
		}
		for _, r := range runs {
			out = append(out, core.Bough{Run: r, Author: j.author})
		}
	}
	return out
}
