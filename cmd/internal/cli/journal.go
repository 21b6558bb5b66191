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
		newJournalList(a), newJournalReceivers(a), newJournalEntries(a), newJournalReceive(a), newJournalSend(a), newJournalChange(a), newJournalDump(a), newJournalVerify(a),
		newJournalHolds(a), newJournalSize(a), newJournalRepair(a), newJournalSave(a),
		newJournalArchive(a), newJournalRestore(a), newJournalRestored(a), newJournalExport(a), newJournalImport(a), newJournalStart(a))
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
	t := newTable("JOURNAL", "KIND", "STATE", ">RECEIVERS", ">SIZE", ">LIMIT", "FULL IN")
	ends := newTable("JOURNAL", ">FIRST", ">LAST", ">DURABLE", ">CONFIRMED", ">COMMITTED", ">APPLIED", "POSITION")
	for _, j := range all {
		applied := ""
		if j.Applied > 0 { // of the present primary's journal only
			applied = fmt.Sprint(j.Applied)
		}
		t.add(j.ID, j.Kind, j.State, j.Receivers, humanBytes(j.Bytes), limitText(j.Limit), runwayText(j))
		ends.add(j.ID, j.First, j.Last, j.Durable, j.Confirmed, j.Committed, applied, j.Position)
	}
	for _, j := range all {
		if j.Full != "" {
			writeProse(w, 2, "ATTENTION: "+asCommands(j.Full))
		}
		if j.Error != "" {
			writeProse(w, 2, fmt.Sprintf("ATTENTION: journal %s: %s", j.ID, j.Error))
		}
	}
	t.write(w)
	fmt.Fprintln(w, "\nEntries, by their sequence numbers:")
	ends.write(w)
}

func limitText(n int64) string {
	if n == 0 {
		return "-"
	}
	return humanBytes(n)
}

// runwayText says when a journal is full at the present rate.
func runwayText(j client.Journal) string {
	switch {
	case j.Full != "":
		return "now"
	case j.Runway <= 0:
		return "-"
	case j.Runway >= 1000*24*3600:
		return "over 1000 d" // what a few minutes say is no better than that
	}
	return longDuration(j.Runway)
}

// longDuration prints seconds that may be many, with two units: 3 h 20 min.
func longDuration(seconds float64) string {
	m := int64(seconds / 60)
	switch {
	case m >= 100*24*60:
		return fmt.Sprintf("%d d", m/(24*60))
	case m >= 24*60:
		return fmt.Sprintf("%d d %d h", m/(24*60), m/60%24)
	case m >= 60:
		return fmt.Sprintf("%d h %d min", m/60, m%60)
	case m >= 1:
		return fmt.Sprintf("%d min", m)
	}
	return fmt.Sprintf("%d s", int64(seconds))
}

func newJournalReceivers(a *app) *cobra.Command {
	var on target
	cmd := &cobra.Command{
		Use:   "receivers GROUP[/NODE]",
		Short: "List the receivers of a journal, oldest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJournal(cmd.Context(), on, args[0], 0, func(ctx context.Context, cl *client.Client, group, node string) error {
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
