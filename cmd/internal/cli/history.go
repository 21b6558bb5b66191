package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newHistory(a *app) *cobra.Command {
	var full bool
	var epoch uint64
	cmd := &cobra.Command{
		Use:   "history GROUP",
		Short: "List every promotion of a group, with its certificate",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.History(ctx, args[0])
				if err != nil {
					return err
				}
				if epoch != 0 {
					if all = ofEpoch(all, epoch); len(all) == 0 {
						return exitWith(exitPrecondition, "there is no certificate of epoch %d; `understudy history %s` lists them", epoch, args[0])
					}
				}
				return a.show(all, func(w io.Writer) {
					if !full && epoch == 0 {
						writeHistory(w, all)
						return
					}
					for i, c := range all {
						if i > 0 {
							fmt.Fprintln(w)
						}
						writeCertificate(w, c)
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&full, "full", false, "every certificate in full: who reported what, who was passed over and why, the times")
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "the certificate of this epoch in full")
	return cmd
}

func ofEpoch(all []client.Certificate, epoch uint64) (out []client.Certificate) {
	for _, c := range all {
		if c.Epoch == epoch {
			out = append(out, c)
		}
	}
	return out
}

func writeHistory(w io.Writer, all []client.Certificate) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No promotion yet.")
		return
	}
	t := newTable("TIME", "KIND", ">EPOCH", "FROM → TO", "BEGINS AT", ">OPEN AFTER", "LOSS", "REASON")
	for _, c := range all {
		opened := ""
		if !c.Opened.IsZero() {
			opened = humanDuration(c.Opened.Sub(began(c)))
		}
		who := fromTo(c.From, c.To)
		if c.From == "" {
			who = c.To
		}
		loss := c.Loss
		if len(c.Better) > 0 {
			loss += "; better: " + strings.Join(c.Better, ", ")
		}
		t.add(humanSecond(c.At), c.Kind, c.Epoch, who, c.SW, opened, loss, c.Reason)
	}
	t.write(w)
}

// began is when the change of roles began; its commit point where that is not known.
func began(c client.Certificate) time.Time {
	if c.Started.IsZero() {
		return c.At
	}
	return c.Started
}

// writeCertificate prints one certificate in full.
func writeCertificate(w io.Writer, c client.Certificate) {
	who := fromTo(c.From, c.To)
	if c.From == "" {
		who = c.To
	}
	fmt.Fprintf(w, "Epoch %d of group %s: %s, %s\n", c.Epoch, c.Group, c.Kind, who)
	var p pairs
	p.add("reason", "%s", c.Reason)
	if c.Operation != 0 {
		p.add("operation", "%d", c.Operation)
	}
	if c.OldEpoch != 0 {
		p.add("follows", "epoch %d", c.OldEpoch)
	}
	if !c.Started.IsZero() {
		p.add("began", "%s", humanTime(c.Started))
	}
	p.add("decided", "%s%s", humanTime(c.At), since(c.Started, c.At))
	if c.Opened.IsZero() {
		p.add("open", "not yet, or never")
	} else {
		p.add("open", "%s%s", humanTime(c.Opened), since(began(c), c.Opened))
	}
	p.add("begins at", "%s", c.SW)
	p.add("in-sync set", "%s", strings.Join(c.InSync, ", "))
	p.add("loss", "%s", c.Loss)
	if a := c.Accepted; a != nil {
		text := fmt.Sprintf("beyond %s, %s known", a.Beyond, plural(int(a.Entries), "entry", "entries"))
		if a.Highest != "" {
			text += ", up to " + a.Highest
		}
		if a.By != "" {
			text += ", by " + a.By
		}
		p.add("accepted", "%s", text)
	}
	for _, x := range c.PassedOver {
		held := ""
		if x.Received != "" {
			held = " (held " + x.Received + ")"
		}
		p.add("passed over", "%s%s: %s", x.Node, held, x.Why)
	}
	p.write(w, "  ")
	if len(c.Candidates) == 0 {
		return
	}
	t := newTable("REPORTED BY", "RECEIVED", "COMMITTED", "APPLIED", "NOTE")
	t.indent = "  "
	for _, x := range c.Candidates {
		var notes []string
		if x.Node == c.To {
			notes = append(notes, "chosen")
		}
		if x.Torn {
			notes = append(notes, "cut a torn tail")
		}
		if x.Unable != "" {
			notes = append(notes, "unable: "+x.Unable)
		}
		t.add(x.Node, x.Received, x.Committed, x.Applied, strings.Join(notes, ", "))
	}
	t.write(w)
}

// since says how long after the first time the second one is; "" when the first is not known.
func since(from, to time.Time) string {
	if from.IsZero() {
		return ""
	}
	return ", after " + humanDuration(to.Sub(from))
}
