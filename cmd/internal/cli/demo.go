package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

const (
	demoGroup     = "default"
	demoFile      = "src"
	failoverLimit = 60 * time.Second // from a kill to the next acknowledged write
	resyncLimit   = 5 * time.Minute
	switchLimit   = 60 * time.Second
)

type demoOptions struct {
	nodes   int
	source  string
	writers int
	kills   int
	keep    bool
}

func newDemo(a *app) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:    "demo",
		Short:  "Load, switch over, kill, resynchronize and compare a cluster of real processes",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return a.runDemo(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes, at least 3")
	f.StringVar(&o.source, "source", "", "directory whose files are loaded (default the Go source tree; none with --kills)")
	f.IntVar(&o.writers, "writers", 4, "continuous writers")
	f.IntVar(&o.kills, "kills", 0, "only kill the primary this many times in a row under load")
	f.BoolVar(&o.keep, "keep", false, "keep the directory; it is always kept after a failure")
	return cmd
}

// demo is one run.
type demo struct {
	out     io.Writer
	options demoOptions
	cluster *devCluster
	client  *client.Client
	writer  *demoWriter // nil before it is started
	files   []sourceFile
	began   time.Time
}

func (a *app) runDemo(ctx context.Context, o demoOptions) (err error) {
	if o.nodes < 3 || o.nodes > maxDevNodes {
		return usagef("--nodes %d: want 3 to %d", o.nodes, maxDevNodes)
	}
	if o.writers < 1 || o.writers > 64 {
		return usagef("--writers %d: want 1 to 64", o.writers)
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return fmt.Errorf("create a directory: %w", err)
	}
	d := &demo{out: a.out, options: o, began: time.Now()}
	defer func() {
		if d.writer != nil {
			d.writer.stop()
		}
		if d.cluster != nil {
			err = errors.Join(err, d.cluster.stop(nil))
		}
		if d.client != nil {
			d.client.Close()
		}
		if err != nil && ctx.Err() == nil || o.keep { // what somebody interrupted is no failure to look into
			a.notice("Journals, data and logs are kept in %s", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	ports, err := freePorts(o.nodes)
	if err != nil {
		return err
	}
	if d.cluster, err = newDevCluster(dir, o.nodes, ports, false, io.Discard); err != nil {
		return err
	}
	d.client = client.New(d.cluster.http()...)
	steps := d.show
	if o.kills > 0 {
		steps = d.killRepeatedly
	}
	if err := steps(ctx); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	d.step("done", "no difference, nothing lost")
	return nil
}

// step prints one line: when, what, result.
func (d *demo) step(what, format string, args ...any) {
	fmt.Fprintf(d.out, "%8s  %-12s  %s\n", fmt.Sprintf("%.1f s", time.Since(d.began).Seconds()), what, fmt.Sprintf(format, args...))
}

// detail prints a line that belongs to the step above it.
func (d *demo) detail(format string, args ...any) {
	fmt.Fprintf(d.out, "%8s  %-12s  %s\n", "", "", fmt.Sprintf(format, args...))
}

// show is the demonstration.
func (d *demo) show(ctx context.Context) error {
	g, err := d.start(ctx)
	if err != nil {
		return err
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	d.writer = startWriter(d.client, d.options.writers)
	if err := d.writer.await(ctx, 2000, failoverLimit); err != nil {
		return err
	}
	d.step("write", "%s run without a break; %s", plural(d.options.writers, "writer", "writers"), d.writer.look())

	if g, err = d.group(ctx); err != nil {
		return err
	}
	if len(g.InSync) == 0 {
		return fmt.Errorf("group %s has no in-sync secondary to switch over to", g.Name)
	}
	if err := d.switchOver(ctx, "switch over", g.Primary, g.InSync[0]); err != nil {
		return err
	}
	victim := d.cluster.node(g.InSync[0])
	if err := d.killPrimary(ctx, victim); err != nil {
		return err
	}
	if err := d.writer.await(ctx, 5000, failoverLimit); err != nil {
		return err
	}
	d.step("go on", "while %s is down; %s", victim.name, d.writer.look())
	if err := d.restart(ctx, victim); err != nil {
		return err
	}
	if g, err = d.group(ctx); err != nil {
		return err
	}
	if err := d.switchOver(ctx, "switch back", g.Primary, victim.name); err != nil {
		return err
	}
	return d.compare(ctx)
}

// start starts the cluster.
func (d *demo) start(ctx context.Context) (client.GroupStatus, error) {
	began := time.Now()
	if err := d.cluster.start(); err != nil {
		return client.GroupStatus{}, err
	}
	st, err := d.cluster.waitReady(ctx, d.client)
	if err != nil {
		return client.GroupStatus{}, err
	}
	g, found := st.Group(demoGroup)
	if !found {
		return g, fmt.Errorf("group %s is missing", demoGroup)
	}
	err = d.until(ctx, resyncLimit, "the first secondary in sync", func(now client.GroupStatus) bool {
		g = now
		return len(now.InSync) > 0
	})
	if err == nil {
		d.step("start", "%s in %s after %s: primary %s, in sync %s", plural(len(d.cluster.nodes), "process", "processes"), d.cluster.dir,
			humanDuration(time.Since(began)), g.Primary, strings.Join(g.InSync, ", "))
	}
	return g, err
}

// load loads the source tree.
func (d *demo) load(ctx context.Context) (err error) {
	source := d.options.source
	if source == "" {
		if source, err = goSource(ctx); err != nil {
			return err
		}
	}
	if d.files, err = collectFiles(source); err != nil {
		return err
	}
	r, err := loader{client: d.client, file: demoFile, parallel: 16, progress: d.out}.load(ctx, d.files)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%s could not be loaded: %s", plural(r.Failed, "file", "files"), strings.Join(r.Errors, "; "))
	}
	if err != nil {
		return err
	}
	took := time.Duration(r.Seconds * float64(time.Second))
	d.step("load", "%s, %s from %s in %s: %s, %s/s", plural(r.Loaded, "record", "records"), humanBytes(r.Bytes), source,
		humanDuration(took), humanRate(r.Loaded, took), humanBytes(int64(float64(r.Bytes)/max(r.Seconds, 1e-3))))
	return nil
}

// goSource finds the source tree that comes with Go.
func goSource(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go source tree (name another directory with --source): %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}

// switchOver hands the role from one node to another by the same HTTP request as the curl line it prints. No write may
// fail or stay unknown meanwhile.
func (d *demo) switchOver(ctx context.Context, title, from, to string) error {
	url := "http://" + d.cluster.nodes[0].config.Listen.HTTP + "/v1/groups/" + demoGroup + "/switchover"
	body := fmt.Sprintf(`{"to":%q}`, to)
	d.step(title, "%s: curl -s -X POST %s -d '%s'", fromTo(from, to), url, body)
	d.writer.look()
	ctx, cancel := context.WithTimeout(ctx, switchLimit)
	defer cancel()
	began := time.Now()
	op, err := postAsCurl(ctx, url, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", title, fromTo(from, to), err)
	}
	took := time.Since(began)
	if op.State != client.OperationDone {
		return fmt.Errorf("%s %s: operation %d is %s at step %s: %s", title, fromTo(from, to), op.ID, op.State, op.Step, op.Error)
	}
	if err := d.writer.await(ctx, 200, failoverLimit); err != nil {
		return err
	}
	s := d.writer.look()
	d.detail("done in %s, epoch %d; %s", humanDuration(took), op.Epoch, s)
	if s.failed+s.unknown > 0 {
		return fmt.Errorf("%s %s: a planned switch-over must not fail a write: %d failed, %d unknown; last: %w", title, fromTo(from, to), s.failed, s.unknown, s.lastError)
	}
	return nil
}

// postAsCurl sends what `curl -X POST -d` sends.
func postAsCurl(ctx context.Context, url, body string) (client.Operation, error) {
	var op client.Operation
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return op, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return op, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return op, err
	}
	if resp.StatusCode != http.StatusOK {
		return op, fmt.Errorf("status %s: %s", resp.Status, bytes.TrimSpace(raw))
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return op, fmt.Errorf("answer is no operation: %w", err)
	}
	return op, nil
}

// killPrimary kills n without warning and waits until writes go on elsewhere.
func (d *demo) killPrimary(ctx context.Context, n *devNode) error {
	d.writer.look()
	pid := n.process.cmd.Process.Pid
	n.process.kill()
	killed := time.Now()
	if err := d.writer.await(ctx, d.options.writers+10, failoverLimit); err != nil {
		return fmt.Errorf("after the kill of %s: %w", n.name, err)
	}
	g, err := d.group(ctx)
	if err != nil {
		return err
	}
	s := d.writer.look()
	d.step("kill", "primary %s by kill -9 %d; %s took over at epoch %d, writes went on within %s", n.name, pid, g.Primary, g.Epoch, humanDuration(time.Since(killed)))
	d.detail("%s", s)
	return nil
}

// restart starts a killed node and watches it until it is level again.
func (d *demo) restart(ctx context.Context, n *devNode) error {
	d.writer.look()
	began := time.Now()
	if err := d.cluster.startNode(n); err != nil {
		return err
	}
	role, err := d.level(ctx, n)
	if err != nil {
		return err
	}
	d.step("resync", "%s is level again, as %s, %s after its start, while writes went on", n.name, role, humanDuration(time.Since(began)))
	d.detail("%s", d.writer.look())
	return nil
}

// level waits until n is in the in-sync set, or receives live as a standby and has applied what the primary had deposited
// when n was first seen. It returns the role.
func (d *demo) level(ctx context.Context, n *devNode) (role string, err error) {
	var goal, epoch uint64
	shown := ""
	err = d.until(ctx, resyncLimit, "node "+n.name+" to be level", func(g client.GroupStatus) bool {
		role = g.Roles[n.name]
		if slices.Contains(g.InSync, n.name) || g.Primary == n.name {
			return true
		}
		i := slices.IndexFunc(g.Targets, func(t client.Target) bool { return t.Node == n.name })
		if i < 0 {
			return false
		}
		t := g.Targets[i]
		if r := g.Resync; r != nil && r.Node == n.name && r.Phase != shown && r.Phase != client.ResyncInSync {
			shown = r.Phase
			d.detail("%s: %s; %s entries behind", n.name, resyncText(*r), humanCount(t.LagEntries))
		}
		if epoch != g.Epoch { // another primary counts in another journal
			goal, epoch = g.Sequence, g.Epoch
		}
		return (t.State == "sync" || t.State == "async") && t.Applied >= goal
	})
	return role, err
}

// until polls the group until holds says so. It fails when a node that should run has ended.
func (d *demo) until(ctx context.Context, limit time.Duration, what string, holds func(client.GroupStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	var g client.GroupStatus
	for {
		now, err := d.client.Group(ctx, demoGroup)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				last = err
			}
		case now.Stale:
			last = errors.New("the primary does not answer")
		default:
			if g = now; holds(g) {
				return nil
			}
		}
		for _, n := range d.cluster.nodes {
			if !n.process.running() {
				return n.ended()
			}
		}
		select {
		case <-ctx.Done():
			var text strings.Builder
			writeGroup(&text, g)
			return errors.Join(fmt.Errorf("waited %s for %s; the group is:\n%s", limit, what, text.String()), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *demo) group(ctx context.Context) (client.GroupStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for {
		g, err := d.client.Group(ctx, demoGroup)
		if err == nil && g.Primary != "" && g.Phase == "opened" {
			return g, nil
		}
		select {
		case <-ctx.Done():
			return g, errors.Join(fmt.Errorf("group %s has no open primary", demoGroup), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// compare stops the writer and compares everything.
func (d *demo) compare(ctx context.Context) error {
	d.writer.stop()
	began := time.Now()
	r, err := checkWrites(ctx, d.client, d.writer.results())
	if err != nil {
		return err
	}
	d.step("read back", "%s acknowledged writes are all there, byte for byte (%s)", humanCount(r.acknowledged), humanDuration(time.Since(began)))
	if r.unknown+r.failed > 0 {
		d.detail("%s of unknown outcome: %s done; %s refused: none done", humanCount(r.unknown), humanCount(r.survived), humanCount(r.failed))
	}
	if len(d.files) > 0 {
		began = time.Now()
		if err := checkLoaded(ctx, d.client, demoFile, d.files); err != nil {
			return err
		}
		d.step("read back", "%s loaded records equal their files (%s)", humanCount(len(d.files)), humanDuration(time.Since(began)))
	}
	began = time.Now()
	all, err := compareDigests(ctx, d.cluster, demoGroup)
	if err != nil {
		return err
	}
	one := all[d.cluster.nodes[0].name]
	d.step("digests", "equal on %s at %s: %s records, %s, sum %s (%s)", strings.Join(sortedKeys(all), ", "), one.Position,
		humanCount(one.Records), humanBytes(int64(one.Bytes)), one.Sum, humanDuration(time.Since(began)))
	if want := uint64(len(d.files) + r.acknowledged + r.survived); one.Records != want {
		return fmt.Errorf("the digest counts %s records, %s were written", humanCount(one.Records), humanCount(want))
	}
	return nil
}
