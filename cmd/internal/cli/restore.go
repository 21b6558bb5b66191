package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/restore"
)

func newJournalRestore(a *app) *cobra.Command {
	var (
		from  archiveFlags
		o     restore.Options
		group string
		to    string
	)
	cmd := &cobra.Command{
		Use:   "restore --group G --out NEWDIR (--from-archive URL | --from-data DIR)…",
		Short: "Rebuild a group as it was at a point in time, without a cluster",
		Long: `Rebuild the content of a group as it was at a point in time, from archived receivers, from data directories of nodes, or both. No
cluster has to run, and what is read is not changed. The point is

  3.42                    a position, as writes are answered with
  a/1234                  an entry of the journal that node a wrote
  1234                    the same, when there is one journal only
  2026-11-22T09:30:00Z    a moment: everything before the first transaction that is later

and without --to the end of what the receivers prove to be committed. A transaction is never cut. Facts that were undone after a
failover are left out. NEWDIR gets a store of its own; journal restored prints its records.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if group == "" || o.Out == "" || from.url == "" && len(o.Data) == 0 {
				return usagef("--group, --out and --from-archive or --from-data are needed")
			}
			if group == client.LocalGroup && len(o.Data) > 1 {
				return usagef("--group %s: each node has local files of its own, which have nothing to do with each other: "+
					"name one --from-data, the directory `local` in that node's data directory", group)
			}
			o.Local = group == client.LocalGroup
			o.Group, o.Cluster = ident.GroupName(group), ident.ClusterID(from.cluster)
			if o.To, err = parsePoint(to, o.Group, time.Now()); err != nil {
				return err
			}
			if from.url != "" {
				if o.Archive, err = archive.Open(cmd.Context(), from.url, archive.Options{Find: true}); err != nil {
					return err
				}
				defer o.Archive.Close()
			}
			r, err := restore.Run(cmd.Context(), o)
			var gap *restore.GapError
			switch {
			case errors.Is(err, restore.ErrNotEmpty), errors.Is(err, restore.ErrNothing), errors.Is(err, restore.ErrTarget), errors.As(err, &gap):
				return exitWith(exitPrecondition, "%w", err)
			case err != nil:
				return err
			}
			return a.show(r, func(w io.Writer) { writeRestored(w, r) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&group, "group", "", "the group")
	fl.StringVar(&to, "to", "", "POSITION, NODE/SEQUENCE or TIME; default: the end")
	fl.StringVar(&o.Out, "out", "", "directory to restore into: it must be empty or not exist")
	fl.StringArrayVar(&o.Data, "from-data", nil, "data directory of a node; may be given several times")
	fl.BoolVar(&o.Uncommitted, "uncommitted", false, "also what is not known to be committed, as far as the receivers go")
	from.add(cmd, "from-archive")
	return cmd
}

// parsePoint reads what --to says.
func parsePoint(s string, group ident.GroupName, now time.Time) (t restore.Target, err error) {
	if s == "" {
		return t, nil
	}
	if g, p, err := ident.ParsePosition(s); err == nil {
		of, local := strings.CutPrefix(string(g), client.LocalGroup+"/") // of one node, whose journal is the only one there
		if g != "" && g != group && !(local && group == client.LocalGroup) {
			return t, usagef("--to %s is a position of group %s, not of %s", s, g, group)
		}
		if !local {
			of = ""
		}
		return restore.Target{Position: p, Of: ident.NodeID(of)}, nil
	}
	node, number, found := strings.Cut(s, "/")
	if !found {
		node, number = "", s
	}
	if n, err := strconv.ParseUint(number, 10, 64); err == nil && n > 0 {
		return restore.Target{Node: ident.NodeID(node), Sequence: ident.Sequence(n)}, nil
	}
	if t.Time, err = parsePast("to", s, now); err != nil {
		return t, usagef("--to %q: want a position such as 3.42, an entry such as a/1234, a time such as 2006-01-02T15:04:05Z, or 10m for ten minutes ago", s)
	}
	return t, nil
}

func writeRestored(w io.Writer, r restore.Result) {
	var p pairs
	p.add("position", "%s, of %s", r.Position, humanTime(r.Time))
	p.add("records", "%s in %s, %s", humanCount(r.Records), plural(r.Files, "file", "files"), humanBytes(int64(r.Bytes)))
	p.add("digest", "%s", r.Digest)
	p.add("receivers", "%d", r.Receivers)
	p.add("into", "%s", r.Out)
	fmt.Fprintf(w, "Group %s was restored.\n", r.Group)
	p.write(w, "  ")
	if r.Beyond > 0 {
		fmt.Fprintf(w, "ATTENTION: %s beyond %s in the receivers; nothing there proves that they were acknowledged. --uncommitted takes them, too.\n",
			plural(int(r.Beyond), "fact stands", "facts stand"), r.Committed)
	}
	for _, u := range r.Unusable {
		fmt.Fprintf(w, "ATTENTION: not used: %s\n", u)
	}
}

// restoredRecord is one record of a restored directory, a line of JSON.
type restoredRecord struct {
	File string     `json:"file"`
	Key  client.Key `json:"key"`
	client.Image
}

func newJournalRestored(a *app) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "restored DIR",
		Short: "Print the records of a directory that journal restore made, as a line of JSON each",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := bufio.NewWriter(a.out)
			sub := *a
			sub.out, sub.output = out, "json"
			_, err := restore.Records(cmd.Context(), nil, args[0], func(r restore.Record) error {
				if only != "" && r.File != only {
					return nil
				}
				return sub.showLine(restoredRecord{File: r.File, Key: client.MakeKey(r.Key), Image: client.Image{
					Position: r.Position.String(), Time: unixTime(r.Time), Expiry: unixTime(r.Expiry), Kind: uint8(r.Kind), Value: r.Value,
				}}, nil)
			})
			return errors.Join(err, out.Flush())
		},
	}
	cmd.Flags().StringVar(&only, "file", "", "of this file only")
	return cmd
}
