package oracle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Element is one record of a set as the final read showed it.
type Element struct {
	Key      string
	Value    string
	Position string
}

// limit bounds how many findings of a kind are told.
const limit = 5

// findings collects errors, the first few of each kind.
type findings struct {
	count map[string]int
	errs  []error
}

func (f *findings) add(kind, format string, args ...any) {
	if f.count == nil {
		f.count = map[string]int{}
	}
	if f.count[kind]++; f.count[kind] <= limit {
		f.errs = append(f.errs, fmt.Errorf(kind+": "+format, args...))
	}
}

func (f *findings) err() error {
	for _, k := range slices.Sorted(maps.Keys(f.count)) {
		if n := f.count[k] - limit; n > 0 {
			f.errs = append(f.errs, fmt.Errorf("%s: %d more", k, n))
		}
	}
	return errors.Join(f.errs...)
}

// Set checks a workload in which every key is written once, against the final content: no acknowledged element is lost, none
// is there that was refused or never written, each stands where its receipt says (an element that was done twice stands
// somewhere else), and a read never lost sight of an acknowledged one. A local read that found an element must not have seen
// one that the history later did without.
func Set(operations []Operation, final []Element) error {
	var f findings
	there := map[string]Element{}
	for _, e := range final {
		if _, twice := there[e.Key]; twice {
			f.add("duplicate element", "%s stands twice", e.Key)
		}
		there[e.Key] = e
	}
	written := map[string]Operation{}
	for _, o := range operations {
		if o.Kind == Write {
			written[o.Key] = o
		}
	}
	for _, o := range operations {
		e, present := there[o.Key]
		switch {
		case o.Kind == Write && o.Outcome == OK && !present:
			f.add("lost element", "%s, acknowledged at %s after %s", o.Key, o.Position, o.Ended)
		case o.Kind == Write && o.Outcome == Failed && present:
			f.add("phantom element", "%s was refused (%s) but stands at %s", o.Key, o.Error, e.Position)
		case o.Kind == Write && present && e.Value != o.Value:
			f.add("altered element", "%s holds %q, written was %q", o.Key, e.Value, o.Value)
		case o.Kind == Write && present && o.Position != "" && o.Position != e.Position:
			f.add("repeated element", "%s stands at %s, its receipt says %s", o.Key, e.Position, o.Position)
		case o.Kind == Read && o.Outcome == OK:
			w := written[o.Key]
			if !o.Found && w.Outcome == OK && w.Return < o.Call {
				f.add("stale read", "%s was acknowledged after %s, not found by a read that began at %s", o.Key, w.Ended, o.Began)
			}
			if o.Found && !present {
				f.add("dirty read", "%s was read at %s and is not in the history", o.Key, o.Ended)
			}
		case o.Kind == Local && o.Outcome == OK && o.Found && !present:
			f.add("dirty read", "%s was read from the copy of %s at %s and is not in the history", o.Key, o.Copy, o.Ended)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(there)) {
		if _, known := written[k]; !known {
			f.add("phantom element", "%s was never written", k)
		}
	}
	return f.err()
}

// Balance is one view of all accounts.
type Balance struct {
	Who   string // for the message
	Total int
	Count int // accounts seen
}

// Bank checks that money is neither made nor lost: every view of all accounts at one position has the same sum.
func Bank(views []Balance, total, count int) error {
	var f findings
	for _, v := range views {
		if v.Total != total || v.Count != count {
			f.add("wrong sum", "%s saw %d in %d accounts, want %d in %d", v.Who, v.Total, v.Count, total, count)
		}
	}
	return f.err()
}

// Sample is one look at something that only grows.
type Sample struct {
	Value int64
	Who   string // the series it belongs to: one copy in one life, or one client
}

// Monotonic checks that no series goes back.
func Monotonic(samples []Sample) error {
	var f findings
	last := map[string]int64{}
	for _, s := range samples {
		if have, ok := last[s.Who]; ok && s.Value < have {
			f.add("went back", "%s saw %d after %d", s.Who, s.Value, have)
		}
		last[s.Who] = max(last[s.Who], s.Value)
	}
	return f.err()
}
