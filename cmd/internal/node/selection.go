package node

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// selection tells which group owns a record, by one state. It is immutable. Nodes with the same state say the same.
type selection struct {
	state *fsm.State
	specs []*fsm.GroupSpec // the first that selects a record owns it
}

func newSelection(st *fsm.State) *selection { return &selection{st, st.Selecting()} }

// owner returns the group that owns a record; false when none selects it. It may be one that is only planned.
func (s *selection) owner(file string, key []byte) (ident.GroupName, bool) {
	for _, g := range s.specs {
		if g.Selects(file, key) {
			return g.Name, true
		}
	}
	return "", false
}

// claims tells whether a group selects any key of the file.
func (s *selection) claims(file string) bool {
	return slices.ContainsFunc(s.specs, func(g *fsm.GroupSpec) bool { return g.SelectsFile(file) })
}

// span is a range of a file's keys with one owner.
type span struct {
	keys  fsm.KeyRange
	group ident.GroupName // "": no group selects them
}

// spans cuts a file into ranges with one owner each, in key order. Together they are all keys, and neighbours have different owners.
func (s *selection) spans(file string) []span {
	bounds := []fsm.KeyBound{""}
	for _, g := range s.specs {
		if g.SelectsFile(file) {
			bounds = append(bounds, g.Keys.From, g.Keys.To) // an open end is the first bound of all, which is there
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var all []span
	for _, b := range bounds {
		name, _ := s.owner(file, []byte(b))
		if n := len(all); n == 0 || all[n-1].group != name {
			if n > 0 {
				all[n-1].keys.To = b
			}
			all = append(all, span{fsm.KeyRange{From: b}, name})
		}
	}
	return all
}

// within returns the parts that have keys from the given one on that begin with prefix.
func within(all []span, prefix, from []byte) []span {
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	var out []span
	for _, p := range all {
		below := p.keys.To != "" && string(p.keys.To) <= string(from)
		above := p.keys.From != "" && string(p.keys.From) > string(prefix) && !bytes.HasPrefix([]byte(p.keys.From), prefix)
		if !below && !above {
			out = append(out, p)
		}
	}
	return out
}

// owners lists the groups that own parts of a file, each once, in the order of their first keys; none: nobody selects the file.
func owners(all []span) (names []ident.GroupName) {
	for _, p := range all {
		if p.group != "" && !slices.Contains(names, p.group) {
			names = append(names, p.group)
		}
	}
	return names
}

// checkSelection checks what a configured group selects, and that it is clear which records are its and not those of the groups before it.
func checkSelection(where string, g fsm.GroupSpec, before []fsm.GroupSpec) (p []error) {
	if err := g.CheckSelection(); err != nil {
		return []error{fmt.Errorf("%s.%w", where, err)}
	}
	g = g.Normalize()
	for i, other := range before {
		if other.CheckSelection() != nil || other.Name == g.Name { // said already
			continue
		}
		other = other.Normalize()
		if why, is := fsm.Ambiguous(&other, &g); is {
			p = append(p, fmt.Errorf("%s.files: %s, as groups[%d] does (%s; %s): exclude with \"!pattern\", or give both ranges of keys that do not overlap", where, why, i, other.Keys, g.Keys))
		}
	}
	return p
}

// selections remembers what was made of the newest state.
type selections struct{ newest atomic.Pointer[selection] }

// of returns the selection by a state.
func (s *selections) of(st *fsm.State) *selection {
	if have := s.newest.Load(); have != nil && have.state == st {
		return have
	}
	made := newSelection(st)
	s.newest.Store(made)
	return made
}

// selection is by the state as this node knows it now.
func (n *Node) selection() *selection {
	st, _ := n.cluster.State()
	return n.selections.of(st)
}

// owns returns what a group's sequencer asks of every record before it takes it: whether it is the group's by the state of now.
// An earlier look, here or at the node that forwarded the request, may have been at another state.
func (n *Node) owns(group ident.GroupName) func() func(file string, key []byte) error {
	return func() func(string, []byte) error {
		s := n.selection()
		return func(file string, key []byte) error {
			if name, ok := s.owner(file, key); !ok || name != group {
				return fmt.Errorf("%w: key %q of file %q is not one of group %s any more, or not yet", replica.ErrNotOwned, key, file, group)
			}
			return nil
		}
	}
}
