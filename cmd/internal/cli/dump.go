package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

func newJournalDump(a *app) *cobra.Command {
	var (
		on      target
		full    bool
		bundles bool
	)
	cmd := &cobra.Command{
		Use:   "dump FILE|DIR|GROUP[/NODE]",
		Short: "Print every entry, one a line, of receivers on disk or of a node's journal",
		Long: `Print every entry, one a line, unconfirmed ones too. A path that exists is read as a receiver file or as the directory
of a journal, without asking a node; anything else names a journal that a node is asked for.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := bufio.NewWriter(a.out)
			sub := *a
			sub.out = out
			var err error
			if _, serr := os.Stat(args[0]); serr == nil {
				err = sub.dumpFiles(cmd.Context(), args[0], full, bundles)
			} else if bundles {
				err = usagef("--bundles reads receivers on disk; %s is none", args[0])
			} else {
				err = sub.dumpOnline(cmd.Context(), on, args[0], full)
			}
			return errors.Join(err, out.Flush())
		},
	}
	on.flag(cmd)
	cmd.Flags().BoolVar(&full, "full", false, "values in full")
	cmd.Flags().BoolVar(&bundles, "bundles", false, "a line for each bundle too (receivers on disk)")
	return cmd
}

// dumpFiles prints receivers on disk. What is readable before a damaged place is printed.
func (a *app) dumpFiles(ctx context.Context, path string, full, bundles bool) error {
	files, err := receiverFiles(path)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := a.dumpFile(ctx, file, full, bundles); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) dumpFile(ctx context.Context, path string, full, bundles bool) error {
	r, err := openReceiver(path)
	if err != nil {
		return err
	}
	defer r.close()
	h := r.header
	if a.output != "json" {
		fmt.Fprintf(a.out, "# receiver %s of journal %s, cluster %s, begins with entry %s after %s, chain %s, created %s\n",
			h.Number, h.ID, h.Cluster, h.First, positionText(node.HistoryOf(h.ID), h.Start), h.Chain, humanTime(h.Created))
	}
	confirmed := r.confirmedUpTo()
	for b, err := range r.bundles() {
		if err != nil {
			return fmt.Errorf("%s: %w; if the node runs, it may be writing there now", path, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if bundles && a.output != "json" {
			fmt.Fprintln(a.out, bundleLine(node.HistoryOf(h.ID), b))
		}
		for e, err := range b.Entries() {
			if err != nil {
				return fmt.Errorf("%s: bundle at byte %d: %w", path, b.offset, err)
			}
			shown := shownEntry(node.HistoryOf(h.ID), e, confirmed)
			if a.output != "json" {
				shown.Confirmed = true // the last entries are confirmed by what comes after them: the file cannot tell
			}
			if err := a.dumpEntry(shown, full); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) dumpEntry(e client.Entry, full bool) error {
	return a.showLine(e, func(w io.Writer) {
		content := entryContent(e, full)
		if e.Before != nil && !full {
			content += " +before"
		}
		fmt.Fprintf(w, "%8d  %-18s %s %s  %s  %-12s %-32s %s\n", e.Sequence, e.Position, e.Code, e.Type, humanTime(e.Time),
			e.File, printable(e.Bytes(), 60), content)
	})
}

func positionText(g ident.GroupName, p ident.Position) string {
	if p.IsZero() {
		return orNone("")
	}
	return p.Format(g)
}

func bundleLine(g ident.GroupName, b placed) string {
	s := fmt.Sprintf("# bundle at byte %d, %s: entries %s to %s, after %s, session epoch %s, chain %s, durable %s, committed %s", b.offset,
		humanBytes(int64(b.Length)), b.First, b.Last(), positionText(g, b.Before), b.Session, b.Chain, b.Durable, b.Committed)
	if b.Origin != 0 {
		s += ", first deposited as " + b.Origin.String()
	}
	if b.Flags&entry.FlagLocal != 0 {
		s += ", local"
	}
	if b.Flags&entry.FlagEcho != 0 {
		s += ", echo"
	}
	if b.Flags&entry.FlagCompressed != 0 {
		s += ", compressed"
	}
	return s
}

// dumpOnline prints a node's journal page by page.
func (a *app) dumpOnline(ctx context.Context, on target, name string, full bool) error {
	const page = 1000
	group, node, err := splitJournal(name)
	if err != nil {
		return err
	}
	return a.withTarget(ctx, on, func(cl *client.Client) error {
		f := client.EntryFilter{IncludeAll: true, Limit: page}
		for {
			ask, cancel := context.WithTimeout(ctx, askTimeout)
			all, err := cl.Entries(ask, group, node, f)
			cancel()
			if err != nil {
				return err
			}
			for _, e := range all {
				if err := a.dumpEntry(e, full); err != nil {
					return err
				}
			}
			if len(all) < page {
				return nil
			}
			f.From = all[len(all)-1].Sequence + 1
		}
	})
}

func newJournalVerify(a *app) *cobra.Command {
	var (
		on   target
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "verify FILE|DIR|GROUP[/NODE]",
		Short: "Read everything and check checksums, sequence and chain",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil {
				return a.verifyFiles(cmd.Context(), args[0])
			}
			return a.withJournal(cmd.Context(), on, args[0], wait, func(ctx context.Context, cl *client.Client, group, node string) error {
				v, err := cl.Verify(ctx, group, node, wait)
				if err != nil {
					return err
				}
				return a.show(v, func(w io.Writer) { fmt.Fprintf(w, "%s is sound.\n", upperFirst(journalName(group, node))) })
			})
		},
	}
	on.flag(cmd)
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Minute, "give up after this long")
	return cmd
}

// verified is what verifying receivers on disk gave.
type verified struct {
	Receivers int    `json:"receivers"`
	Bundles   int    `json:"bundles"`
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Bytes     int64  `json:"bytes"`
	OK        bool   `json:"ok"`
}

// verifyFiles checks receivers on disk, and that each continues the one before.
func (a *app) verifyFiles(ctx context.Context, path string) error {
	files, err := receiverFiles(path)
	if err != nil {
		return err
	}
	var (
		v     verified
		next  ident.Sequence
		chain ident.Chain
	)
	for i, file := range files {
		r, err := openReceiver(file)
		if err != nil {
			return err
		}
		if i == 0 {
			next, chain = r.header.First, r.header.Chain
			v.First = uint64(next)
		}
		err = func() error {
			defer r.close()
			if r.header.First != next || r.header.Chain != chain {
				return fmt.Errorf("%s does not continue the receiver before it: it begins with entry %s and chain %s, not with %s and %s",
					file, r.header.First, r.header.Chain, next, chain)
			}
			for b, err := range r.bundles() {
				if err != nil {
					return fmt.Errorf("%s: %w; if the node runs, it may be writing there now", file, err)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				v.Bundles++
				v.Bytes += int64(b.Length)
				next, chain = b.Last()+1, entry.NextChain(chain, b.Raw)
			}
			return nil
		}()
		if err != nil {
			return err
		}
		v.Receivers++
	}
	v.Last, v.OK = uint64(next)-1, true
	return a.show(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s sound: %s, entries %s to %s, %s.\n", plural(v.Receivers, "receiver is", "receivers are"),
			plural(v.Bundles, "bundle", "bundles"), humanCount(v.First), humanCount(v.Last), humanBytes(v.Bytes))
	})
}
