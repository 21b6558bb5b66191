package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newBackout(a *app) *cobra.Command {
	on := target{}
	list := &cobra.Command{
		Use:   "list GROUP",
		Short: "List what nodes undid when they came back, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.backouts(cmd.Context(), on, func(ctx context.Context, cl *client.Client) ([]client.Backout, error) {
				return cl.Backouts(ctx, args[0])
			})
			if err != nil {
				return err
			}
			slices.SortStableFunc(all, func(x, y client.Backout) int { return y.Time.Compare(x.Time) })
			return a.show(all, func(w io.Writer) { writeBackouts(w, args[0], on, all) })
		},
	}
	show := &cobra.Command{
		Use:   "show GROUP ID",
		Short: "Show every entry of one back-out, and whether it lives on",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.backouts(cmd.Context(), on, func(ctx context.Context, cl *client.Client) ([]client.Backout, error) {
				b, err := cl.Backout(ctx, args[0], args[1])
				if on.on == "" && errors.Is(err, client.ErrNotFound) {
					return nil, nil // another node may have it
				}
				return []client.Backout{b}, err
			})
			switch {
			case err != nil:
				return err
			case len(all) == 0:
				return fmt.Errorf("no node that answers has a back-out report %s of group %s; `understudy backout list %s` lists them", args[1], args[0], args[0])
			case len(all) > 1:
				return usagef("nodes %s and %s have a back-out report %s each: choose one with --on NODE", all[0].Node, all[1].Node, args[1])
			}
			return a.show(all[0], func(w io.Writer) { writeBackout(w, all[0]) })
		},
	}
	for _, cmd := range []*cobra.Command{list, show} {
		cmd.Flags().StringVar(&on.on, "on", "", "node whose reports are wanted (default all nodes that answer)")
	}
	return family("backout", "Show what was undone after a failover", list, show)
}

// backouts asks the chosen node, or else every node with data, and says which do not answer. It fails when none does.
func (a *app) backouts(ctx context.Context, on target, ask func(context.Context, *client.Client) ([]client.Backout, error)) (all []client.Backout, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all = []client.Backout{} // in JSON [], not null
	if on.on != "" {
		err = a.withTarget(ctx, on, func(cl *client.Client) error {
			got, err := ask(ctx, cl)
			all = append(all, got...)
			return err
		})
		return all, err
	}
	var nodes []client.NodeStatus
	if err := a.withClient(func(cl *client.Client) error { nodes, err = cl.Nodes(ctx); return err }); err != nil {
		return nil, err
	}
	heard := false
	var last error
	for _, n := range nodes {
		if n.Kind == "witness" {
			continue
		}
		cl := operatorClient(n.HTTP)
		got, err := ask(ctx, cl)
		cl.Close()
		switch {
		case err == nil:
			heard, all = true, append(all, got...)
		case errors.Is(err, client.ErrUnknownGroup):
			return nil, err
		default:
			last = fmt.Errorf("node %s could not be asked, its reports are missing here: %w", n.ID, err)
			a.notice("understudy: %v", last)
		}
	}
	if !heard {
		return nil, last
	}
	return all, nil
}

func writeBackouts(w io.Writer, group string, on target, all []client.Backout) {
	if len(all) == 0 {
		where := "any node that answers"
		if on.on != "" {
			where = "node " + on.on
		}
		fmt.Fprintf(w, "Nothing of group %s was ever backed out on %s.\n", group, where)
		return
	}
	t := newTable("ID", "TIME", "NODE", "JOURNAL", "STORE FROM → TO", ">UNDONE", ">NEVER ACKNOWLEDGED", ">LOST")
	for _, b := range all {
		t.add(b.ID, humanTime(b.Time), b.Node, b.Journal, movedBack(b), humanCount(b.Undone), humanCount(b.Unheard), humanCount(b.Lost-b.Unheard))
	}
	t.write(w)
}

// movedBack says what the back-out did to the store's position.
func movedBack(b client.Backout) string {
	if b.From == b.To {
		return "stays at " + placeText(b.To)
	}
	return placeText(b.From) + " → " + placeText(b.To)
}

// placeText is a position for people: before the first fact is the beginning.
func placeText(p string) string {
	if p == "" || strings.HasSuffix(p, "@0.0") {
		return "the beginning"
	}
	return p
}

func writeBackout(w io.Writer, b client.Backout) {
	fmt.Fprintf(w, "Back-out %s of group %s on node %s, %s\n", b.ID, b.Group, b.Node, humanTime(b.Time))
	fmt.Fprintf(w, "  epoch %d left out what journal %s holds beyond entry %s; the store: %s\n", b.Epoch, b.Journal, humanCount(b.Known), movedBack(b))
	fmt.Fprintf(w, "  %s undone; %s that nobody was told were done; %s lost\n", plural(b.Undone, "entry", "entries"), humanCount(b.Unheard), humanCount(b.Lost-b.Unheard))
	if b.Lost > b.Unheard {
		fmt.Fprintf(w, "  LOST: a client may have heard that it was done; deposit it anew if it still holds, from AFTER\n")
	}
	if len(b.Entries) == 0 {
		return
	}
	t := newTable(">SEQUENCE", "POSITION", "TYPE", "FILE", "KEY", "LIVES ON", "UNDONE", "BEFORE", "AFTER")
	t.indent = "  "
	for _, e := range b.Entries {
		lives := yesNo(e.LivesOn, "yes", "LOST")
		if e.Unheard {
			lives = "no, never acknowledged"
		}
		t.add(e.Sequence, e.Position, e.Type, e.File, printable(e.Bytes(), 40), lives, yesNo(e.Undone, "yes", "no"), imageText(e.Before, 30), imageText(e.After, 30))
	}
	t.write(w)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func imageText(i *client.Image, limit int) string {
	if i == nil {
		return "none"
	}
	return printable(i.Value, limit) + fmt.Sprintf(" (%s)", humanBytes(int64(len(i.Value))))
}
