package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// receiveOptions are the flags of `journal receive`.
type receiveOptions struct {
	group, node string // node "": the history
	filter      client.EntryFilter
	after       string
	follow      bool
	exec        string
	batch       int
	batchBytes  int64
	batchWait   time.Duration
	name        string
	holdFor     time.Duration
	state       string
	retries     int
}

func newJournalReceive(a *app) *cobra.Command {
	var o receiveOptions
	var prefix, size string
	cmd := &cobra.Command{
		Use:   "receive GROUP[/NODE]",
		Short: "Hand entries to a program, batch by batch, or print them as JSON lines",
		Long: `Receives the facts of a group's history, over switch-overs and failovers, from whichever node answers; with GROUP/NODE the entries of
that one journal. They are printed as JSON lines, or go to a program batch by batch: --exec runs it by the shell for each batch,
with the lines on standard input and in its environment UNDERSTUDY_GROUP, UNDERSTUDY_JOURNAL, UNDERSTUDY_FIRST, UNDERSTUDY_LAST,
UNDERSTUDY_COUNT, UNDERSTUDY_ATTEMPT and UNDERSTUDY_POSITION, which is where to go on after the batch.

The position is kept once the program has ended with 0; any other end repeats the same batch. So each entry is handed over at
least once; it counts exactly once if the program stores UNDERSTUDY_POSITION together with what it made of the batch, and passes over
a batch whose position it has. --state keeps the position in a file; --name keeps it in the cluster, as a hold that also keeps
receivers from being deleted before they were read.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if strings.Contains(args[0], "/") {
				o.group, o.node, err = splitJournal(args[0])
			} else if o.group = args[0]; o.group == "" {
				err = usagef("name a group")
			}
			if err != nil {
				return err
			}
			if o.batchBytes, err = parseBytes(size); err != nil {
				return usagef("--batch-bytes %q: %v", size, err)
			}
			o.filter.KeyPrefix = []byte(prefix)
			switch {
			case o.batch < 1 || o.batchWait < 0:
				return usagef("--batch is at least 1, --batch-wait not negative")
			case o.after != "" && o.filter.From != 0:
				return usagef("give one of --from and --after")
			case o.node == "" && (o.filter.From != 0 || o.filter.IncludeAll):
				return usagef("--from and --all are for one journal: name it, such as %s/a, or begin with --after %s@3.42", o.group, o.group)
			}
			return a.receive(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.after, "after", "", "begin after this position (or sequence number of a journal) when none is kept yet; now: only what is new")
	f.Uint64Var(&o.filter.From, "from", 0, "begin with this sequence number of the journal when none is kept yet")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new ones until SIGINT or SIGTERM")
	f.StringVar(&o.exec, "exec", "", "program, with arguments, to run for each batch")
	f.IntVar(&o.batch, "batch", 100, "entries of a batch, at most")
	f.StringVar(&size, "batch-bytes", "1MiB", "size of a batch: the entry that reaches it is its last")
	f.DurationVar(&o.batchWait, "batch-wait", time.Second, "how long a batch may wait for more entries")
	f.StringVar(&o.name, "name", "", "name of this consumer: the cluster keeps its position and what it has not read")
	f.DurationVar(&o.holdFor, "hold-for", 24*time.Hour, "with --name: how long the cluster keeps receivers when nothing is heard of it")
	f.StringVar(&o.state, "state", "", "file that keeps the position")
	f.IntVar(&o.retries, "retries", 10, "how often a batch is repeated before it ends with code 22; -1: for ever")
	f.StringVar(&o.filter.Code, "code", "", "R, C, J, U; several separated by commas")
	f.StringVar(&o.filter.Type, "type", "", "two characters, such as PT; several separated by commas")
	f.StringVar(&o.filter.File, "file", "", "of these files: names or patterns such as 'orders*', separated by commas")
	f.StringVar(&prefix, "key-prefix", "", "of records whose keys begin so")
	f.StringVar(&o.filter.Images, "images", "", "both, after or none")
	f.BoolVar(&o.filter.IncludeAll, "all", false, "of a journal: unconfirmed entries too; those that are removed again are told as {\"rewound\":…}")
	return cmd
}

// parseBytes reads a size such as 4096, 64KiB or 1MiB.
func parseBytes(s string) (int64, error) {
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimSpace(rest), u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > 1<<40/unit {
		return 0, errors.New("want a number of bytes, or such as 64KiB or 1MiB")
	}
	return n * unit, nil
}

// receive finds where to begin, and hands over what comes until it ends.
func (a *app) receive(ctx context.Context, o receiveOptions) error {
	addrs, err := a.addresses()
	if err != nil {
		return err
	}
	cl := client.NewWith(client.Options{Addresses: a.allNodes(ctx, addrs, o.node), Retry: 3 * time.Second})
	defer cl.Close()
	p := &place{a: a, o: o, cl: cl}
	if err := p.load(ctx); err != nil {
		return err
	}
	if p.after == "" && o.after != "now" {
		p.after = o.after
	}
	c := consumer{a: a, o: o, place: p}
	return c.run(ctx, cl)
}

// allNodes returns the addresses given and those of all other nodes of the cluster, so that a switch-over is followed. The local
// journal is only one node's.
func (a *app) allNodes(ctx context.Context, addrs []string, node string) []string {
	if node == client.Local {
		return addrs[:1]
	}
	cl := operatorClient(addrs...)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	nodes, err := cl.Nodes(ctx)
	if err != nil {
		return addrs // those given may answer later
	}
	all := slices.Clone(addrs)
	for _, n := range nodes {
		if n.HTTP != "" && n.Kind != "witness" && !slices.ContainsFunc(all, func(x string) bool { return strings.TrimPrefix(x, "http://") == n.HTTP }) {
			all = append(all, n.HTTP)
		}
	}
	return all
}

// holdPause is how often a hold is renewed at most.
const holdPause = 3 * time.Second

// place is where a consumer stands: in a file, in the cluster as a hold, or nowhere but in memory.
type place struct {
	a     *app
	o     receiveOptions
	cl    *client.Client
	after string // handed over up to here; "": nothing yet

	position string    // the history position there, for the hold; "": not known
	renewed  time.Time // the hold
	noHolds  bool      // the cluster keeps none: said once
}

// load reads where the consumer stands.
func (p *place) load(ctx context.Context) error {
	if p.o.state != "" {
		raw, err := os.ReadFile(p.o.state)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return usagef("--state: %v", err)
		default:
			source, after, ok := strings.Cut(strings.TrimSpace(string(raw)), " ")
			if !ok || source != p.source() {
				return usagef("--state %s holds %q, which is no place in %s: name another file, or remove it", p.o.state, shortText(raw), p.source())
			}
			p.after = after
		}
	}
	if p.o.name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	holds, err := p.cl.Holds(ctx, p.o.group)
	switch {
	case lacksHolds(err):
		p.warnHolds()
	case err != nil:
		return err
	}
	for _, h := range holds {
		if h.Name == p.o.name && p.after == "" {
			p.after, p.position = h.Position, h.Position
		}
	}
	return nil
}

func shortText(b []byte) string { return string(b[:min(len(b), 60)]) }

// source names what is read.
func (p *place) source() string {
	if p.o.node == "" {
		return p.o.group
	}
	return p.o.group + "/" + p.o.node
}

func lacksHolds(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && (e.Code == client.CodeUnknownPath || e.Code == client.CodeMethodNotAllowed || e.Code == client.CodeUnsupported)
}

func (p *place) warnHolds() {
	p.noHolds = true
	text := "the cluster keeps no holds: receivers may be deleted before " + p.o.name + " has read them"
	if p.o.state == "" {
		text += ", and its position is kept nowhere; use --state"
	}
	p.a.notice("understudy: warning: %s", text)
}

// move notes that everything up to after was handed over. Position is the history position there, if it is known.
func (p *place) move(ctx context.Context, after, position string) error {
	p.after = after
	if position != "" {
		p.position = position
	}
	if p.o.state != "" {
		if err := replaceFile(p.o.state, p.source()+" "+after+"\n"); err != nil {
			return fmt.Errorf("keep the position %s: %w", after, err)
		}
	}
	if time.Since(p.renewed) >= holdPause {
		p.hold(ctx)
	}
	return nil
}

// hold renews the hold. What goes wrong there must not keep entries from being received.
func (p *place) hold(ctx context.Context) {
	if p.o.name == "" || p.noHolds || p.position == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	p.renewed = time.Now()
	_, err := p.cl.SetHold(ctx, p.o.group, p.o.name, client.HoldRequest{Position: p.position, For: client.Duration(p.o.holdFor)})
	switch {
	case lacksHolds(err):
		p.warnHolds()
	case err != nil:
		p.a.notice("understudy: warning: the hold %s is not renewed: %v", p.o.name, err)
	}
}

// replaceFile puts text into a file so that a crash leaves either the old content or the new one.
func replaceFile(path, text string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
