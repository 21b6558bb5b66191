package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
)

const (
	maxDevNodes = 9
	stopGrace   = 20 * time.Second // for an orderly stop of all nodes
	readyWait   = 60 * time.Second // for a new cluster to have a primary
)

// devNode is one node of a cluster of child processes.
type devNode struct {
	name    string
	dir     string
	config  node.Config
	process *process // the present or last one; nil before the first start
}

// devCluster is a cluster of real server processes on this machine, children of this process. It is not safe for use by
// several goroutines.
type devCluster struct {
	dir      string
	nodes    []*devNode
	warnings io.Writer // warnings of the nodes, line by line; safe for several writers
	silent   bool      // nobody says that a process is dead, as when a host is lost
	keepers  sync.WaitGroup
	ending   context.Context // ends with stop
	end      context.CancelFunc
}

// portLayout gives the HTTP, gossip, Raft, ship and Redis port of the i-th node.
type portLayout func(i int) [5]int

func portsFrom(base int) portLayout {
	return func(i int) [5]int {
		p := base + 10*i
		return [5]int{p, p + 1, p + 2, p + 3, p + 4}
	}
}

// freePorts finds ports that nobody uses now, below those that the kernel gives to outgoing connections: one of these must not hold the
// port of a node that is down for a moment.
func freePorts(nodes int) (portLayout, error) {
	var all []int
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // nothing was sent or received
		}
	}()
	for tries := 0; len(all) < 5*nodes; tries++ {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		switch {
		case err == nil:
			listeners = append(listeners, l)
			all = append(all, port)
		case tries > 1000:
			return nil, fmt.Errorf("find a free port: %w", err)
		}
	}
	return func(i int) [5]int { return [5]int(all[5*i : 5*i+5]) }, nil
}

// newDevCluster checks that every port can be had, writes what is missing of the configurations under dir, and reads all
// of them. Configurations that exist are kept, so an operator's changes survive; fixed says that the ports were chosen
// explicitly and must match them. When it fails, nothing was written.
func newDevCluster(dir string, nodes int, ports portLayout, fixed bool, warnings io.Writer) (*devCluster, error) {
	if nodes < 1 || nodes > maxDevNodes {
		return nil, usagef("--nodes %d: want 1 to %d", nodes, maxDevNodes)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, devName(nodes))); err == nil {
		return nil, exitWith(exitPrecondition, "the cluster in %s has more than %d nodes: give the same --nodes as before, or choose another --data", dir, nodes)
	}
	c := &devCluster{dir: dir, warnings: warnings}
	c.ending, c.end = context.WithCancel(context.Background())
	for i := range nodes {
		n := &devNode{name: devName(i), dir: filepath.Join(dir, devName(i))}
		planned := devAddresses(ports(i))
		switch n.config, err = node.ReadConfig(n.file()); {
		case errors.Is(err, os.ErrNotExist):
			n.config.Listen = planned
		case err != nil:
			return nil, &exitError{exitUsage, err}
		case fixed && n.config.Listen != planned:
			return nil, exitWith(exitPrecondition,
				"the cluster in %s was made with other ports (node %s: %s, not %s): leave --base-port out, or choose another --data",
				dir, n.name, n.config.Listen.HTTP, planned.HTTP)
		}
		c.nodes = append(c.nodes, n)
	}
	if err := c.checkPorts(); err != nil {
		return nil, err
	}
	for i, n := range c.nodes {
		if err := writeMissing(n.file(), devConfig(n.dir, i, nodes, ports)); err != nil {
			return nil, err
		}
		if n.config, err = node.ReadConfig(n.file()); err != nil {
			return nil, &exitError{exitUsage, err}
		}
	}
	return c, nil
}

func devName(i int) string { return string(rune('a' + i)) }

func (n *devNode) file() string { return filepath.Join(n.dir, "understudy.yaml") }

func devAddresses(p [5]int) node.Addresses {
	return node.Addresses{HTTP: address(p[0]), Gossip: address(p[1]), Raft: address(p[2]), Ship: address(p[3]), Redis: address(p[4])}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// devConfig is the configuration of the i-th node, which has dir.
func devConfig(dir string, i, nodes int, ports portLayout) string {
	var join []string
	for k := range nodes {
		if k != i {
			join = append(join, address(ports(k)[2]))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Node %s of a development cluster, written once by `understudy dev`. Your changes are kept.\n", devName(i))
	fmt.Fprintf(&b, "node: %s\ncluster: dev\ndata: %q\npriority: %d\nbootstrap: %t\n", devName(i), filepath.Join(dir, "data"), 100+i, i == 0)
	if len(join) > 0 {
		fmt.Fprintf(&b, "join: [%s]\n", strings.Join(join, ", "))
	}
	l := devAddresses(ports(i))
	fmt.Fprintf(&b, "listen: {http: %s, gossip: %s, raft: %s, ship: %s, redis: %s}\n", l.HTTP, l.Gossip, l.Raft, l.Ship, l.Redis)
	if i == 0 {
		b.WriteString("groups: [{name: default, files: [\"*\"], preferred: a, delivery: sync, secondaries: 1}]\n")
	}
	return b.String()
}

func writeMissing(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("create directory of a node: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// checkPorts finds out, before anything starts, whether every port can be had.
func (c *devCluster) checkPorts() error {
	for _, n := range c.nodes {
		l := n.config.Listen
		for _, use := range [][2]string{{"http", l.HTTP}, {"gossip", l.Gossip}, {"raft", l.Raft}, {"ship", l.Ship}, {"redis", l.Redis}} {
			if use[1] == "" {
				continue // it has none
			}
			if err := tryPort(use[0], use[1]); err != nil {
				return exitWith(exitPrecondition,
					"%s, the %s address of node %s, cannot be used: %w\nnothing was started; stop what uses it (another `understudy dev`?), or choose other ports with --base-port and another directory with --data",
					use[1], use[0], n.name, err)
			}
		}
	}
	return nil
}

func tryPort(use, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	if use != "gossip" { // which needs UDP too
		return nil
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return u.Close()
}

// start starts every node that does not run.
func (c *devCluster) start() error {
	for _, n := range c.nodes {
		if err := c.startNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (c *devCluster) startNode(n *devNode) error {
	if n.process != nil && n.process.running() {
		return nil
	}
	p, err := startProcess(n.name, n.dir, c.warnings)
	if err != nil {
		return err
	}
	n.process = p
	if !c.silent {
		config := n.config
		c.keepers.Go(func() { c.keep(config, p) })
	}
	return nil
}

// keep waits for the end of a node's process and, unless it was told to stop, says to the others that it is dead.
func (c *devCluster) keep(config node.Config, p *process) {
	<-p.done
	if p.asked.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(c.ending, releaseWait)
	defer cancel()
	r, err := releaseDead(ctx, config, nil)
	switch {
	case err != nil && (c.ending.Err() != nil || p.err == nil): // one that stopped in good order gave its lease back, if anybody was there
	case err != nil:
		fmt.Fprintf(c.warnings, "understudy: %v\n", err)
	case r.Released:
		fmt.Fprintf(c.warnings, "understudy: %s\n", r)
	}
}

// stop stops all nodes in an orderly way, their roles stay, and returns when none runs. Closing hurry kills what is left.
func (c *devCluster) stop(hurry <-chan struct{}) error {
	defer c.keepers.Wait()
	c.end()
	var all []*process
	for _, n := range c.nodes {
		if n.process != nil {
			all = append(all, n.process)
		}
	}
	return stopProcesses(all, stopGrace, hurry)
}

// node returns the node called name; nil when there is none.
func (c *devCluster) node(name string) *devNode {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// http lists the HTTP addresses of all nodes.
func (c *devCluster) http() []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.config.Listen.HTTP)
	}
	return all
}

// waitReady waits until every group has a primary that serves and the secondaries it wants, and every node is a member. It fails as soon as a node
// process ends.
func (c *devCluster) waitReady(ctx context.Context, cl *client.Client) (client.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	last := errors.New("no node has answered")
	for {
		for _, n := range c.nodes {
			if !n.process.running() {
				return client.Status{}, n.ended()
			}
		}
		st, err := cl.Status(ctx)
		if err == nil {
			if err = serving(st, len(c.nodes)); err == nil {
				return st, nil
			}
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return st, fmt.Errorf("the cluster is not ready after %s: %w; see %s", readyWait, last, filepath.Join(c.dir, "*", "log"))
			}
			return st, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serving tells what st lacks of a cluster of n nodes that serves.
func serving(st client.Status, n int) error {
	if len(st.Nodes) < n {
		return fmt.Errorf("%d of %d nodes have joined", len(st.Nodes), n)
	}
	if len(st.Groups) == 0 {
		return errors.New("no group exists yet")
	}
	for _, g := range st.Groups {
		if g.Primary == "" {
			return fmt.Errorf("group %s has no primary", g.Name)
		}
		if wanted := min(g.Spec.Secondaries, n-1); g.Spec.Delivery != "async" && len(g.InSync) < wanted {
			return fmt.Errorf("group %s has %d of %s in sync", g.Name, len(g.InSync), plural(wanted, "secondary", "secondaries"))
		}
	}
	return nil
}

// ended says how the node's process ended, with the last lines of its log unless somebody killed it.
func (n *devNode) ended() error {
	how := ""
	if n.process.err != nil {
		how = n.process.err.Error()
	}
	switch {
	case how == "signal: killed":
		return fmt.Errorf("node %s was killed", n.name)
	case n.process.err == nil:
		return fmt.Errorf("node %s was stopped; its log is %s", n.name, filepath.Join(n.dir, "log"))
	}
	text := fmt.Sprintf("node %s ended by itself (%s); its log is %s", n.name, how, filepath.Join(n.dir, "log"))
	for _, line := range n.process.tail {
		text += "\n  " + line
	}
	return errors.New(text)
}
