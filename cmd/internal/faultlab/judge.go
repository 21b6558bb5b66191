package faultlab

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Tally counts a history.
type Tally struct {
	OK, Failed, Unknown int // writes
	Reads, Locals       int // answered
	Commands            int // of Redis clients, answered
}

func (t Tally) String() string {
	return fmt.Sprintf("writes: %d acknowledged, %d failed, %d unknown; reads: %d, local: %d, of Redis: %d", t.OK, t.Failed, t.Unknown, t.Reads, t.Locals, t.Commands)
}

func (t *Tally) add(o Tally) {
	t.OK += o.OK
	t.Failed += o.Failed
	t.Unknown += o.Unknown
	t.Reads += o.Reads
	t.Locals += o.Locals
	t.Commands += o.Commands
}

func tally(history []oracle.Operation) (t Tally) {
	for _, o := range history {
		switch {
		case o.Kind == oracle.Read && o.Outcome == oracle.OK:
			t.Reads++
		case o.Kind == oracle.Local && o.Outcome == oracle.OK:
			t.Locals++
		case o.Kind != oracle.Write:
		case o.Outcome == oracle.OK:
			t.OK++
		case o.Outcome == oracle.Failed:
			t.Failed++
		default:
			t.Unknown++
		}
	}
	return t
}

// decideWithin bounds the check of one register.
const decideWithin = 20 * time.Second

// Judge says what is wrong with a history whose set ended as final.
func Judge(history []oracle.Operation, final []oracle.Element) error {
	in := func(file string) func(oracle.Operation) bool {
		return func(o oracle.Operation) bool { return strings.HasPrefix(o.Key, file+"/") }
	}
	return errors.Join(
		oracle.Set(oracle.Select(history, in(setFile)), final),
		oracle.Linearizable(oracle.Select(history, in(registerFile)), decideWithin),
		oracle.Linearizable(oracle.Select(history, in(counterFile)), decideWithin),
		agedCopies(oracle.Select(history, in(counterFile))),
		inOrder(history),
	)
}

// agedCopies holds local reads of counters against what the one writer was told: a copy that calls itself younger than localLag shows
// everything that was acknowledged so long before, and nothing that was refused or not tried yet.
func agedCopies(history []oracle.Operation) error {
	var faults []error
	number := func(o oracle.Operation) int {
		if o.Kind != oracle.Write && !o.Found {
			return 0
		}
		n, err := strconv.Atoi(o.Value)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s holds %q, which nobody wrote", o.Key, o.Value))
		}
		return n
	}
	writes := map[string][]oracle.Operation{}
	for _, o := range history {
		if o.Kind == oracle.Write {
			writes[o.Key] = append(writes[o.Key], o)
		}
	}
	for _, r := range history {
		if r.Kind != oracle.Local || r.Outcome != oracle.OK {
			continue
		}
		have, known := number(r), !r.Found
		for _, w := range writes[r.Key] {
			n := number(w)
			if w.Outcome == oracle.OK && w.Ended < r.Began-localLag && have < n {
				faults = append(faults, fmt.Errorf("stale copy: %s of %s was %d from %s to %s, though %d was acknowledged at %s", r.Key, r.Copy, have, r.Began, r.Ended, n, w.Ended))
				break
			}
			if n == have {
				known = w.Outcome != oracle.Failed && w.Call < r.Return
			}
		}
		if !known {
			faults = append(faults, fmt.Errorf("dirty copy: %s of %s was %d at %s, which nobody had written", r.Key, r.Copy, have, r.Ended))
		}
	}
	return few(faults)
}

// few joins the first findings and counts the others.
func few(faults []error) error {
	const told = 5
	if more := len(faults) - told; more > 0 {
		faults = append(faults[:told:told], fmt.Errorf("and %d more", more))
	}
	return errors.Join(faults...)
}

// inOrder holds the positions of acknowledged writes against real time: of two writes, the second sent after the first was acknowledged,
// the second stands later in the history, and no two stand at one place. Two primaries at once would break it.
func inOrder(history []oracle.Operation) error {
	type placed struct {
		oracle.Operation
		at ident.Position
	}
	var faults []error
	var writes []placed
	for _, o := range history {
		if o.Kind != oracle.Write || o.Outcome != oracle.OK {
			continue
		}
		_, at, err := ident.ParsePosition(o.Position)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s was acknowledged: %w", o.Key, err))
			continue
		}
		writes = append(writes, placed{o, at})
	}
	slices.SortFunc(writes, func(a, b placed) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Call, b.Call)) })
	latest := placed{} // whose beginning is the latest so far
	for i, w := range writes {
		if i > 0 && w.at == writes[i-1].at {
			faults = append(faults, fmt.Errorf("split brain: %s and %s were both acknowledged at %s", writes[i-1].Key, w.Key, w.Position))
		}
		if w.Return < latest.Call {
			faults = append(faults, fmt.Errorf("split brain: %s was acknowledged at %s as %s, and %s, sent at %s after that, as the earlier %s",
				w.Key, w.Ended, w.Position, latest.Key, latest.Began, latest.Position))
		}
		if w.Call > latest.Call {
			latest = w
		}
	}
	return few(faults)
}
