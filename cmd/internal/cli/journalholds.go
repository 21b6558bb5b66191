package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newJournalHolds(a *app) *cobra.Command {
	var remove string
	cmd := &cobra.Command{
		Use:   "holds GROUP",
		Short: "List what consumers hold of a group's journals",
		Long: `List what consumers hold of a group's journals. Receivers with entries beyond the position of a hold stay on every data
node until the hold moves on, is removed, or is over.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				if remove != "" {
					if err := cl.RemoveHold(ctx, args[0], remove); err != nil {
						return err
					}
				}
				all, err := cl.Holds(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeHolds(w, all) })
			})
		},
	}
	cmd.Flags().StringVar(&remove, "remove", "", "remove this hold first: its consumer is gone for good")
	return cmd
}

func writeHolds(w io.Writer, all []client.Hold) {
	if len(all) == 0 {
		fmt.Fprintln(w, "Nothing is held.")
		return
	}
	t := newTable("HOLD", "READ UP TO", "MOVED", "OVER AT", "BY")
	for _, h := range all {
		t.add(h.Name, h.Position, humanTime(h.Moved), humanTime(h.Until), h.By)
	}
	t.write(w)
}
