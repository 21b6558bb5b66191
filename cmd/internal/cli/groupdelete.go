package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newGroupDelete(a *app) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "delete GROUP",
		Short: "Delete a group without records, for ever",
		Long: `Delete a group that holds no records and that nobody needs. Its journals, copies and history go on every node; on one that is away, when it
comes back. The name is never used again. What keeps the group from being deleted is listed; --dry-run only lists it.`,
		Example: "  understudy group delete orders --dry-run\n  understudy group delete orders",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), 2*askTimeout)
				defer cancel()
				do := cl.DeleteGroup
				if dry {
					do = cl.DryRunDelete
				}
				d, err := do(ctx, args[0])
				if err != nil {
					return err
				}
				if err := a.show(d, func(w io.Writer) { writeDeletion(w, d) }); err != nil {
					return err
				}
				if len(d.Blockers) > 0 {
					return exitWith(exitPrecondition, "group %s cannot be deleted now: see what keeps it", d.Group)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what keeps the group from being deleted")
	return cmd
}

// writeDeletion says what was done, or what keeps it from being done.
func writeDeletion(w io.Writer, d client.GroupDeletion) {
	switch {
	case d.Deleted:
		writeProse(w, 2, fmt.Sprintf("Group %s was deleted: %s.", d.Group, d.Note))
	case len(d.Blockers) == 0:
		writeProse(w, 2, fmt.Sprintf("Group %s can be deleted: %s.", d.Group, d.Note))
	default:
		fmt.Fprintf(w, "Group %s cannot be deleted now:\n", d.Group)
		for _, b := range d.Blockers {
			writeProse(w, 2, "- "+b.Text)
		}
	}
}
