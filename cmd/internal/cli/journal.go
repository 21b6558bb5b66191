package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newJournal(a *app) *cobra.Command {
	return family("journal", "Look into journals and their receivers",
		newJournalList(a), newJournalReceivers(a), newJournalEntries(a), newJournalChange(a), newJournalDump(a), newJournalVerify(a),
		newJournalHolds(a), newJournalSize(a), newJournalRepair(a), newJournalSave(a),
		newJournalArchive(a), newJournalRestore(a), newJournalRestored(a), newJournalExport(a), newJournalImport(a))
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
	t := newTable("JOURNAL", "KIND", "STATE", ">FIRST", ">LAST", ">DURABLE", ">CONFIRMED", ">COMMITTED", ">APPLIED", "POSITION", ">RECEIVERS", ">SIZE", ">LIMIT", "FULL IN")
	for _, j := range all {
		t.add(j.ID, j.Kind, j.State, j.First, j.Last, j.Durable, j.Confirmed, j.Committed, j.Applied, j.Position, j.Receivers, humanBytes(j.Bytes), limitText(j.Limit), runwayText(j))
	}
	t.write(w)
	for _, j := range all {
		if j.Full != "" {
			fmt.Fprintf(w, "ATTENTION: %s\n", j.Full)
		}
		if j.Error != "" {
			fmt.Fprintf(w, "ATTENTION: journal %s: %s\n", j.ID, j.Error)
		}
	}
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

func newJournalEntries(a *app) *cobra.Command {
	var (
		on    target
		f     client.EntryFilter
		key   string
		since string
		full  bool
	)
	cmd := &cobra.Command{
		Use:   "entries GROUP[/NODE]",
		Short: "List entries of a journal; confirmed ones unless --all",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, node, err := splitJournal(args[0])
			if err != nil {
				return err
			}
			f.Key = []byte(key)
			if f.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.Entries(ctx, group, node, f)
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeEntries(w, all, full) })
			})
		},
	}
	on.flag(cmd)
	fl := cmd.Flags()
	fl.Uint64Var(&f.From, "from", 0, "first sequence number")
	fl.Uint64Var(&f.To, "to", 0, "last sequence number")
	fl.StringVar(&since, "since", "", "at or after this time: 2006-01-02T15:04:05Z, or 10m for ten minutes ago")
	fl.StringVar(&f.Code, "code", "", "R, C, J or U")
	fl.StringVar(&f.Type, "type", "", "two characters, such as PT, UP, DL, SW")
	fl.StringVar(&f.File, "file", "", "of this file")
	fl.StringVar(&key, "key", "", "of this record")
	fl.Uint64Var(&f.Transaction, "transaction", 0, "of the transaction that begins at this sequence number")
	fl.BoolVar(&f.IncludeAll, "all", false, "unconfirmed entries too")
	fl.IntVar(&f.Limit, "limit", 100, "at most this many")
	fl.BoolVar(&full, "full", false, "values in full")
	return cmd
}

// parseSince reads a moment in the past, or how long ago it was.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--since %q: want 2006-01-02T15:04:05Z, or 10m for ten minutes ago", s)
}

func writeEntries(w io.Writer, all []client.Entry, full bool) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No entries.")
		return
	}
	t := newTable(">SEQUENCE", "POSITION", "TYPE", "TIME", "FILE", "KEY", "CONTENT")
	for _, e := range all {
		t.add(e.Sequence, e.Position, e.Code+" "+e.Type, humanTime(e.Time), e.File, printable(e.Bytes(), 60), entryContent(e, full))
	}
	t.write(w)
}

// entryContent says what an entry carries: its images, or the text of a journal or user entry.
func entryContent(e client.Entry, full bool) string {
	limit := 48
	if full {
		limit = 1 << 30
	}
	var s string
	switch {
	case len(e.Data) > 0:
		s = printable(e.Data, limit)
	case e.After != nil:
		s = imageText(e.After, limit)
	}
	switch {
	case e.Before != nil && full:
		s += " before " + imageText(e.Before, limit)
	case e.Before != nil:
		s += " +before"
	}
	if e.Transaction != 0 && e.Transaction != e.Sequence {
		s += fmt.Sprintf(" transaction %d", e.Transaction)
	}
	if !e.Confirmed {
		s += " unconfirmed"
	}
	return s
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
