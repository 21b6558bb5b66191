package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newGroup(a *app) *cobra.Command {
	return family("group", "Look at what a group is asked to do, and change it", newGroupList(a), newGroupShow(a), newGroupCreate(a), newGroupSet(a), newGroupDelete(a), newGroupReadmit(a))
}

func newGroupShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show GROUP",
		Short: "Show the keys of a group",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				g, err := cl.Group(ctx, args[0])
				if err != nil {
					return err
				}
				shown := client.GroupChange{Group: g.Name, Spec: g.Spec, Version: g.SpecVersion, Changed: []string{}}
				return a.show(groupShown{shown, g.Scheduled}, func(w io.Writer) {
					writeSpec(w, shown)
					if g.Scheduled != nil {
						fmt.Fprintf(w, "  %s\n", operationLine(*g.Scheduled))
					}
				})
			})
		},
	}
}

// writeSpec lists the keys of a group as `group set` takes them.
func writeSpec(w io.Writer, c client.GroupChange) {
	s := c.Spec
	mib := func(n int, zero string) string {
		if n == 0 {
			return zero
		}
		return fmt.Sprintf("%d MiB", n)
	}
	word := func(s, empty string) string {
		if s == "" {
			return empty
		}
		return s
	}
	receivers := fmt.Sprint(s.KeepReceivers)
	if s.KeepReceivers < 0 {
		receivers = "-1 (all)"
	}
	age := "0s (not for their age)"
	if s.ReceiverAge > 0 {
		age = s.ReceiverAge.String()
	}
	all := pairs{
		{"name", s.Name}, {"order", fmt.Sprint(s.Order)}, {"files", strings.Join(s.Files, " ")}, {"keys", s.Keys.String()}, {"preferred", s.Preferred}, {"delivery", s.Delivery},
		{"secondaries", fmt.Sprint(s.Secondaries)}, {"on_no_sync", s.OnNoSync}, {"auto_failover", s.AutoFailover}, {"images", s.Images},
		{"switchback", word(s.Switchback, "manual")},
	}
	if s.Switchback == "auto" {
		all.add("switchback_after", "%s", s.SwitchbackAfter)
	}
	all = append(all, pairs{{"receiver_bytes", fmt.Sprintf("%d (%s)", s.ReceiverBytes, humanBytes(s.ReceiverBytes))}, {"receiver_age", age}, {"keep_receivers", receivers},
		{"blocks", mib(s.Blocks, "0")}, {"maximum_blocks", mib(s.MaximumBlocks, "0 (no cap)")}, {"journal_full", word(s.JournalFull, "stall")},
		{"compression", word(s.Compression, "none")}, {"journal_replays", fmt.Sprint(s.JournalReplays)}}...)
	if len(s.Feeds) > 0 {
		all.add("feeds", "%s", feedsText(s.Feeds))
	}
	fmt.Fprintf(w, "Group %s, version %d:\n", c.Group, c.Version)
	all.write(w, "  ")
}

func newGroupSet(a *app) *cobra.Command {
	var version int64
	cmd := &cobra.Command{
		Use:   "set GROUP KEY=VALUE...",
		Short: "Change keys of a group while it runs",
		Long: `Change keys of a group while it runs: delivery, secondaries, on_no_sync, auto_failover, images, preferred, switchback,
switchback_after, keep_receivers, receiver_bytes, blocks, maximum_blocks, journal_full, receiver_age, compression, journal_replays (true or
false) and feeds (which backup feeds which node in place of the primary, as TARGET:FEEDER,TARGET:FEEDER; TARGET: gives it back to the primary).
An empty value is the default. The other keys cannot be changed.`,
		Example: "  understudy group set default delivery=async\n  understudy group set default maximum_blocks=4096 journal_full=drop\n  understudy group set default feeds=c:b",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := parsePatch(args[1:])
			if err != nil {
				return err
			}
			if version >= 0 {
				patch[client.PatchIfVersion] = version
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				c, err := cl.ChangeGroup(ctx, args[0], patch)
				if err != nil {
					return err
				}
				return a.show(c, func(w io.Writer) { writeChange(w, c) })
			})
		},
	}
	cmd.Flags().Int64Var(&version, "if-version", -1, "only if the keys are at this version, as group show tells it")
	return cmd
}

func writeChange(w io.Writer, c client.GroupChange) {
	if len(c.Changed) == 0 {
		fmt.Fprintf(w, "Group %s is as asked for already.\n", c.Group)
		return
	}
	writeProse(w, 2, fmt.Sprintf("Changed %s of group %s, version %d: %s.", strings.Join(c.Changed, ", "), c.Group, c.Version, c.Note))
}

// parsePatch reads KEY=VALUE pairs. Numbers go as numbers, everything else as text.
func parsePatch(args []string) (client.GroupPatch, error) {
	patch := client.GroupPatch{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, usagef("%q: want KEY=VALUE, such as delivery=async", arg)
		}
		if _, twice := patch[key]; twice {
			return nil, usagef("%s is set twice", key)
		}
		switch key {
		case "secondaries", "keep_receivers", "receiver_bytes", "blocks", "maximum_blocks", "order":
			if value == "" {
				patch[key] = nil
				continue
			}
			n := json.Number(value)
			if _, err := n.Int64(); err != nil {
				return nil, usagef("%s=%s: want a whole number", key, value)
			}
			patch[key] = n
		case "feeds":
			feeds, err := parseFeeds(value)
			if err != nil {
				return nil, err
			}
			patch[key] = feeds
		case "journal_replays":
			b, err := strconv.ParseBool(cmp.Or(value, "false"))
			if err != nil {
				return nil, usagef("%s=%s: want true or false", key, value)
			}
			patch[key] = b
		default:
			patch[key] = value
			if value == "" {
				patch[key] = nil
			}
		}
	}
	return patch, nil
}

func newGroupReadmit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "readmit GROUP NODE",
		Short: "Let a node that was dropped for a full journal take part again, if its copy connects",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				x, err := cl.Readmit(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return a.show(x, func(w io.Writer) {
					writeProse(w, 2, fmt.Sprintf("Node %s takes part in group %s again: %s.", x.Node, x.Group, x.Note))
				})
			})
		},
	}
}
