package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newEvents(a *app) *cobra.Command {
	var (
		on       target
		follow   bool
		severity string
		group    string
		kinds    []string
	)
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened on a node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(severities(), severity) {
				return usagef("--severity %q: want one of %s", severity, strings.Join(severities(), ", "))
			}
			if err := checkKinds(kinds); err != nil {
				return err
			}
			q := client.EventQuery{Severity: severity, Group: group, Kinds: kinds}
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				if follow {
					return a.followEvents(cmd.Context(), cl, q)
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				all, err := cl.FindEvents(ctx, q, 0)
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { writeEvents(w, all) })
			})
		},
	}
	on.flag(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones until Ctrl-C")
	cmd.Flags().StringVar(&group, "group", "", "only events of this group, and those of none")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only events of these kinds, such as SRPRIMARY,SRSHADOWLOST")
	cmd.Flags().StringVar(&severity, "severity", client.SeverityInfo, "lowest severity shown: "+strings.Join(severities(), ", "))
	return cmd
}

// severities in ascending order.
func severities() []string {
	return []string{client.SeverityInfo, client.SeverityWarning, client.SeverityError, client.SeverityCritical}
}

// checkKinds refuses kinds that no node tells.
func checkKinds(kinds []string) error {
	known := client.EventKinds()
	for _, k := range kinds {
		if slices.Contains(known, k) {
			continue
		}
		for _, other := range known {
			if distance(strings.ToUpper(k), other) <= 2 {
				return usagef("--kind %q is no kind of events; did you mean %s?", k, other)
			}
		}
		return usagef("--kind %q is no kind of events; want some of %s", k, strings.Join(known, ", "))
	}
	return nil
}

// followEvents prints events until ctx ends. The ids are those of one node and go on when it restarts; when another node
// answers, they start anew.
func (a *app) followEvents(ctx context.Context, cl *client.Client, q client.EventQuery) error {
	from := "" // the node heard last
	complained := false
	for {
		for e, err := range cl.FollowEvents(ctx, q) {
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				if client.CodeOf(err) == client.CodeInvalid { // it always will be
					return err
				}
				if !complained {
					reportError(a.err, err, a.output == "json")
					a.notice("  trying again")
					complained = true
				}
				break
			}
			complained = false
			if from != "" && from != e.Node {
				from, q.Since = "", 0 // these ids say nothing about another node's
				break
			}
			from, q.Since = e.Node, e.ID
			if err := a.showLine(e, func(w io.Writer) { fmt.Fprintln(w, eventLine(e)) }); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func eventLine(e client.Event) string {
	return fmt.Sprintf("%s  %-4s %-8s %-10s %-16s %s", humanTime(e.Time), e.Node, e.Severity, e.Group, e.Kind, eventText(e))
}

func eventText(e client.Event) string {
	s := e.Message
	for _, k := range sortedKeys(e.Fields) {
		s += fmt.Sprintf("  %s=%s", k, e.Fields[k])
	}
	return s
}

func writeEvents(w io.Writer, all []client.Event) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No events.")
		return
	}
	t := newTable("TIME", "NODE", "SEVERITY", "GROUP", "KIND", "MESSAGE")
	t.whole = true
	for _, e := range all {
		t.add(humanTime(e.Time), e.Node, e.Severity, e.Group, e.Kind, eventText(e))
	}
	t.write(w)
}
