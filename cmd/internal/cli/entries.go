package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// entriesQuery is what `journal entries` lists.
type entriesQuery struct {
	on           target
	f            client.EntryFilter
	key, prefix  string
	since, until string
	full, follow bool
}

func newJournalEntries(a *app) *cobra.Command {
	var q entriesQuery
	cmd := &cobra.Command{
		Use:   "entries GROUP[/NODE]",
		Short: "List entries of a journal; confirmed ones unless --all",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, node, err := splitJournal(args[0])
			if err != nil {
				return err
			}
			if err := q.read(time.Now()); err != nil {
				return err
			}
			if q.f.Newest > 0 && !cmd.Flags().Changed("limit") {
				q.f.Limit = 0
			}
			return a.withTarget(cmd.Context(), q.on, func(cl *client.Client) error {
				if q.follow {
					return a.followEntries(cmd.Context(), cl, group, node, &q)
				}
				all, next, err := listEntries(cmd.Context(), cl, group, node, q.f)
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) {
					writeEntries(w, all, q.full)
					if next != 0 {
						fmt.Fprintf(w, "There may be more: go on with --%s %d, or give a higher --limit.\n", yesNo(q.f.Descending, "to", "from"), next)
					}
				})
			})
		},
	}
	q.on.flag(cmd)
	fl := cmd.Flags()
	fl.Uint64Var(&q.f.From, "from", 0, "first sequence number")
	fl.Uint64Var(&q.f.To, "to", 0, "last sequence number")
	fl.StringVar(&q.f.PositionFrom, "position-from", "", "first history position, such as default@3.42: facts only")
	fl.StringVar(&q.f.PositionTo, "position-to", "", "last history position")
	fl.StringVar(&q.since, "since", "", "at or after this time: 2006-01-02T15:04:05Z, or 10m for ten minutes ago")
	fl.StringVar(&q.until, "until", "", "at or before this time")
	fl.StringVar(&q.f.Receiver, "receiver", "", "in these receivers: 3, 3-7, attached, or chain for all that are held")
	fl.StringVar(&q.f.Code, "code", "", "R, C, J or U; several separated by commas")
	fl.StringVar(&q.f.Type, "type", "", "two characters, such as PT, UP, DL, SW; several separated by commas")
	fl.StringVar(&q.f.File, "file", "", "of these files: names or patterns such as 'orders*', separated by commas")
	fl.StringVar(&q.key, "key", "", "of this record")
	fl.StringVar(&q.prefix, "key-prefix", "", "of records whose keys begin so")
	fl.Uint64Var(&q.f.Transaction, "transaction", 0, "of the transaction that begins at this sequence number")
	fl.BoolVar(&q.f.IncludeAll, "all", false, "unconfirmed entries too")
	fl.StringVar(&q.f.Images, "images", "", "both, after or none: none is light to list, sizes are shown all the same")
	fl.IntVar(&q.f.Newest, "newest", 0, "only the last so many")
	fl.BoolVar(&q.f.Descending, "descending", false, "newest first")
	fl.IntVar(&q.f.Limit, "limit", 100, "at most this many")
	fl.BoolVar(&q.full, "full", false, "images and data in full")
	fl.BoolVarP(&q.follow, "follow", "f", false, "go on with new ones until Ctrl-C; with -o json a line each")
	return cmd
}

// read takes over what needs reading.
func (q *entriesQuery) read(now time.Time) (err error) {
	if q.key != "" {
		q.f.Key = []byte(q.key)
	}
	if q.prefix != "" {
		q.f.KeyPrefix = []byte(q.prefix)
	}
	if q.f.Since, err = parsePast("since", q.since, now); err != nil {
		return err
	}
	q.f.Until, err = parsePast("until", q.until, now)
	return err
}

// listEntries reads pages until there are as many entries as wanted. Next is where it could go on.
func listEntries(ctx context.Context, cl *client.Client, group, node string, f client.EntryFilter) (all []client.Entry, next uint64, err error) {
	want := f.Limit
	if f.Newest > 0 {
		want = f.Newest
	}
	for {
		if f.Newest == 0 && want > 0 {
			f.Limit = min(want-len(all), 10000)
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		p, err := cl.EntryPage(ask, group, node, f)
		cancel()
		if err != nil {
			return all, 0, err
		}
		if f.Newest > 0 {
			all = append(p.Items, all...)
			f.Newest = want - len(all)
		} else {
			all = append(all, p.Items...)
		}
		if p.Next == 0 || len(all) >= want {
			return all, p.Next, nil
		}
		if f.Descending || f.Newest > 0 {
			f.To = p.Next
		} else {
			f.From = p.Next
		}
	}
}

// parsePast reads a moment in the past, or how long ago it was.
func parsePast(flag, s string, now time.Time) (time.Time, error) {
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
	return time.Time{}, usagef("--%s %q: want 2006-01-02T15:04:05Z, or 10m for ten minutes ago", flag, s)
}

func writeEntries(w io.Writer, all []client.Entry, full bool) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No entries.")
		return
	}
	content := "~CONTENT"
	if full {
		content = "CONTENT"
	}
	t := newTable("TIME", ">SEQUENCE", "POSITION", "TYPE", "FILE", "KEY", ">BEFORE", ">AFTER", content)
	for _, e := range all {
		before, after := entrySizes(e)
		t.add(humanTime(e.Time), e.Sequence, e.Position, e.Code+" "+e.Type, e.File, printable(e.Bytes(), 60), before, after, entryContent(e, full))
	}
	t.write(w)
}

// entrySizes are those of the images; of other entries the second one is that of the data.
func entrySizes(e client.Entry) (before, after string) {
	switch {
	case e.BeforeOmitted:
		before = "left out"
	case e.Before != nil || e.BeforeBytes > 0:
		before = strconv.Itoa(imageBytes(e.Before, e.BeforeBytes))
	}
	switch {
	case len(e.Data) > 0:
		after = strconv.Itoa(len(e.Data))
	case e.After != nil || e.AfterBytes > 0:
		after = strconv.Itoa(imageBytes(e.After, e.AfterBytes))
	}
	return before, after
}

// imageBytes is the size of an image, which may have been left out.
func imageBytes(i *client.Image, told int) int {
	if i == nil {
		return told
	}
	return len(i.Value)
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
	if e.Before != nil && full {
		s += " before " + imageText(e.Before, limit)
	}
	if e.Transaction != 0 && e.Transaction != e.Sequence {
		s += fmt.Sprintf(" transaction %d", e.Transaction)
	}
	if !e.Confirmed {
		s += " unconfirmed"
	}
	return s
}

// followEntries prints entries as they come, until ctx ends.
func (a *app) followEntries(ctx context.Context, cl *client.Client, group, node string, q *entriesQuery) error {
	q.f.Limit = 0
	o := client.FollowOptions{EntryFilter: q.f, Notice: func(n client.Notice) {
		if n.Rewound != nil {
			a.notice("  removed again: everything after sequence %d", n.Rewound.After)
		}
	}}
	if node == client.Local { // one name for one journal
		nodes, err := cl.Status(ctx)
		if err != nil {
			return err
		}
		node = nodes.Node
	}
	for e, err := range cl.FollowJournal(ctx, group, node, o) {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := a.showLine(e, func(w io.Writer) {
			before, after := entrySizes(e)
			fmt.Fprintf(w, "%s  %8d  %-14s %s %s  %s %s  %s/%s B  %s\n", humanTime(e.Time), e.Sequence, cmp.Or(e.Position, "-"), e.Code, e.Type, cmp.Or(e.File, "-"), cmp.Or(printable(e.Bytes(), 60), "-"),
				cmp.Or(before, "-"), cmp.Or(after, "-"), entryContent(e, q.full))
		}); err != nil {
			return err
		}
	}
	return nil
}
