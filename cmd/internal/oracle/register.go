package oracle

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the state of one key in the model.
type register struct {
	found bool
	value string
}

// Linearizable checks registers, each key for itself: there is an order of all operations, in which each lies between its
// beginning and its end, that explains what was read. Failed writes must have had no effect. Values written to one key must
// differ. Local reads are not looked at. A key that cannot be decided within limit is an error as well.
func Linearizable(operations []Operation, limit time.Duration) error {
	return decide(operations, registerModel(), history, limit)
}

// decide checks the operations of each key for themselves. form turns them into porcupine's form.
func decide(operations []Operation, model porcupine.Model, form func([]Operation) []porcupine.Operation, limit time.Duration) error {
	keys := map[string][]Operation{}
	for _, o := range operations {
		keys[o.Key] = append(keys[o.Key], o)
	}
	names := make([]string, 0, len(keys))
	for k := range keys {
		names = append(names, k)
	}
	slices.Sort(names)
	var errs []error
	for _, k := range names {
		switch porcupine.CheckOperationsTimeout(model, form(keys[k]), limit) {
		case porcupine.Illegal:
			errs = append(errs, fmt.Errorf("key %s is not linearizable: no order explains %s", k, culprit(keys[k], model, form, limit)))
		case porcupine.Unknown:
			errs = append(errs, fmt.Errorf("key %s: %d operations could not be checked within %s", k, len(keys[k]), limit))
		}
	}
	return errors.Join(errs...)
}

// culprit names the operation with whose end a history stops being linearizable, and what came shortly before.
func culprit(operations []Operation, model porcupine.Model, form func([]Operation) []porcupine.Operation, limit time.Duration) string {
	const told = 12
	var ends []Operation
	for _, o := range operations {
		if o.Return != 0 {
			ends = append(ends, o)
		}
	}
	slices.SortFunc(ends, func(a, b Operation) int { return cmp.Compare(a.Return, b.Return) })
	i, _ := slices.BinarySearchFunc(ends, false, func(o Operation, _ bool) int { // the first end after which it is illegal
		if porcupine.CheckOperationsTimeout(model, form(until(operations, o.Return)), limit) == porcupine.Illegal {
			return 0
		}
		return -1
	})
	var b strings.Builder
	for _, o := range ends[max(0, i-told+1):min(i+1, len(ends))] {
		fmt.Fprintf(&b, "\n\tclient %d at %s, %d to %d (%s to %s): %s %s %q %q: %s %s", o.Client, o.Copy, o.Call, o.Return, o.Began, o.Ended, o.Kind, o.Value, o.Reply, o.Position, o.Outcome, o.Error)
	}
	return "the last of" + b.String()
}

// until is a history as it was known at an instant.
func until(operations []Operation, at int64) (out []Operation) {
	for _, o := range operations {
		if o.Call > at {
			continue
		}
		if o.Return > at && o.Outcome == OK {
			o.Outcome = Unknown
		}
		out = append(out, o)
	}
	return out
}

// timed is an operation with its beginning and end. One of unknown outcome never returns, and its client went on.
func timed(o Operation, n int) porcupine.Operation {
	p := porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Call, Return: o.Return}
	if o.Outcome == Unknown {
		p.Return, p.ClientId = math.MaxInt64, -1-n
	}
	return p
}

// history turns the operations of one key into porcupine's form. A write of unknown outcome never returns; one whose value
// nobody read can always have happened after everything else, so it is left out.
func history(operations []Operation) []porcupine.Operation {
	read := map[string]bool{}
	for _, o := range operations {
		if o.Kind == Read && o.Outcome == OK && o.Found {
			read[o.Value] = true
		}
	}
	var out []porcupine.Operation
	for _, o := range operations {
		switch {
		case o.Kind == Local, o.Outcome == Failed, o.Kind == Read && o.Outcome != OK:
			continue
		case o.Outcome == Unknown && o.Kind == Write && !read[o.Value]:
			continue
		}
		out = append(out, timed(o, len(out)))
	}
	return out
}

func registerModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return register{} },
		Step: func(state, input, _ any) (bool, any) {
			s, o := state.(register), input.(Operation)
			switch o.Kind {
			case Write:
				return true, register{found: true, value: o.Value}
			case Delete:
				return true, register{}
			}
			return s.found == o.Found && (!o.Found || s.value == o.Value), s
		},
		Equal: func(a, b any) bool { return a == b },
	}
}
