package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// moved is what an export or import of receivers did.
type moved struct {
	Journal   string `json:"journal"`
	Receivers int    `json:"receivers"`
	Skipped   int    `json:"skipped"` // there already
	Entries   uint64 `json:"entries"`
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Bytes     int64  `json:"bytes"`
}

func newJournalExport(a *app) *cobra.Command {
	var data, to string
	cmd := &cobra.Command{
		Use:   "export GROUP/NODE --data DIR --to DIR",
		Short: "Save detached receivers of a data directory to files; the node may run",
		Long: `Save the detached receivers of a journal to files, each checked from its first to its last byte: to carry them to another node by
other means than the network (journal import), or to put them away. Nothing is changed in the data directory.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, author, err := splitJournal(args[0])
			if err != nil {
				return err
			}
			if data == "" || to == "" {
				return usagef("--data and --to are needed: whose receivers, and where they go")
			}
			files, err := receiverFiles(filepath.Join(data, "journals", group, author))
			if err != nil {
				return err
			}
			m, err := exportReceivers(files, to)
			if err != nil {
				return err
			}
			m.Journal = args[0]
			return a.show(m, func(w io.Writer) { m.write(w, "saved to "+to) })
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of the node")
	cmd.Flags().StringVar(&to, "to", "", "directory for the files, made when it is missing")
	return cmd
}

func (m moved) write(w io.Writer, what string) {
	fmt.Fprintf(w, "Journal %s: %s %s, entries %s to %s, %s.\n", m.Journal, plural(m.Receivers, "receiver", "receivers"), what, humanCount(m.First), humanCount(m.Last), humanBytes(m.Bytes))
	if m.Skipped > 0 {
		fmt.Fprintf(w, "%s there already.\n", plural(m.Skipped, "receiver was", "receivers were"))
	}
}

// exportReceivers copies all but the newest receiver, as far as their bundles go.
func exportReceivers(files []string, to string) (m moved, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return m, err
	}
	for _, path := range files[:len(files)-1] {
		s, err := exportReceiver(path, filepath.Join(to, filepath.Base(path)))
		if errors.Is(err, os.ErrExist) {
			m.Skipped++
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted by the node meanwhile
		}
		if err != nil {
			return m, fmt.Errorf("export %s: %w", path, err)
		}
		if m.Receivers == 0 {
			m.First = uint64(s.Header().First)
		}
		m.Receivers++
		m.Last, m.Bytes = uint64(s.Last()), m.Bytes+s.Bytes()
		m.Entries += uint64(s.Last()-s.Header().First) + 1
	}
	return m, syncFolder(to)
}

func exportReceiver(from, to string) (_ *journal.Stream, err error) {
	if _, err := os.Stat(to); err == nil {
		return nil, os.ErrExist
	}
	in, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s, err := journal.NewStream(in)
	if err != nil {
		return nil, err
	}
	temp := to + ".tmp"
	out, err := os.Create(temp)
	if err != nil {
		return nil, err
	}
	_, err = out.Write(s.Raw())
	for err == nil {
		b, next := s.Next()
		if next == io.EOF {
			break
		}
		if err = next; err == nil {
			_, err = out.Write(b.Raw)
		}
	}
	if err == nil && !s.Closed() {
		err = errors.New("the receiver does not end with J NR although another one follows")
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	return s, nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newJournalImport(a *app) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "import DIR --data DIR",
		Short: "Put saved receivers into the data directory of a node that does not run",
		Long: `Put receivers that journal export saved into the data directory of a node that does not run. Each must continue what is held there, or
end where that begins; every byte is checked. When the node starts it goes on from there instead of fetching them over the network.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if data == "" {
				return usagef("--data is needed: the data directory of the node")
			}
			files, err := receiverFiles(args[0])
			if err != nil {
				return err
			}
			self, cluster, lock, err := node.Unattended(vfs.Default, data)
			if err != nil {
				return exitWith(exitPrecondition, "%w", err)
			}
			defer func() { err = errors.Join(err, lock.Close()) }()
			m, err := importReceivers(files, data, self, cluster)
			if err != nil {
				return err
			}
			return a.show(m, func(w io.Writer) { m.write(w, "taken") })
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of the node")
	return cmd
}

// importReceivers opens the journal that the files belong to and gives it those before its oldest receiver, newest first, then those
// after its newest one.
func importReceivers(files []string, data string, self ident.NodeID, cluster ident.ClusterID) (m moved, err error) {
	var headers []journal.ReceiverHeader
	for _, path := range files {
		r, err := openReceiver(path)
		if err != nil {
			return m, err
		}
		r.close()
		headers = append(headers, r.header)
		switch first := headers[0]; {
		case r.header.ID != first.ID || r.header.Cluster != first.Cluster:
			return m, usagef("%s belongs to journal %s, %s to journal %s: import one journal at a time", files[0], first.ID, path, r.header.ID)
		case cluster != "" && r.header.Cluster != cluster:
			return m, exitWith(exitPrecondition, "%s belongs to cluster %s, the data directory to %s", path, r.header.Cluster, cluster)
		}
	}
	h := headers[0]
	j, err := journal.Open(journal.Options{Dir: filepath.Join(data, "journals", string(h.ID.Group), string(h.ID.Node)), ID: h.ID, Cluster: h.Cluster})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	m.Journal = h.ID.String()
	held, _ := j.View()
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	older := func(i int) bool { return held.First > 0 && headers[i].First < held.First }
	slices.SortFunc(order, func(a, b int) int {
		if older(a) && older(b) {
			return cmp.Compare(headers[b].Number, headers[a].Number)
		}
		return cmp.Compare(headers[a].Number, headers[b].Number)
	})
	for _, i := range order {
		if !older(i) && h.ID.Node == self && headers[i].First > held.Last {
			return m, exitWith(exitPrecondition, "%s: node %s wrote journal %s itself; only receivers before the oldest one held can be put back", files[i], self, h.ID)
		}
		added, err := importReceiver(j, files[i])
		if err != nil {
			return m, fmt.Errorf("import %s: %w", files[i], err)
		}
		if added == 0 {
			m.Skipped++
			continue
		}
		m.Receivers++
		m.Entries += added
	}
	view, _ := j.View()
	m.First, m.Last, m.Bytes = uint64(view.First), uint64(view.Last), view.Bytes
	return m, nil
}

func importReceiver(j *journal.Journal, path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return j.Import(f)
}
