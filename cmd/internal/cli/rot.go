package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newJournalRepair(a *app) *cobra.Command {
	var (
		on   target
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "repair GROUP[/NODE]",
		Short: "Check a node's copy of a journal now, and repair what is rotten from other nodes",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJournal(cmd.Context(), on, args[0], wait, func(ctx context.Context, cl *client.Client, group, node string) error {
				r, err := cl.Repair(ctx, group, node, wait)
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) { writeRepair(w, r) }); err != nil {
					return err
				}
				if !r.OK {
					return exitWith(exitIncomplete, "journal %s stays rotten: start the other data nodes, whose copies complete it; the node tries again by itself", r.Journal)
				}
				return nil
			})
		},
	}
	on.flag(cmd)
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Minute, "give up after this long")
	return cmd
}

func writeRepair(w io.Writer, r client.Repair) {
	if len(r.Rot) == 0 {
		fmt.Fprintf(w, "Journal %s is sound: %d receivers checked.\n", r.Journal, r.Receivers)
		return
	}
	t := newTable("RECEIVER", ">BYTE", "KIND", ">FIRST", ">LAST", "REPAIRED", "DETAIL")
	for _, p := range r.Rot {
		repaired := yesNo(p.Repaired, "yes", "no")
		if p.From != "" {
			repaired = "from " + p.From
		}
		name := fmt.Sprintf("%06d", p.Receiver)
		if p.Receiver == 0 {
			name = "-"
		}
		t.add(name, p.Offset, p.Kind, p.First, p.Last, repaired, p.Detail)
	}
	t.write(w)
}

// savePiece is how much is asked for at once.
const savePiece = 4 << 20

func newJournalSave(a *app) *cobra.Command {
	var on target
	cmd := &cobra.Command{
		Use:   "save GROUP/NODE NUMBER FILE",
		Short: "Write a receiver, as a node has it on its disk, to a new file",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, node, err := splitJournal(args[0])
			if err != nil {
				return err
			}
			number, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil || number == 0 {
				return usagef("%q is not the number of a receiver; `understudy journal receivers %s` lists them", args[1], args[0])
			}
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				size, err := saveReceiver(cmd.Context(), cl, group, node, uint32(number), args[2])
				if err != nil {
					return err
				}
				saved := struct {
					Receiver uint64 `json:"receiver"`
					File     string `json:"file"`
					Bytes    int64  `json:"bytes"`
				}{number, args[2], size}
				return a.show(saved, func(w io.Writer) {
					fmt.Fprintf(w, "Receiver %06d of %s is in %s: %s.\n", number, journalName(group, node), args[2], humanBytes(size))
				})
			})
		},
	}
	on.flag(cmd)
	return cmd
}

// saveReceiver fetches a receiver piece by piece into a new file, which is synced. A file that was begun in vain is removed.
func saveReceiver(ctx context.Context, cl *client.Client, group, node string, number uint32, path string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	for at := int64(0); ; {
		piece, cancel := context.WithTimeout(ctx, askTimeout)
		b, all, err := cl.ReceiverContent(piece, group, node, number, at, savePiece)
		cancel()
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(f, bytes.NewReader(b)); err != nil {
			return 0, err
		}
		if at += int64(len(b)); len(b) == 0 || at >= all {
			return at, f.Sync()
		}
	}
}
