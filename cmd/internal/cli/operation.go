package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newOperation(a *app) *cobra.Command {
	parse := func(s string) (uint64, error) {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil || id == 0 {
			return 0, usagef("%q is not the number of an operation; `understudy operation show` lists them", s)
		}
		return id, nil
	}
	show := &cobra.Command{
		Use:   "show [ID]",
		Short: "Show one operation with its steps, or all",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				if len(args) == 0 {
					all, err := cl.Operations(ctx)
					if err != nil {
						return err
					}
					return a.show(all, func(w io.Writer) { writeOperations(w, all) })
				}
				id, err := parse(args[0])
				if err != nil {
					return err
				}
				o, err := cl.Operation(ctx, id, 0)
				if err != nil {
					return err
				}
				return a.show(o, func(w io.Writer) { writeOperation(w, o) })
			})
		},
	}
	var wait time.Duration
	follow := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until an operation is over; the exit code tells how",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parse(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				return a.waitOperation(cmd.Context(), cl, id, wait)
			})
		},
	}
	follow.Flags().DurationVar(&wait, "wait", 5*time.Minute, "give up after this long with exit code 75")
	return family("operation", "Show or wait for switch-overs and failovers", show, follow)
}

// waitOperation asks until the operation is over, in pieces that survive the loss of the node that is asked.
func (a *app) waitOperation(ctx context.Context, cl *client.Client, id uint64, wait time.Duration) error {
	const piece = 10 * time.Second
	deadline := time.Now().Add(wait)
	for {
		left := time.Until(deadline)
		ask, cancel := context.WithTimeout(ctx, min(max(left, time.Second), piece)+askTimeout)
		o, err := cl.Operation(ask, id, max(0, min(left, piece)))
		cancel()
		switch {
		case err == nil && (o.Finished() || time.Now().After(deadline)):
			return a.operationResult(o)
		case err != nil && (ctx.Err() != nil || errors.Is(err, client.ErrNotFound) || time.Now().After(deadline)):
			return err
		case err != nil:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// operationResult prints an operation and turns its state into the exit code.
func (a *app) operationResult(o client.Operation) error {
	if err := a.show(o, func(w io.Writer) { writeOperation(w, o) }); err != nil {
		return err
	}
	name := fmt.Sprintf("%s %d of group %s", o.Kind, o.ID, o.Group)
	switch {
	case o.State == client.OperationDone:
		return nil
	case o.State == client.OperationScheduled:
		return exitWith(exitRunning, "%s has not begun: it is scheduled for %s; `understudy operation wait %d` waits for its end", name, humanTime(o.Schedule.At), o.ID)
	case !o.Finished():
		return exitWith(exitRunning, "%s is still running; `understudy operation wait %d` waits for its end", name, o.ID)
	case o.State == client.OperationRolledBack && neverBegan(o):
		return exitWith(exitRolledBack, "%s did not begin, nothing changed: %s", name, orUnknown(o.Error))
	case o.State == client.OperationRolledBack:
		return exitWith(exitRolledBack, "%s was rolled back, nothing changed: %s", name, orUnknown(o.Error))
	case o.Committed:
		return exitWith(exitIncomplete, "%s passed its commit point but was not finished: %s; look at `understudy status %s`", name, orUnknown(o.Error), o.Group)
	}
	return fmt.Errorf("%s failed: %s", name, orUnknown(o.Error))
}

func orUnknown(s string) string {
	if s == "" {
		return "no reason was recorded"
	}
	return s
}

// operationLine says in one line what runs.
func operationLine(o client.Operation) string {
	s := fmt.Sprintf("%s %d %s: %s", o.Kind, o.ID, fromTo(o.From, o.To), o.State)
	if p := o.Schedule; p != nil && o.State == client.OperationScheduled {
		s += " for " + humanTime(p.At)
		if p.By != "" {
			s += " by " + p.By
		}
		if p.Waits != "" {
			s += "; it waits: " + p.Waits
		}
		return s
	}
	if neverBegan(o) {
		return fmt.Sprintf("%s, did not begin at %s", s, humanTime(o.Schedule.At))
	}
	if !o.Finished() {
		s += ", step " + o.Step
	}
	if d := took(o); d > 0 {
		s += ", " + humanDuration(d)
	}
	return s
}

func fromTo(from, to string) string {
	if to == "" {
		to = "?"
	}
	return from + " → " + to
}

func took(o client.Operation) time.Duration {
	if o.State == client.OperationScheduled || neverBegan(o) {
		return 0
	}
	if o.Ended.IsZero() {
		if o.Finished() {
			return 0
		}
		return time.Since(o.Started)
	}
	return o.Ended.Sub(o.Started)
}

func writeOperation(w io.Writer, o client.Operation) {
	fmt.Fprintf(w, "%s (group %s)\n", operationLine(o), o.Group)
	t := newTable("STEP", "NODE", ">AFTER", ">TOOK", "DETAIL")
	t.indent = "  "
	for i, s := range o.Steps {
		length := ""
		if o.Finished() || i+1 < len(o.Steps) {
			length = humanDuration(time.Duration(s.Took))
		}
		t.add(s.Name, s.Node, humanDuration(s.At.Sub(o.Started)), length, s.Detail)
	}
	if len(t.rows) > 0 {
		t.write(w)
	}
	if d, ok := o.Held(); ok {
		fmt.Fprintf(w, "  writes were held for %s, from drain on\n", humanDuration(d))
	}
	if o.Reason != "" {
		writeProse(w, 2, "  reason: "+o.Reason)
	}
	if o.Error != "" {
		writeProse(w, 2, "  error: "+asCommands(o.Error))
	}
}

func writeOperations(w io.Writer, all []client.Operation) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No operation yet.")
		return
	}
	t := newTable(">ID", "KIND", "GROUP", "FROM → TO", "STATE", "STARTED", ">TOOK", "REASON")
	for _, o := range all {
		state, reason := o.State, o.Reason
		switch {
		case o.State == client.OperationScheduled:
			reason = "begins " + humanSecond(o.Schedule.At)
		case neverBegan(o):
			reason = neverBeganText(o)
		case !o.Finished():
			state += ", " + o.Step
		}
		t.add(o.ID, o.Kind, o.Group, fromTo(o.From, o.To), state, humanSecond(o.Started), humanDuration(took(o)), reason)
	}
	t.write(w)
}
