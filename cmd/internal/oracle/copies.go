package oracle

import (
	"fmt"
	"maps"
	"slices"
)

// Digest is the content of one copy at one position.
type Digest struct {
	Node     string
	Position string
	Records  uint64
	Sum      string
}

// SameDigests checks that copies at one position are equal, and that at least want copies stand at one.
func SameDigests(digests []Digest, want int) error {
	var f findings
	at := map[string]Digest{}
	count := map[string]int{}
	most := 0
	for _, d := range digests {
		count[d.Position]++
		most = max(most, count[d.Position])
		if have, ok := at[d.Position]; ok && (have.Sum != d.Sum || have.Records != d.Records) {
			f.add("divergent copies", "at %s: %s has %d records %s, %s has %d records %s", d.Position, have.Node, have.Records, have.Sum, d.Node, d.Records, d.Sum)
			continue
		}
		at[d.Position] = d
	}
	if most < want {
		f.add("copies apart", "want %d copies at one position, have %v", want, digests)
	}
	return f.err()
}

// Entry is one entry of a copy of a journal.
type Entry struct {
	Sequence uint64
	Position string // "": the entry is no fact of the history
	Content  string
}

// Journal is one node's copy of one journal.
type Journal struct {
	Node    string // who holds the copy
	Name    string
	Entries []Entry
}

// SameJournals checks that copies of one journal agree where they overlap, that none has a gap, and that a position means
// the same on every node and in every journal.
func SameJournals(journals []Journal) error {
	var f findings
	type place struct {
		name     string
		sequence uint64
	}
	seen := map[place]Entry{}
	holder := map[place]string{}
	facts := map[string]string{}
	for _, j := range journals {
		for i, e := range j.Entries {
			if i > 0 && e.Sequence != j.Entries[i-1].Sequence+1 {
				f.add("gap", "%s's copy of %s goes from %d to %d", j.Node, j.Name, j.Entries[i-1].Sequence, e.Sequence)
			}
			p := place{j.Name, e.Sequence}
			if have, ok := seen[p]; ok && have != e {
				f.add("journals differ", "%s at %d is %s at %s for %s, %s at %s for %s", j.Name, e.Sequence, have.Content, have.Position, holder[p], e.Content, e.Position, j.Node)
			}
			seen[p], holder[p] = e, j.Node
			if e.Position == "" {
				continue
			}
			if have, ok := facts[e.Position]; ok && have != e.Content {
				f.add("position means two things", "%s is %s and, in %s of %s, %s", e.Position, have, j.Name, j.Node, e.Content)
			}
			facts[e.Position] = e.Content
		}
	}
	return f.err()
}

// NotEmpty is a guard: the history holds at least ok operations that succeeded, of each of the kinds.
func NotEmpty(operations []Operation, ok int, kinds ...Kind) error {
	var f findings
	count := map[Kind]int{}
	for _, o := range operations {
		if o.Outcome == OK {
			count[o.Kind]++
		}
	}
	for _, k := range kinds {
		if count[k] < ok {
			f.add("nothing was tested", "%d of kind %s succeeded, want %d", count[k], k, ok)
		}
	}
	return f.err()
}

// Active is a guard: every fault that was begun did something.
func Active(effects map[string]int, begun []string) error {
	var f findings
	for _, b := range slices.Compact(slices.Sorted(slices.Values(begun))) {
		if effects[b] == 0 {
			f.add("a fault did nothing", "%s; what had effects: %s", b, fmt.Sprint(slices.Sorted(maps.Keys(effects))))
		}
	}
	return f.err()
}
