package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

type devOptions struct {
	nodes    int
	data     string
	basePort int
	fixed    bool // --base-port was given
	restart  bool
}

func newDev(a *app) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster on this machine: three real server processes, Ctrl-C stops all",
		Long: `Run a cluster on this machine, in the foreground: real server processes, children of this one.
Data is kept in --data between runs. A node that was killed can be started again with
"understudy server --config DIR/a/understudy.yaml", or by itself with --restart; without either it stays down. A node started by
hand is no child of this process: its log goes to its own terminal, and Ctrl-C here does not stop it. When a node dies this process says so to
the others, so that its roles fail over at once. Ctrl-C stops all nodes with their roles; a node that gets SIGTERM hands
them over first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.fixed = cmd.Flags().Changed("base-port")
			return a.runDev(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes")
	f.StringVar(&o.data, "data", "understudy-dev", "directory for configurations, logs and data")
	f.IntVar(&o.basePort, "base-port", 7400, "first port; node b has the ten above, and so on")
	f.BoolVar(&o.restart, "restart", false, "restart a node that died")
	return cmd
}

func (a *app) runDev(ctx context.Context, o devOptions) (err error) {
	if o.basePort < 1 || o.basePort+10*maxDevNodes > 65535 {
		return usagef("--base-port %d: want 1 to %d", o.basePort, 65535-10*maxDevNodes)
	}
	warnings := &lockedWriter{w: a.err}
	c, err := newDevCluster(o.data, o.nodes, portsFrom(o.basePort), o.fixed, warnings)
	if err != nil {
		return err
	}
	cl := client.New(c.http()...)
	defer cl.Close()
	defer func() {
		warnings.silence() // nodes that stop one after the other miss each other; that is in their logs
		err = errors.Join(err, a.stopAll(c))
	}()
	fmt.Fprintf(a.out, "Starting %s in %s\n", plural(len(c.nodes), "node", "nodes"), c.dir)
	if err := c.start(); err != nil {
		return err
	}
	st, err := c.waitReady(ctx, cl)
	if ctx.Err() != nil {
		return nil // stopped while starting: what was asked for
	}
	if err != nil {
		return err
	}
	a.introduce(c, st)
	return a.superviseDev(ctx, c, o.restart)
}

// stopAll stops the nodes; a second signal kills what is left, unless it comes so soon that it is the same request.
func (a *app) stopAll(c *devCluster) error {
	running := 0
	for _, n := range c.nodes {
		if n.process != nil && n.process.running() {
			running++
		}
	}
	if running == 0 {
		return nil
	}
	fmt.Fprintf(a.out, "\nStopping %s\n", plural(running, "node", "nodes"))
	began := time.Now()
	again := make(chan os.Signal, 4)
	signal.Notify(again, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(again)
	hurry, stopped := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-again:
				if time.Since(began) >= sameStop {
					close(hurry)
					return
				}
			case <-stopped:
				return
			}
		}
	})
	err := c.stop(hurry)
	close(stopped)
	wg.Wait()
	if err == nil {
		fmt.Fprintf(a.out, "All nodes have stopped (%s). Data is kept in %s\n", humanDuration(time.Since(began)), c.dir)
	}
	return err
}

// introduce prints where the nodes are and what to try first. Every line can be pasted into a shell.
func (a *app) introduce(c *devCluster, st client.Status) {
	g := st.Groups[0]
	t := newTable("NODE", "ROLE", "HTTP", ">PID", "LOG")
	t.indent = "  "
	for _, n := range c.nodes {
		t.add(n.name, g.Roles[n.name], "http://"+n.config.Listen.HTTP, n.process.cmd.Process.Pid, filepath.Join(n.dir, "log"))
	}
	fmt.Fprintf(a.out, "\nThe cluster is ready.\n\n")
	t.write(a.out)
	first := "http://" + c.nodes[0].config.Listen.HTTP
	second := "http://" + c.nodes[min(1, len(c.nodes)-1)].config.Listen.HTTP
	dir := c.nodes[0].dir
	self := os.Args[0]
	addr := ""
	if c.nodes[0].config.Listen.HTTP != defaultFirstAddress {
		addr = " --addr " + strings.Join(c.http(), ",")
	}
	fmt.Fprintf(a.out, `
Write a record, and read it from another node:
  curl -i -X PUT --data-binary 'hello' %[1]s/v1/files/greetings/records/one
  curl -i %[2]s/v1/files/greetings/records/one
`, first, second)
	if redis := c.nodes[0].config.Listen.Redis; redis != "" {
		_, port, _ := net.SplitHostPort(redis) // it was checked
		fmt.Fprintf(a.out, `  redis-cli -p %s get greetings:one
`, port)
	}
	if len(c.nodes) > 1 {
		fmt.Fprintf(a.out, `
Hand the role over, and back:
  curl -s -X POST %[1]s/v1/groups/%[3]s/switchover -d '{}'
  %[5]s switchback %[3]s%[6]s

Kill a node, watch the failover, and bring the node back:
  kill -9 $(cat %[4]s/data/pid)
  %[5]s status%[6]s
  %[5]s server --config %[4]s/understudy.yaml
`, second, second, g.Name, shellQuote(dir), shellQuote(self), addr)
	}
	if len(c.nodes) == 2 {
		fmt.Fprintln(a.out, "\nTwo nodes have no majority when one is lost: nothing fails over by itself. Use --nodes 3.")
	}
	fmt.Fprintf(a.out, "\nCtrl-C stops all nodes.\n")
}

// shellQuote quotes s for a POSIX shell when it needs it.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+:@%=,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// superviseDev reports nodes that end, restarts them if asked, and returns when ctx ends. It stays when none is left: whoever killed them
// one after the other, and started them again by hand, is still at work.
func (a *app) superviseDev(ctx context.Context, c *devCluster, restart bool) error {
	ended := make(chan *devNode)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(quit)
	watch := func(n *devNode, p *process) {
		wg.Go(func() {
			select {
			case <-p.done:
			case <-quit:
				return
			}
			select {
			case ended <- n:
			case <-quit:
			}
		})
	}
	again := map[*devNode]*restarts{}
	since := map[*devNode]time.Time{}
	due := make(chan *devNode)
	for _, n := range c.nodes {
		since[n], again[n] = time.Now(), &restarts{}
		watch(n, n.process)
	}
	alive := len(c.nodes)
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-ended:
			a.notice("understudy: %s", n.ended())
			if !restart {
				a.notice("  start it again: %s server --config %s", shellQuote(os.Args[0]), shellQuote(filepath.Join(n.dir, "understudy.yaml")))
				if alive--; alive == 0 {
					a.notice("  none of the nodes that were started here is left; nodes started by hand go on, also after Ctrl-C, which ends this command")
				}
				continue
			}
			wait, _ := again[n].died(time.Since(since[n])) // somebody sits in front of it: it never gives up
			a.notice("  it is restarted in %s", humanDuration(wait))
			wg.Go(func() {
				select {
				case <-time.After(wait):
				case <-quit:
					return
				}
				select {
				case due <- n:
				case <-quit:
				}
			})
		case n := <-due:
			if err := c.startNode(n); err != nil {
				return err
			}
			since[n] = time.Now()
			a.notice("understudy: node %s was restarted, pid %s", n.name, strconv.Itoa(n.process.cmd.Process.Pid))
			watch(n, n.process)
		}
	}
}

// lockedWriter lets several goroutines write whole lines to one writer, until it is told to be silent.
type lockedWriter struct {
	mu     sync.Mutex
	w      io.Writer
	silent bool
}

func (l *lockedWriter) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = true
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		return len(b), nil
	}
	return l.w.Write(b)
}
