package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newBackout(a *app) *cobra.Command {
	var on target
	list := &cobra.Command{
		Use:   "list GROUP",
		Short: "List what a node undid when it came back, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.Backouts(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeBackouts(w, all) })
			})
		},
	}
	show := &cobra.Command{
		Use:   "show GROUP ID",
		Short: "Show every entry of one back-out, and whether it lives on",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				b, err := cl.Backout(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return a.show(b, func(w io.Writer) { writeBackout(w, b) })
			})
		},
	}
	on.flag(list)
	on.flag(show)
	return family("backout", "Show what was undone after a failover", list, show)
}

func writeBackouts(w io.Writer, all []client.Backout) {
	if len(all) == 0 {
		fmt.Fprintln(w, "Nothing was ever backed out on this node.")
		return
	}
	t := newTable("ID", "TIME", "NODE", "JOURNAL", ">KNOWN UP TO", "STORE FROM → TO", ">UNDONE", ">LOST")
	for _, b := range all {
		t.add(b.ID, humanTime(b.Time), b.Node, b.Journal, humanCount(b.Known), fromTo(b.From, b.To), humanCount(b.Undone), humanCount(b.Lost))
	}
	t.write(w)
}

func writeBackout(w io.Writer, b client.Backout) {
	fmt.Fprintf(w, "Back-out %s of group %s on node %s, %s\n", b.ID, b.Group, b.Node, humanTime(b.Time))
	fmt.Fprintf(w, "  journal %s was known up to %s by the primary of epoch %d; the store went from %s to %s\n",
		b.Journal, humanCount(b.Known), b.Epoch, b.From, b.To)
	fmt.Fprintf(w, "  %s undone, %s lost\n", plural(b.Undone, "entry", "entries"), humanCount(b.Lost))
	if len(b.Entries) == 0 {
		return
	}
	t := newTable(">SEQUENCE", "POSITION", "TYPE", "FILE", "KEY", "LIVES ON", "UNDONE", "BEFORE", "AFTER")
	t.indent = "  "
	for _, e := range b.Entries {
		t.add(e.Sequence, e.Position, e.Type, e.File, printable(e.Bytes(), 40), yesNo(e.LivesOn, "yes", "LOST"), yesNo(e.Undone, "yes", "no"),
			imageText(e.Before, 30), imageText(e.After, 30))
	}
	t.write(w)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func imageText(i *client.Image, limit int) string {
	if i == nil {
		return "none"
	}
	return printable(i.Value, limit) + fmt.Sprintf(" (%s)", humanBytes(int64(len(i.Value))))
}
