package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newJournalStart(a *app) *cobra.Command {
	var q client.CopyStartRequest
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "start GROUP --target NODE --from known|first|attached|NUMBER",
		Short: "Say with which receiver of the primary's journal a node's copy begins",
		Long: `Says with which receiver of the primary's journal a node's copy begins: the one known to the node (the rule without being told), the
first one that the primary holds, the attached one, or one by its number. What lies before is not sent. A copy that has the start of that receiver
goes on where it ends; any other is removed on the node, if everything in it is durable elsewhere, and begins there. If the records on the node lack
something before that receiver the node needs priming: the copy is kept current, and the node is not counted on until it begins earlier.
Refused for a node that writes wait for, and while an operation is under way.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Target == "" {
				return usagef("no node is given: name the node whose copy is meant with --target")
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), wait+askTimeout)
				defer cancel()
				g, err := cl.Group(ctx, args[0])
				if err != nil {
					return err
				}
				if g.Primary == "" {
					return &client.Error{Code: client.CodeNoPrimary, Detail: fmt.Sprintf("group %s has no primary now", args[0]), Remedy: "wait until it has one (GET /v1/status tells)"}
				}
				s, err := cl.StartCopy(ctx, args[0], g.Primary, q, wait)
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) {
					fmt.Fprintf(w, "Node %s is sent journal %s from sequence %d on: %s.\n", s.Target, s.Journal, s.From, s.Note)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Target, "target", "", "node whose copy is meant")
	f.StringVar(&q.From, "from", client.StartKnown, "known, first, attached or the number of a receiver")
	f.DurationVar(&wait, "wait", 30*time.Second, "wait this long for the node")
	return cmd
}
