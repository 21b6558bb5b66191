package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// target chooses the node that answers for its own journals, reports and events.
type target struct{ on string }

func (t *target) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.on, "on", "", "node whose own view is wanted (default the first of --addr that answers)")
}

// withTarget calls do with a client for the chosen node alone.
func (a *app) withTarget(ctx context.Context, t target, do func(*client.Client) error) error {
	if t.on == "" {
		return a.withClient(do)
	}
	var addr string
	err := a.withClient(func(cl *client.Client) error {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		nodes, err := cl.Nodes(ask)
		if err != nil {
			return err
		}
		var known []string
		for _, n := range nodes {
			if n.ID == t.on {
				addr = n.HTTP
				return nil
			}
			known = append(known, n.ID)
		}
		return usagef("--on %s: no such node; there are %s", t.on, strings.Join(known, ", "))
	})
	if err != nil {
		return err
	}
	cl := operatorClient(addr)
	defer cl.Close()
	return do(cl)
}

// withJournal calls do with a client for the chosen node and the journal that is named, with so much time for the answer and wait on top.
func (a *app) withJournal(ctx context.Context, t target, name string, wait time.Duration, do func(ctx context.Context, cl *client.Client, group, node string) error) error {
	group, node, err := splitJournal(name)
	if err != nil {
		return err
	}
	return a.withTarget(ctx, t, func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(ctx, wait+askTimeout)
		defer cancel()
		return do(ctx, cl, group, node)
	})
}

// splitJournal reads GROUP or GROUP/NODE. Without a node it is the answering node's own journal.
func splitJournal(s string) (group, node string, err error) {
	group, node, found := strings.Cut(s, "/")
	if !found {
		node = client.Local
	}
	if group == "" || node == "" || strings.Contains(node, "/") {
		return "", "", usagef("%q is not a journal: want GROUP or GROUP/NODE, such as default/a", s)
	}
	return group, node, nil
}

// journalName is the name of a journal for people.
func journalName(group, node string) string {
	if node == client.Local {
		return fmt.Sprintf("the local journal of group %s", group)
	}
	return "journal " + group + "/" + node
}
