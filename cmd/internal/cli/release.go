package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
)

const (
	releaseWait  = 10 * time.Second       // for a member that can take a release: about the time in which the lease has run out anyway
	releaseHedge = 700 * time.Millisecond // one member has so long before the next is asked too
	releaseAgain = 100 * time.Millisecond // pause before members are asked again
)

func newRelease(a *app) *cobra.Command {
	var path string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "release --config FILE",
		Short: "Say that a node's process is dead, so that its roles fail over at once",
		Long: `Say to the other members that the process of a node is dead: its roles then fail over at once, and not only when its lease
has run out. Meant for ExecStopPost= of a systemd unit; "understudy dev" and "understudy server --supervise" do it by themselves.

Nothing is taken on trust: the command takes the exclusive lock of the node's data directory, which the process held as long
as it lived, reads there which life it was, and releases that life and no other. It refuses a copy of the directory, and one
whose life was recorded on another machine or before the last boot. It may be repeated.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("--config is missing: name the dead node's configuration file")
			}
			c, err := node.ReadConfig(path)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			var more []string
			if cmd.Flags().Changed("addr") {
				if more, err = a.addresses(); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			r, err := releaseDead(ctx, c, more)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { fmt.Fprintln(w, r) })
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file (YAML) of the dead node")
	cmd.Flags().DurationVar(&wait, "wait", releaseWait, "give up after this long; the lease runs out by itself")
	return cmd
}

// released is what became of a release.
type released struct {
	Node     string   `json:"node"`
	Life     string   `json:"incarnation,omitempty"`
	Released bool     `json:"released"` // false: there was nothing to release, see Detail
	By       string   `json:"by,omitempty"`
	Groups   []string `json:"groups"`
	Detail   string   `json:"detail,omitempty"`
}

func (r released) String() string {
	switch {
	case !r.Released:
		return fmt.Sprintf("nothing to release for node %s: %s", r.Node, r.Detail)
	case len(r.Groups) == 0:
		return fmt.Sprintf("node %s is released (life %s, through %s); it was primary of no group", r.Node, r.Life, r.By)
	}
	return fmt.Sprintf("node %s is released (life %s, through %s): %s fails over now", r.Node, r.Life, r.By, strings.Join(r.Groups, ", "))
}

// releaseDead releases the last life of the node that c describes, through any other member. It fails with exit code 12,
// and nothing changed, while a process holds the data directory, or when no member takes it until ctx ends.
func releaseDead(ctx context.Context, c node.Config, more []string) (released, error) {
	out := released{Node: string(c.Node), Groups: []string{}}
	dead, err := node.FindDeadLife(c)
	switch {
	case errors.Is(err, node.ErrNeverLived):
		out.Detail = err.Error()
		return out, nil
	case errors.Is(err, node.ErrStillRuns):
		return out, exitWith(exitPrecondition, "%w: only a dead process can be released; to stop a living one send it SIGTERM", err)
	case err != nil:
		return out, &exitError{exitPrecondition, err}
	}
	out.Life = dead.Life.String()
	var addrs []string
	for _, id := range slices.Sorted(maps.Keys(dead.Members)) {
		addrs = append(addrs, dead.Members[id])
	}
	for _, m := range more {
		if m != c.Advertise.HTTP && !slices.Contains(addrs, m) {
			addrs = append(addrs, m)
		}
	}
	if len(addrs) == 0 {
		out.Detail = "it knows no other member: it was alone, or it never joined (name a member with --addr)"
		return out, nil
	}
	r, by, err := askForRelease(ctx, addrs, dead)
	var refused *client.Error
	switch {
	case err == nil:
		out.Released, out.By, out.Groups = true, by, append(out.Groups, r.Groups...)
		return out, nil
	case errors.As(err, &refused) && refused.Reason == client.ReasonOtherLife:
		out.Detail = refused.Detail
		return out, nil
	}
	return out, exitWith(exitPrecondition, "node %s (life %s) is not released, its lease runs out by itself: %w", c.Node, dead.Life, err)
}

// askForRelease asks one member after the other, the next one too when one is silent, round and round until ctx ends. Not
// all at once: the first one asked may have to make itself Raft leader, and two that try hinder each other.
func askForRelease(ctx context.Context, addrs []string, dead node.DeadLife) (client.Release, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	type reply struct {
		r   client.Release
		by  string
		err error
	}
	replies := make(chan reply)
	running := 0
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-replies
		}
	}()
	next := 0
	ask := func() {
		addr := addrs[next%len(addrs)]
		next++
		running++
		go func() {
			r, err := releaseThrough(ctx, addr, dead.Node, dead.Life)
			replies <- reply{r, addr, err}
		}()
	}
	ask()
	timer := time.NewTimer(releaseHedge)
	defer timer.Stop()
	var last error
	for {
		select {
		case got := <-replies:
			running--
			var e *client.Error
			final := errors.As(got.err, &e) && !e.Code.NotDone() && e.Code != client.CodeUnknownOutcome && e.Code != client.CodeInternal
			if got.err == nil || final {
				return got.r, got.by, got.err
			}
			if ctx.Err() == nil || last == nil {
				last = got.err
			}
			wait := time.Duration(0)
			if next%len(addrs) == 0 {
				wait = releaseAgain
			}
			timer.Reset(wait)
		case <-timer.C:
			if running < len(addrs) {
				ask()
			}
			timer.Reset(releaseHedge)
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return client.Release{}, "", last
		}
	}
}

// releaseThrough asks one member once.
func releaseThrough(ctx context.Context, addr string, id ident.NodeID, life ident.Incarnation) (client.Release, error) {
	cl := client.NewWith(client.Options{Addresses: []string{addr}, Retry: -1, Timeout: 6 * time.Second})
	defer cl.Close()
	return cl.ReleaseNode(ctx, string(id), life.String())
}
