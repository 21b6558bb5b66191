package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newGroupList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the groups with their primaries and what they select, in start order",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				st, err := cl.Status(ctx)
				if err != nil {
					return err
				}
				all := listedGroups(st)
				return a.show(all, func(w io.Writer) { writeGroupList(w, all) })
			})
		},
	}
}

// listedGroup is a group in short.
type listedGroup struct {
	Name     string           `json:"name"`
	Planned  bool             `json:"planned"` // it will be created, and has no primary yet
	Primary  string           `json:"primary"` // "": none at present
	InSync   []string         `json:"in_sync"`
	Epoch    uint64           `json:"epoch"`
	Phase    string           `json:"phase"`
	Concerns int              `json:"concerns"` // that `status GROUP` names
	Spec     client.GroupSpec `json:"spec"`
}

// listedGroups are the groups in start order, and behind them those that are planned.
func listedGroups(st client.Status) []listedGroup {
	all := []listedGroup{}
	for _, g := range st.Groups {
		all = append(all, listedGroup{Name: g.Name, Primary: g.Primary, InSync: append([]string{}, g.InSync...), Epoch: g.Epoch, Phase: g.Phase, Concerns: len(groupConcerns(g)), Spec: g.Spec})
	}
	for _, p := range st.Planned {
		all = append(all, listedGroup{Name: p.Spec.Name, Planned: true, InSync: []string{}, Spec: p.Spec})
	}
	return all
}

func writeGroupList(w io.Writer, all []listedGroup) {
	if len(all) == 0 {
		fmt.Fprintln(w, "There is no group yet.")
		return
	}
	t := newTable("GROUP", "PRIMARY", "IN SYNC", ">EPOCH", "STATE", "PREFERRED", "DELIVERY", "SELECTS")
	for _, g := range all {
		state := g.Phase
		if g.Planned {
			state = "planned"
		}
		if g.Concerns > 0 {
			state += ", ATTENTION"
		}
		epoch := ""
		if g.Epoch > 0 {
			epoch = fmt.Sprint(g.Epoch)
		}
		t.add(g.Name, g.Primary, strings.Join(g.InSync, ", "), epoch, state, g.Spec.Preferred, g.Spec.Delivery, selectionText(g.Spec))
	}
	t.write(w)
	for _, g := range all {
		if g.Concerns > 0 {
			fmt.Fprintf(w, "`understudy status %s` says what needs attention.\n", g.Name)
		}
	}
}
