package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// failoverOptions are the flags of a failover.
type failoverOptions struct {
	to        string
	allowLoss bool
	dryRun    bool
	confirm   string
	beyond    string
	highest   string
	unable    bool
	wait      time.Duration
}

func newFailover(a *app) *cobra.Command {
	var o failoverOptions
	cmd := &cobra.Command{
		Use:   "failover GROUP --to NODE",
		Short: "Force the primary role to a node, also against a living primary",
		Long: `Force the primary role to a node, also against a living primary. Without --allow-data-loss only an in-sync node
is accepted, so nothing that was acknowledged is lost. Prefer switchover while the primary answers.

With --allow-data-loss it first says which positions and entries may be lost and what becomes of them. On a terminal it
then asks for the name of the group. A script looks with --dry-run and confirms with --confirm GROUP and
--accept-loss-beyond POSITION; with --accept-loss-up-to POSITION too it is refused once anybody holds more than that.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args[0]); err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error { return a.failover(cmd.Context(), cl, args[0], o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "node that takes over (required)")
	f.BoolVar(&o.allowLoss, "allow-data-loss", false, "accept a node that may lack acknowledged writes, after what may be lost was named")
	f.BoolVar(&o.dryRun, "dry-run", false, "with --allow-data-loss: name what may be lost, change nothing")
	f.StringVar(&o.confirm, "confirm", "", "with --allow-data-loss: the name of the group, instead of the question")
	f.StringVar(&o.beyond, "accept-loss-beyond", "", "with --confirm: the position that --dry-run named; what lies beyond it may be lost")
	f.StringVar(&o.highest, "accept-loss-up-to", "", "with --confirm: refuse if anybody holds more than this position")
	f.BoolVar(&o.unable, "accept-unable", false, "with --allow-data-loss: also a node that says that it cannot serve; the group may have no primary then")
	f.DurationVar(&o.wait, "wait", 30*time.Second, "wait this long for the end, then leave with exit code 75")
	return cmd
}

func (o failoverOptions) check(group string) error {
	switch {
	case o.to == "":
		return usagef("--to is missing: name the node that takes over; `understudy status %s` shows which are in sync", group)
	case !o.allowLoss && o.unable:
		return usagef("--accept-unable belongs to --allow-data-loss")
	case !o.allowLoss && (o.dryRun || o.confirm != "" || o.beyond != "" || o.highest != ""):
		return usagef("--dry-run, --confirm and --accept-loss-* belong to --allow-data-loss")
	case o.confirm == "" && (o.beyond != "" || o.highest != ""), o.confirm != "" && o.beyond == "":
		return usagef("--confirm and --accept-loss-beyond go together; `understudy failover %s --to %s --allow-data-loss --dry-run` names the position", group, o.to)
	case o.confirm != "" && o.confirm != group:
		return usagef("--confirm %s: want the name of the group, %s", o.confirm, group)
	}
	return nil
}

func (a *app) failover(ctx context.Context, cl *client.Client, group string, o failoverOptions) error {
	r := client.FailoverRequest{To: o.to, AllowDataLoss: o.allowLoss}
	if o.allowLoss {
		r.Confirm, r.AcceptLossBeyond, r.AcceptLossHighest, r.By = o.confirm, o.beyond, o.highest, operator()
		r.AcceptUnable = o.unable
	}
	if o.allowLoss && (o.dryRun || o.confirm == "") {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		f, err := cl.ForecastFailover(ask, group, client.FailoverRequest{To: o.to, AllowDataLoss: true})
		cancel()
		if err != nil {
			return err
		}
		if o.dryRun {
			return a.show(f, func(w io.Writer) { writeForecast(w, f) })
		}
		if f.Unable != "" && !o.unable {
			if a.output == "json" {
				if err := a.show(f, nil); err != nil {
					return err
				}
			} else {
				writeForecast(a.err, f)
			}
			return exitWith(exitPrecondition, "nothing was changed: node %s says that it cannot serve; choose another one, or say --accept-unable, and nobody may serve then", f.To)
		}
		if err := a.confirmLoss(f); err != nil {
			return err
		}
		r.Confirm, r.AcceptLossBeyond, r.AcceptLossHighest, r.AcceptEpoch = group, f.Beyond, f.Highest, f.Epoch
	}
	ask, cancel := context.WithTimeout(ctx, o.wait+askTimeout)
	defer cancel()
	op, err := cl.Failover(ask, group, r, o.wait)
	var ce *client.Error
	if errors.As(err, &ce) && ce.Forecast != nil && a.output != "json" {
		writeForecast(a.err, *ce.Forecast)
	}
	if err != nil {
		return err
	}
	if err := a.operationResult(op); err != nil {
		return err
	}
	if o.to != client.AnyNode && op.To != o.to {
		return exitWith(exitRolledBack, "group %s went to %s, not to %s: look at `understudy operation show %d`", group, op.To, o.to, op.ID)
	}
	return nil
}

// confirmLoss shows the forecast and asks for the name of the group. Somebody has to sit there: a script says what it
// accepts with flags.
func (a *app) confirmLoss(f client.LossForecast) error {
	if !isTerminal(a.in) {
		if a.output == "json" {
			if err := a.show(f, nil); err != nil {
				return err
			}
		} else {
			writeForecast(a.out, f)
		}
		return exitWith(exitPrecondition, "nothing was changed: the loss is not confirmed, and nobody can be asked; repeat it with `understudy failover %s --to %s --allow-data-loss --confirm %s --accept-loss-beyond %s`",
			f.Group, f.To, f.Group, f.Beyond)
	}
	writeForecast(a.err, f)
	fmt.Fprintf(a.err, "\nType the name of the group to accept this, anything else to leave: ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != f.Group {
		return exitWith(exitPrecondition, "not confirmed; nothing was changed")
	}
	return nil
}

func writeForecast(w io.Writer, f client.LossForecast) {
	switch {
	case f.Loss == "none":
		fmt.Fprintf(w, "A failover of group %s to %s loses nothing: nobody holds more than %s.\n", f.Group, f.To, f.Beyond)
	case f.Entries == 0:
		fmt.Fprintf(w, "A failover of group %s to %s may lose entries, but none is known now.\n", f.Group, f.To)
	default:
		certain := ""
		if !f.Exact {
			certain = "at least, as far as is known, "
		}
		fmt.Fprintf(w, "A failover of group %s to %s may lose %s%s.\n", f.Group, f.To, certain, plural(int(f.Entries), "entry", "entries"))
	}
	if f.Warning != "" {
		writeProse(w, 2, "WARNING: "+f.Warning+".")
	}
	if f.Unable != "" {
		writeProse(w, 2, fmt.Sprintf("WARNING: %s cannot serve: %s. With the role, nobody may serve.", f.To, f.Unable))
	}
	primary := f.Primary
	if primary == "" {
		primary = "nobody"
	}
	var p pairs
	p.add("at risk", "%s", f.Loss)
	if f.Entries > 0 {
		p.add("range", "beyond %s, up to %s", f.Beyond, f.Highest)
	}
	p.add("now", "primary %s, epoch %d", primary, f.Epoch)
	p.write(w, "  ")
	t := newTable("NODE", "HOLDS", ">BEYOND", "IN SYNC", "KNOWN FROM")
	t.indent = "  "
	for _, n := range f.Nodes {
		from := "its answer"
		switch {
		case !n.Answered:
			from = "its last lease: " + n.Told
		case n.Reported != "":
			from = "its answer, and its report " + n.Reported
		}
		holds := n.Position
		if holds == "" {
			holds = "not known"
		}
		inSync := "no"
		if n.InSync {
			inSync = "yes"
		}
		t.add(n.Node, holds, n.Beyond, inSync, from)
	}
	t.write(w)
	if len(f.First) > 0 {
		fmt.Fprintf(w, "  the first entries at risk, as %s holds them:\n", f.First[0].Node)
		t := newTable("POSITION", "ENTRY", "TYPE", "FILE", "KEY")
		t.indent = "  "
		for _, e := range f.First {
			t.add(e.Position, fmt.Sprintf("%s:%d", e.Journal, e.Sequence), e.Code+" "+e.Type, e.File, printable(e.Key.Bytes(), 40))
		}
		t.write(w)
	}
	writeProse(w, 0, "  "+upperFirst(f.Fate))
}
