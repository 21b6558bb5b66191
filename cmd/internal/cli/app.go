package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/client"
)

// defaultAddresses are those of a node on this machine, and of the other two when it is a development cluster.
const (
	defaultFirstAddress = "127.0.0.1:7400"
	defaultAddresses    = defaultFirstAddress + ",127.0.0.1:7410,127.0.0.1:7420"
)

// app is what all commands of one invocation share.
type app struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	addr   string // --addr: HTTP addresses, comma separated
	output string // --output: text | json
	began  bool   // the command line was understood and a command runs
}

// Main runs one command line and returns the exit code. It ends early, in an orderly way, on SIGINT, SIGTERM and SIGHUP.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // under nohup it stays ignored
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := interruptible(signals)
	defer stop()
	a := &app{in: in, out: out, err: errOut}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var told *exitError
	if !a.began && !errors.As(err, &told) {
		err = &exitError{exitUsage, fmt.Errorf("%w\nrun `%s --help` for what it takes", err, commandPath(root, args))}
	}
	if !errors.Is(err, errReported) {
		reportError(errOut, err, a.output == "json" || !a.began && asksForJSON(args))
	}
	return exitCode(err)
}

// asksForJSON tells whether a command line that was not understood asks for JSON all the same: what is wrong with it may stand before that.
func asksForJSON(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		case "--":
			return false
		}
	}
	return false
}

// interruption is the cause of a context that a signal ended.
type interruption struct{ signal os.Signal }

func (i interruption) Error() string { return i.signal.String() + " signal received" }

// Is makes an interruption a cancellation, too.
func (i interruption) Is(target error) bool { return target == context.Canceled }

// interruptible returns a context that ends with the first of the signals; its cause is an interruption.
func interruptible(signals []os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	got := make(chan os.Signal, 1)
	signal.Notify(got, signals...)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case s := <-got:
			cancel(interruption{s})
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		signal.Stop(got)
		cancel(nil)
		watching.Wait()
	}
}

// errReported marks an error whose message the command has printed itself.
var errReported = errors.New("reported")

// commandPath names the command that args were meant for, as far as they were understood.
func commandPath(root *cobra.Command, args []string) string {
	if cmd, _, err := root.Find(args); err == nil {
		return cmd.CommandPath()
	}
	return root.CommandPath()
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "understudy",
		Short: "Clustered hot backup: one node plays, the others know the part",
		Long: `Understudy is a clustered hot backup. One node is primary for a group of files; every change goes to its
journal and to journals on other nodes, where it is replayed. When the primary fails an understudy takes the part.

Exit codes: 0 done, 1 failed, 2 usage, 12 precondition failed and nothing changed, 18 failed and rolled back,
22 done but a follow-up is incomplete, 74 a node gave up, 75 still running or not decided yet.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return fmt.Errorf("--output %q: want text or json", a.output)
			}
			a.began = true
			return nil
		},
	}
	addr := os.Getenv("UNDERSTUDY_ADDR")
	if addr == "" {
		addr = defaultAddresses
	}
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", addr, "HTTP addresses of nodes, comma separated; also UNDERSTUDY_ADDR")
	f.StringVarP(&a.output, "output", "o", "text", "text or json")
	root.CompletionOptions.HiddenDefaultCmd = true
	section := func(id, title string, cmds ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	section("run", "Run nodes:", newDev(a), newServer(a), newRelease(a), newConfig(a), newVersion(a))
	section("watch", "Look:", newStatus(a), newWhy(a), newHistory(a), newEvents(a), newOperation(a), newJournal(a), newBackout(a))
	section("act", "Change roles:", newSwitchover(a), newCancel(a), newFailover(a), newSwitchback(a), newMaintenance(a), newPause(a), newResume(a), newGroup(a))
	section("data", "Records:", newGet(a), newPut(a), newDelete(a), newList(a), newReceipt(a), newLoad(a))
	root.AddCommand(newDemo(a), newMeasure(a), family("bench", "Measure this machine", newBenchJournal(a), newBenchSwitchover(a)))
	explainUsage(root)
	return root
}

// family is a command that only holds others.
func family(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usagef("%q needs a command after it\nrun `%s --help` for what it takes", use, cmd.CommandPath())
		},
	}
	c.AddCommand(cmds...)
	return c
}

// addresses splits --addr.
func (a *app) addresses() ([]string, error) {
	var all []string
	for _, s := range strings.Split(a.addr, ",") {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, usagef("--addr is empty: name the HTTP address of a node, such as %s", defaultFirstAddress)
	}
	return all, nil
}

// withClient calls do with a client for --addr.
func (a *app) withClient(do func(*client.Client) error) error {
	addrs, err := a.addresses()
	if err != nil {
		return err
	}
	cl := operatorClient(addrs...)
	defer cl.Close()
	return do(cl)
}

// operatorClient returns a client that gives up sooner than an application's: somebody sits in front of it.
// One node that hangs must not blind it: the others are asked soon.
func operatorClient(addrs ...string) *client.Client {
	return client.NewWith(client.Options{Addresses: addrs, Retry: 3 * time.Second, Hedge: 1500 * time.Millisecond, Probe: true})
}

// show prints v as JSON when that was asked for, else calls text.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.output != "json" {
		text(a.out)
		return nil
	}
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", raw)
	return err
}

// showLine prints v as one line of JSON when that was asked for, else calls text. For streams.
func (a *app) showLine(v any, text func(w io.Writer)) error {
	if a.output != "json" {
		text(a.out)
		return nil
	}
	return json.NewEncoder(a.out).Encode(v)
}

// isTerminal tells whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
