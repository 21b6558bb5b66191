package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
)

func newServer(a *app) *cobra.Command {
	var path string
	var supervise, moved bool
	cmd := &cobra.Command{
		Use:   "server --config FILE",
		Short: "Run one node until it is told to stop (SIGTERM)",
		Long: `Run one node until it is told to stop. SIGTERM hands its primary roles over first, for at most timing.hand_over;
SIGINT stops it without that, with its roles, as for a stop of the whole cluster. Either of them for a second time, a second or
more after the first, ends the process on the spot, as a crash would.

A data directory that was copied, or brought here from another machine, is refused under its old name. If it was moved on
purpose, and nothing will start from the old place again, --moved takes it for this start and remembers the new place.

With --supervise the node is a child of this process. When the child dies this process says so to another member, so that
the roles fail over within a fraction of a second instead of when the lease has run out, and starts it again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("--config is missing: name the node's configuration file")
			}
			c, err := node.ReadConfig(path)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			c.Moved = moved
			if supervise {
				return a.supervise(cmd.Context(), path, c, restarts{})
			}
			log := hclog.New(&hclog.LoggerOptions{
				Name:   "understudy",
				Level:  hclog.LevelFromString(c.LogLevel),
				Output: a.err,
			})
			if unknown := node.UnknownOverrides(os.Environ()); len(unknown) > 0 {
				log.Warn("environment variables that set nothing; see deploy/understudy.yaml for the names", "names", strings.Join(unknown, ", "))
			}
			ctx, stop := stopCause(cmd.Context())
			defer stop()
			defer endWhenToldAgain(ctx, a.err)()
			err = node.Run(ctx, c, log)
			var refused *node.PreconditionError
			if errors.As(err, &refused) {
				return &exitError{exitPrecondition, err}
			}
			var gaveUp *node.GaveUpError
			if errors.As(err, &gaveUp) {
				return &exitError{exitGaveUp, err}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&supervise, "supervise", false, "run the node as a child: release its lease when it dies, and restart it")
	cmd.Flags().BoolVar(&moved, "moved", false, "the data directory was moved here on purpose and is no copy of one in use")
	return cmd
}

// stopCause returns a context that ends with ctx, with the cause that a node understands: only SIGTERM asks it to hand its
// roles over.
func stopCause(ctx context.Context) (context.Context, func()) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		var by interruption
		if errors.As(cause, &by) && by.signal != syscall.SIGTERM {
			cause = fmt.Errorf("%w: %w", node.ErrStay, cause)
		}
		cancel(cause)
	})
	return own, func() { stop(); cancel(nil) }
}

// sameStop is how long after the first a second request to stop counts as the same one: a service manager, a terminal and a
// supervisor may all pass on what they were told.
const sameStop = time.Second

// endWhenToldAgain ends the process by the signal that asks it a second time to stop, since ctx has ended: what closes may
// hang. The result ends the watch.
func endWhenToldAgain(ctx context.Context, out io.Writer) (done func()) {
	again, finished := make(chan os.Signal, 4), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-ctx.Done():
		case <-finished:
			return
		}
		first := time.Now()
		signal.Notify(again, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(again)
		for {
			select {
			case s := <-again:
				if time.Since(first) < sameStop {
					continue
				}
				fmt.Fprintf(out, "understudy: told a second time to stop (%s): ends at once\n", s)
				signal.Reset(s)
				_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // one may always send signals to oneself
				select {}                                         // it takes effect at any moment
			case <-finished:
				return
			}
		}
	})
	return func() { close(finished); watching.Wait() }
}

func newConfig(a *app) *cobra.Command {
	return family("config", "Check configuration files", &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration file and print what it means with all defaults",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := node.ReadConfig(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			checked := checkedConfig{c.Effective(), configWarnings(c, os.Environ())}
			plain, err := configJSON(checked)
			if err != nil {
				return err
			}
			return a.show(plain, func(w io.Writer) {
				writeConfig(w, args[0], checked.Config)
				for _, text := range checked.Warnings {
					writeProse(w, 2, "warning: "+text)
				}
			})
		},
	})
}

// configJSON gives the configuration the names it has in the file.
func configJSON(c checkedConfig) (json.RawMessage, error) {
	raw, err := yaml.Marshal(c)
	if err == nil {
		raw, err = yaml.YAMLToJSON(raw)
	}
	return raw, err
}

func writeConfig(w io.Writer, path string, c node.Config) {
	fmt.Fprintf(w, "%s is valid\n", path)
	var p pairs
	p.add("node", "%s (%s), cluster %s, priority %d", c.Node, c.Kind, c.Cluster, c.Priority)
	p.add("data", "%s", c.Data)
	p.add("http", "%s", advertised(c.Listen.HTTP, c.Advertise.HTTP))
	p.add("gossip", "%s", advertised(c.Listen.Gossip, c.Advertise.Gossip))
	p.add("raft", "%s", advertised(c.Listen.Raft, c.Advertise.Raft))
	p.add("ship", "%s", advertised(c.Listen.Ship, c.Advertise.Ship))
	if c.Listen.Redis != "" {
		p.add("redis", "%s", advertised(c.Listen.Redis, c.Advertise.Redis))
	}
	if c.Bootstrap {
		p.add("bootstrap", "yes: it begins a new cluster when its data directory is empty")
	}
	for _, addr := range c.Join {
		p.add("join", "%s", addr)
	}
	for _, g := range c.Groups {
		text := fmt.Sprintf("%s, files %q", g.Name, g.Files)
		if !g.Keys.All() {
			text += ", " + g.Keys.String()
		}
		if g.Preferred != "" {
			text += ", preferred " + string(g.Preferred)
		}
		text += fmt.Sprintf(", %s, %s wanted", g.Delivery, plural(g.Secondaries, "secondary", "secondaries"))
		p.add("group", "%s", text)
	}
	p.add("timing", "lease %s, renewed every %s, shrink after %s, hand over within %s", c.Timing.Lease, c.Timing.Renew, c.Timing.ShrinkAfter, c.Timing.HandOver)
	p.add("log level", "%s", c.LogLevel)
	p.write(w, "  ")
}

func advertised(listen, advertise string) string {
	if listen == advertise {
		return listen
	}
	return listen + ", advertised as " + advertise
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and its inter-node protocol",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Protocol uint8  `json:"protocol"` // what it speaks with other nodes
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{Version: "unknown", Protocol: uint8(ident.CurrentProtocol), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return a.show(v, func(w io.Writer) {
				fmt.Fprintf(w, "understudy %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				fmt.Fprintf(w, "inter-node protocol %d: all nodes of a cluster run builds of one number\n", v.Protocol)
			})
		},
	}
}
