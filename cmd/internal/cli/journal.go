package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newJournal(a *app) *cobra.Command {
	return family("journal", "Look into journals and their receivers",
		newJournalList(a), newJournalReceivers(a), newJournalEntries(a), newJournalReceive(a), newJournalSend(a), newJournalChange(a), newJournalDump(a), newJournalVerify(a))
}

func newJournalList(a *app) *cobra.Command {
	var on target
	cmd := &cobra.Command{
		Use:   "list GROUP",
		Short: "List the journals of a group that a node holds",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.Journals(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeJournals(w, all) })
			})
		},
	}
	on.flag(cmd)
	return cmd
}

func writeJournals(w io.Writer, all []client.Journal) {
	if len(all) == 0 {
		fmt.Fprintln(w, "This node holds no journal of the group.")
		return
	}
	t := newTable("JOURNAL", "KIND", "STATE", ">FIRST", ">LAST", ">DURABLE", ">CONFIRMED", ">COMMITTED", ">APPLIED", "POSITION", ">RECEIVERS", ">SIZE")
	for _, j := range all {
		t.add(j.ID, j.Kind, j.State, j.First, j.Last, j.Durable, j.Confirmed, j.Committed, j.Applied, j.Position, j.Receivers, humanBytes(j.Bytes))
	}
	t.write(w)
	for _, j := range all {
		if j.Error != "" {
			fmt.Fprintf(w, "ATTENTION: journal %s: %s\n", j.ID, j.Error)
		}
	}
}

func newJournalReceivers(a *app) *cobra.Command {
	var on target
	cmd := &cobra.Command{
		Use:   "receivers GROUP[/NODE]",
		Short: "List the receivers of a journal, oldest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, node, err := splitJournal(args[0])
			if err != nil {
				return err
			}
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.Receivers(ctx, group, node)
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeReceivers(w, all) })
			})
		},
	}
	on.flag(cmd)
	return cmd
}

func writeReceivers(w io.Writer, all []client.Receiver) {
	if len(all) == 0 {
		fmt.Fprintln(w, "The journal has no receiver yet.")
		return
	}
	t := newTable("RECEIVER", "JOURNAL", ">FIRST", ">LAST", "STARTS AFTER", ">SIZE", "STATE", "CREATED")
	for _, r := range all {
		t.add(fmt.Sprintf("%06d", r.Number), r.Journal, r.First, r.Last, orNone(r.Start), humanBytes(r.Bytes), yesNo(r.Attached, "attached", "detached"), humanTime(r.Created))
	}
	t.write(w)
}

func newJournalChange(a *app) *cobra.Command {
	var on target
	cmd := &cobra.Command{
		Use:   "change GROUP",
		Short: "Attach a new receiver to a node's own journal",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				r, err := cl.ChangeReceiver(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(r, func(w io.Writer) {
					fmt.Fprintf(w, "Receiver %06d is attached to journal %s.\n", r.Number, r.Journal)
				})
			})
		},
	}
	on.flag(cmd)
	return cmd
}
