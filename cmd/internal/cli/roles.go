package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newSwitchover(a *app) *cobra.Command {
	var o switchOptions
	cmd := &cobra.Command{
		Use:   "switchover GROUP",
		Short: "Hand the primary role over, without losing a request",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && o.to == "" {
				return usagef("--to is empty: name a node, or leave it out for the best in-sync secondary")
			}
			return a.switchover(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().StringVar(&o.to, "to", "", "node that takes over (default the best in-sync secondary)")
	o.flags(cmd)
	return cmd
}

func newSwitchback(a *app) *cobra.Command {
	o := switchOptions{back: true}
	cmd := &cobra.Command{
		Use:   "switchback GROUP",
		Short: "Hand the primary role back to the group's preferred node",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.switchover(cmd.Context(), args[0], o) },
	}
	o.flags(cmd)
	return cmd
}

type switchOptions struct {
	to       string
	back     bool // to the preferred node
	dryRun   bool
	at       string
	maxPause time.Duration
	wait     time.Duration
}

func (o *switchOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "check and forecast only, change nothing")
	f.StringVar(&o.at, "at", "", "schedule it: 15:04, 2006-01-02T15:04:05Z, or +10m")
	f.DurationVar(&o.maxPause, "max-pause", 5*time.Second, "roll back when the role cannot be given away so long after writes are held")
	f.DurationVar(&o.wait, "wait", 30*time.Second, "wait this long for the end, then leave with exit code 75")
}

func (a *app) switchover(ctx context.Context, group string, o switchOptions) error {
	if o.maxPause <= 0 {
		return usagef("--max-pause %s: must be positive", o.maxPause)
	}
	at, err := parseMoment(o.at, time.Now())
	if err != nil {
		return err
	}
	return a.withClient(func(cl *client.Client) error {
		if o.back {
			ask, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			g, err := cl.Group(ask, group)
			if err != nil {
				return err
			}
			switch o.to = g.Spec.Preferred; o.to {
			case "":
				return exitWith(exitPrecondition, "group %s has no preferred node; use `understudy switchover %s --to NODE`", group, group)
			case g.Primary:
				return a.show(g, func(w io.Writer) {
					fmt.Fprintf(w, "%s is primary of group %s already. Nothing to do.\n", o.to, group)
				})
			}
		}
		r := client.SwitchoverRequest{To: o.to, At: at, MaxPause: client.Duration(o.maxPause)}
		if !at.IsZero() {
			r.By = operator()
		}
		ask, cancel := context.WithTimeout(ctx, o.wait+askTimeout)
		defer cancel()
		if o.dryRun {
			ready, err := cl.DryRun(ask, group, r)
			if err != nil {
				return err
			}
			if err := a.show(ready, func(w io.Writer) { writeReadiness(w, ready) }); err != nil {
				return err
			}
			if !ready.Ready {
				return exitWith(exitPrecondition, "a switch-over is not possible now; nothing was changed")
			}
			return nil
		}
		op, err := switcher{cl, min(seekSwitch, o.wait)}.run(ask, group, r, o.wait)
		var ce *client.Error
		if errors.As(err, &ce) && len(ce.Checks) > 0 && a.output != "json" {
			writeChecks(a.err, ce.Checks)
		}
		if err != nil {
			return err
		}
		if op.State == client.OperationScheduled {
			return a.show(op, func(w io.Writer) { writeScheduled(w, op) })
		}
		return a.operationResult(op)
	})
}

// parseMoment reads --at. A time of day that is over today means tomorrow.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if rest, ok := strings.CutPrefix(s, "+"); ok {
		if d, err := time.ParseDuration(rest); err == nil && d > 0 {
			return now.Add(d), nil
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			if !t.After(now) {
				return time.Time{}, usagef("--at %s is over: want a time that lies ahead, such as +10m", s)
			}
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if !at.After(now) {
				at = at.AddDate(0, 0, 1)
			}
			return at, nil
		}
	}
	return time.Time{}, usagef("--at %q: want 15:04, 2006-01-02T15:04:05Z, or +10m", s)
}

func newCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel GROUP",
		Short: "Call a scheduled switch-over off; roll a running one back while that is possible",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				g, _ := cl.Group(ctx, args[0]) // for the words only
				if err := cl.CancelSwitchover(ctx, args[0]); err != nil {
					return err
				}
				if g.Scheduled != nil && g.Operation == nil { // unless it has begun since: then it was rolled back
					op, err := cl.Operation(ctx, g.Scheduled.ID, 0)
					if err == nil && op.Schedule != nil && op.Schedule.Outcome == client.ScheduleCanceled {
						return a.show(op, func(w io.Writer) {
							writeProse(w, 2, fmt.Sprintf("Switch-over %d of group %s, scheduled for %s, was called off. Nothing changed.", op.ID, op.Group, humanSecond(op.Schedule.At)))
						})
					}
				}
				return a.show(map[string]string{"group": args[0], "state": client.OperationRolledBack}, func(w io.Writer) {
					fmt.Fprintf(w, "The switch-over of group %s was rolled back. Nothing changed.\n", args[0])
				})
			})
		},
	}
}

func newWhy(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "why GROUP",
		Short: "Say why a switch-over would or would not work now, and what it would cost",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				r, err := cl.Why(ctx, args[0], to)
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) { writeReadiness(w, r) }); err != nil {
					return err
				}
				if !r.Ready {
					return &exitError{exitPrecondition, errReported}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "node that would take over (default the best)")
	return cmd
}

func writeReadiness(w io.Writer, r client.Readiness) {
	verdict := "not possible now"
	if r.Ready {
		verdict = "possible"
	}
	who := ""
	switch {
	case r.From != "" && r.To != "":
		who = ", " + fromTo(r.From, r.To) + ","
	case r.To != "":
		who = " to " + r.To
	}
	fmt.Fprintf(w, "A switch-over of group %s%s is %s.\n", r.Group, who, verdict)
	if r.Ready {
		loss := r.Loss
		if loss == "" {
			loss = "none"
		}
		fmt.Fprintf(w, "  pause about %s, %s to drain, loss %s\n", humanDuration(time.Duration(r.EstimatedPause)),
			plural(int(r.EntriesToDrain), "entry", "entries"), loss)
	}
	for _, n := range r.Notes {
		writeProse(w, 2, "  note: "+asCommands(n))
	}
	writeChecks(w, r.Checks)
}

// writeChecks prints failed checks first.
func writeChecks(w io.Writer, checks []client.Check) {
	if len(checks) == 0 {
		return
	}
	t := newTable("CHECK", "RESULT", "VALUE", "LIMIT", "DETAIL")
	t.indent = "  "
	for _, ok := range []bool{false, true} {
		for _, c := range checks {
			if c.OK == ok {
				result := "FAILED"
				if ok {
					result = "ok"
				}
				t.add(c.Name, result, c.Value, c.Limit, asCommands(c.Detail))
			}
		}
	}
	t.write(w)
}
