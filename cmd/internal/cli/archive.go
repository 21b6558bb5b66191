package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/archive"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

func newJournalArchive(a *app) *cobra.Command {
	return family("archive", "Look into an archive of receivers, through a node or without one", newArchiveList(a), newArchiveVerify(a))
}

// archiveFlags say which archive is meant.
type archiveFlags struct{ url, cluster string }

func (f *archiveFlags) add(cmd *cobra.Command, name string) {
	cmd.Flags().StringVar(&f.url, name, os.Getenv("UNDERSTUDY_ARCHIVE_URL"), "address of the archive: file:///folder or s3://bucket/prefix?region=…; default $UNDERSTUDY_ARCHIVE_URL")
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "id of the cluster, when the archive holds several")
}

// archived is what an archive holds of one receiver.
type archived struct {
	Journal string `json:"journal"`
	Number  uint32 `json:"number"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Chain   string `json:"chain"`
	Name    string `json:"name"`
	OK      *bool  `json:"ok,omitempty"` // of verify
	Error   string `json:"error,omitempty"`
}

// list calls f with the archive and what it holds of a group or journal.
func (f *archiveFlags) list(ctx context.Context, of string, use func(*archive.Archive, []archive.Name) error) error {
	group, node, err := splitJournal(of)
	if err != nil {
		return err
	}
	if f.url == "" {
		return usagef("--url is needed, or UNDERSTUDY_ARCHIVE_URL: the address of the archive")
	}
	to, err := archive.Open(ctx, f.url, archive.Options{Find: true})
	if err != nil {
		return err
	}
	defer to.Close()
	clusters := []ident.ClusterID{ident.ClusterID(f.cluster)}
	if f.cluster == "" {
		if clusters, err = to.Clusters(ctx); err != nil {
			return err
		}
	}
	id := ident.JournalID{Group: ident.GroupName(group)}
	if of != group {
		id.Node = ident.NodeID(node)
	}
	var all []archive.Name
	for _, c := range clusters {
		names, err := to.List(ctx, c, id)
		if err != nil {
			return err
		}
		all = append(all, names...)
	}
	return use(to, all)
}

func shownArchived(n archive.Name) archived {
	return archived{Journal: n.Journal.String(), Number: uint32(n.Number), First: uint64(n.First), Last: uint64(n.Last), Chain: n.Chain.String(), Name: n.String()}
}

func newArchiveList(a *app) *cobra.Command {
	var (
		from archiveFlags
		on   target
	)
	cmd := &cobra.Command{
		Use:   "list GROUP[/NODE]",
		Short: "List the archived receivers of a group or journal",
		Long: `List the archived receivers of a group, or of the journal that NODE wrote. A node is asked for what is in its archive;
with --url the archive itself is, without a node.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from.url == "" {
				return a.listArchived(cmd.Context(), on, args[0])
			}
			if on.on != "" {
				return usagef("--on asks a node, --url the archive itself: leave one of them out")
			}
			return from.list(cmd.Context(), args[0], func(_ *archive.Archive, names []archive.Name) error {
				out := []archived{}
				for _, n := range names {
					out = append(out, shownArchived(n))
				}
				return a.show(out, func(w io.Writer) {
					if len(out) == 0 {
						fmt.Fprintln(w, "Nothing of it is archived.")
						return
					}
					t := newTable("RECEIVER", "JOURNAL", ">FIRST", ">LAST", "CHAIN")
					for _, r := range out {
						t.add(fmt.Sprintf("%06d", r.Number), r.Journal, r.First, r.Last, r.Chain)
					}
					t.write(w)
				})
			})
		},
	}
	from.add(cmd, "url")
	on.flag(cmd)
	return cmd
}

// listArchived asks a node for all that is archived, page by page.
func (a *app) listArchived(ctx context.Context, on target, of string) error {
	group, node, err := splitJournal(of)
	if err != nil {
		return err
	}
	q := client.ArchiveQuery{Wait: time.Minute}
	if of != group {
		q.Node = node
	}
	return a.withTarget(ctx, on, func(cl *client.Client) error {
		out := client.ArchivePage{Items: []client.ArchivedReceiver{}}
		for {
			ask, cancel := context.WithTimeout(ctx, q.Wait+askTimeout)
			p, err := cl.Archived(ask, group, q)
			cancel()
			if err != nil {
				return err
			}
			out.URL, out.Items = p.URL, append(out.Items, p.Items...)
			if q.After = p.Next; q.After == "" {
				return a.show(out, func(w io.Writer) { writeArchived(w, out) })
			}
		}
	})
}

func writeArchived(w io.Writer, p client.ArchivePage) {
	if len(p.Items) == 0 {
		fmt.Fprintf(w, "Nothing of it is in %s.\n", p.URL)
		return
	}
	t := newTable("RECEIVER", "JOURNAL", ">FIRST", ">LAST", "STARTS AFTER", "ENDS WITH", ">SIZE", "WRITTEN", "READ BACK")
	for _, r := range p.Items {
		t.add(fmt.Sprintf("%06d", r.Receiver), r.Journal, r.First, r.Last, orNone(r.Start), r.End, humanBytes(r.Bytes), humanTime(r.Written), yesNo(r.Verified, "yes", "-"))
	}
	t.write(w)
	for _, r := range p.Items {
		if r.Damaged != "" {
			fmt.Fprintf(w, "ATTENTION: %s is damaged: %s\n", r.Name, r.Damaged)
		}
	}
}

func newArchiveVerify(a *app) *cobra.Command {
	var from archiveFlags
	cmd := &cobra.Command{
		Use:   "verify GROUP[/NODE]",
		Short: "Read archived receivers back and check every byte",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.list(cmd.Context(), args[0], func(to *archive.Archive, names []archive.Name) error {
				if len(names) == 0 {
					return exitWith(exitFailure, "nothing of %s is archived there, so nothing was checked: look at the name, the address and --cluster", args[0])
				}
				out, bad := []archived{}, 0
				for _, n := range names {
					err := to.Verify(cmd.Context(), n)
					ok := err == nil
					r := shownArchived(n)
					if r.OK = &ok; !ok {
						bad++
						r.Error = err.Error()
					}
					out = append(out, r)
				}
				if err := a.show(out, func(w io.Writer) {
					for _, r := range out {
						if !*r.OK {
							fmt.Fprintln(w, "ATTENTION: "+r.Error)
						}
					}
					fmt.Fprintf(w, "%s read back, %d damaged.\n", plural(len(out), "receiver was", "receivers were"), bad)
				}); err != nil {
					return err
				}
				if bad > 0 {
					return exitWith(exitFailure, "%d of %d archived receivers are damaged", bad, len(out))
				}
				return nil
			})
		},
	}
	from.add(cmd, "url")
	return cmd
}
