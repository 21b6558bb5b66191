package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// newGroupCreate creates a group with defaults for all but its selection and place; `group set` changes the rest.
func newGroupCreate(a *app) *cobra.Command {
	var spec client.GroupSpec
	cmd := &cobra.Command{
		Use:   "create GROUP",
		Short: "Create a group for files, or for a range of their keys",
		Long: `Create a group. It is refused when another group holds records that would be the new one's, or when it would not be clear whose a record is.
Name, order, files and keys do not change later; "group set" changes the rest.`,
		Example: "  understudy group create orders --files orders --files 'orders-*' --preferred b\n  understudy group create low --files ledger --to h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(spec.Files) == 0 {
				return usagef("--files is missing: say which files the group is for")
			}
			spec.Name = args[0]
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), 2*askTimeout)
				defer cancel()
				if err := cl.CreateGroup(ctx, spec); err != nil {
					return err
				}
				return a.show(spec, func(w io.Writer) {
					fmt.Fprintf(w, "Group %s was created: files %s, keys %s.\n", spec.Name, strings.Join(spec.Files, " "), spec.Keys)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&spec.Files, "files", nil, "a pattern of its files, \"!pattern\" excludes; may be repeated")
	f.StringVar(&spec.Keys.From, "from", "", "the first of its keys, or hex: and digits (default: no bound)")
	f.StringVar(&spec.Keys.To, "to", "", "the first key behind its own (default: no bound)")
	f.StringVar(&spec.Preferred, "preferred", "", "its first primary (default: the node that is asked)")
	f.IntVar(&spec.Order, "order", 0, "start order, lower first")
	return cmd
}

// plannedConcerns say which groups are planned, and what they wait for.
func plannedConcerns(planned []client.PlannedGroup, nodes []client.NodeStatus) (all []string) {
	var known []string
	for _, n := range nodes {
		known = append(known, n.ID)
	}
	for _, p := range planned {
		why := "for its node " + p.Spec.Preferred
		if len(nodes) > 0 && !slices.Contains(known, p.Spec.Preferred) {
			why += ", which is not a member (the members are " + strings.Join(known, ", ") + ")"
		}
		if len(p.Asks) > 0 {
			why = "until the primaries of " + strings.Join(p.Asks, ", ") + " have looked for its records"
		}
		all = append(all, fmt.Sprintf("group %s is planned and waits %s; requests for its records wait, too", p.Spec.Name, why))
	}
	return all
}

// selectionText is what a group selects, in a line.
func selectionText(s client.GroupSpec) string {
	text := "files " + strings.Join(s.Files, " ")
	if s.Keys != (client.KeyRange{}) {
		text += ", keys " + s.Keys.String()
	}
	return text
}
