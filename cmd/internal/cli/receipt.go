package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newReceipt(a *app) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "receipt POSITION",
		Short: "Tell what has become of a write whose outcome is unknown",
		Long: `Tell what has become of a write whose outcome is unknown. POSITION is what the error said, such as orders@3.42.

Exit codes: 0 it was done, 12 it was not and never will be, 75 it is not decided yet.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return usagef("--wait %s: must not be negative", wait)
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout+wait)
				defer cancel()
				r, err := cl.Receipt(ctx, args[0], wait)
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) { writeProse(w, 2, receiptText(r)) }); err != nil {
					return err
				}
				switch r.Outcome {
				case client.OutcomeDone:
					return nil
				case client.OutcomeNotDone:
					return &exitError{exitPrecondition, errReported}
				}
				return &exitError{exitRunning, errReported}
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for the decision")
	return cmd
}

func receiptText(r client.Receipt) string {
	switch r.Outcome {
	case client.OutcomeDone:
		return fmt.Sprintf("%s was done: it is part of the history, which is committed up to %s (says %s)", r.Position, r.Committed, r.Node)
	case client.OutcomeNotDone:
		return fmt.Sprintf("%s was not done and never will be: the history went on without it (says %s, epoch %d)", r.Position, r.Node, r.Epoch)
	}
	return fmt.Sprintf("%s is not decided yet: the history is committed up to %s (says %s); `understudy receipt %s --wait 10s` waits for it", r.Position, r.Committed, r.Node, r.Position)
}
