// Package faultlab runs a cluster of real server processes under real faults: processes that are killed, stopped or end at a named
// point, a network that loses one direction of one protocol between two of them, disks that fill. It is used by its own tests only.
package faultlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/failpoint"
)

// Options say what the lab's cluster looks like.
type Options struct {
	Program   string            // the binary
	Dir       string            // of everything: configurations, logs, data
	Witness   string            // the node of a, b, c that holds no data; "": none
	Group     string            // further fields of the group in YAML, such as `on_no_sync: refuse`
	Lease     time.Duration     // 0: the product's default
	Supervise bool              // the nodes run under `server --supervise`
	Data      map[string]string // data directories elsewhere than in Dir
	Env       map[string][]string
}

// group is the name of the lab's only group.
const group = "default"

// ports of every node; the addresses differ.
func ports() map[Protocol]int {
	return map[Protocol]int{HTTP: 7400, Gossip: 7401, Raft: 7402, Ship: 7403, Redis: 7404}
}

// Lab is a cluster of three server processes on loopback addresses of its own.
type Lab struct {
	Net     *Network
	options Options
	names   []string
	nodes   map[string]*Node
	watch   sync.WaitGroup // one for each process
}

// Node is one node of the lab, running or not.
type Node struct {
	Name   string
	Client *client.Client // asks this node only, past the lab's network, and repeats nothing

	lab    *Lab
	config string
	log    string
	place  *station

	mu      sync.Mutex
	process *process // the present or last one; nil before the first start
}

// New prepares a lab. Close ends it, whatever happened.
func New(o Options) (*Lab, error) {
	l := &Lab{options: o, names: []string{"a", "b", "c"}, nodes: map[string]*Node{}}
	var err error
	if l.Net, err = l.settleDown(); err != nil {
		return nil, err
	}
	for i, name := range l.names {
		s := l.Net.stations[name]
		n := &Node{
			Name: name, lab: l, place: s, config: filepath.Join(o.Dir, name+".yaml"), log: filepath.Join(o.Dir, name+".log"),
			Client: client.NewWith(client.Options{Addresses: []string{s.listen[HTTP]}, Retry: -1, Timeout: requestTimeout}),
		}
		l.nodes[name] = n
		if err := os.WriteFile(n.config, []byte(l.configuration(i)), 0o644); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// requestTimeout is how long a client of the lab waits for an answer beyond ?wait=.
const requestTimeout = 4 * time.Second

// settleDown opens the lab's network in a part of the loopback network that no other lab uses: its processes then need no free
// ports, which others could take between two starts of a node.
func (l *Lab) settleDown() (*Network, error) {
	pid := os.Getpid()
	var last error
	for i := range 200 {
		subnet := fmt.Sprintf("127.%d.%d", 1+(pid/200)%250, (pid+7*i)%200)
		stations := map[string]*station{}
		for i, name := range l.names {
			s := &station{name: name, listen: map[Protocol]string{}, advertise: map[Protocol]string{}}
			for p, port := range ports() {
				s.listen[p] = fmt.Sprintf("%s.%d:%d", subnet, 1+i, port)
				s.advertise[p] = fmt.Sprintf("%s.%d:%d", subnet, 101+i, port)
			}
			stations[name] = s
		}
		network, err := newNetwork(stations, l.pids)
		if err == nil {
			return network, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no free loopback network: %w", last)
}

// configuration is that of the i-th node.
func (l *Lab) configuration(i int) string {
	n := l.nodes[l.names[i]]
	kind := "data"
	if n.Name == l.options.Witness {
		kind = "witness"
	}
	var join []string
	for _, other := range l.Others(n.Name) {
		join = append(join, l.Net.stations[other].advertise[Raft])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\ncluster: lab\ndata: %q\nkind: %s\npriority: %d\nbootstrap: %t\njoin: [%s]\nlog_level: debug\n",
		n.Name, n.Data(), kind, 100+i, i == 0, strings.Join(join, ", "))
	addresses := func(key string, a map[Protocol]string) {
		fmt.Fprintf(&b, "%s: {http: %q, gossip: %q, raft: %q, ship: %q, redis: %q}\n", key, a[HTTP], a[Gossip], a[Raft], a[Ship], a[Redis])
	}
	addresses("listen", n.place.listen)
	addresses("advertise", n.place.advertise)
	if l.options.Lease != 0 {
		fmt.Fprintf(&b, "timing: {lease: %s}\n", l.options.Lease)
	}
	if i == 0 {
		fields := []string{"name: " + group, `files: ["*"]`, "receiver_bytes: 1048576"}
		if l.options.Group != "" {
			fields = append(fields, l.options.Group)
		}
		fmt.Fprintf(&b, "groups: [{%s}]\n", strings.Join(fields, ", "))
	}
	return b.String()
}

// Data is the node's data directory.
func (n *Node) Data() string {
	if dir := n.lab.options.Data[n.Name]; dir != "" {
		return dir
	}
	return filepath.Join(n.lab.options.Dir, n.Name)
}

// pids are the processes of the nodes that run.
func (l *Lab) pids() map[string][]int {
	all := map[string][]int{}
	for name, n := range l.nodes {
		if p := n.current(); p != nil && p.running() {
			all[name] = []int{p.pid()}
			if l.options.Supervise {
				all[name] = p.family()
			}
		}
	}
	return all
}

// Names lists the nodes.
func (l *Lab) Names() []string { return slices.Clone(l.names) }

// Node returns a node by name.
func (l *Lab) Node(name string) *Node { return l.nodes[name] }

// Others lists all nodes but the ones named.
func (l *Lab) Others(but ...string) []string {
	return slices.DeleteFunc(l.Names(), func(n string) bool { return slices.Contains(but, n) })
}

// StartAll starts every node and waits until the cluster is in sync.
func (l *Lab) StartAll(ctx context.Context) error {
	for _, name := range l.names {
		if err := l.nodes[name].Start(l.options.Env[name]...); err != nil {
			return err
		}
	}
	return l.AwaitSync(ctx)
}

// Close kills what runs and ends the network. It may be called more than once.
func (l *Lab) Close() {
	for _, n := range l.nodes {
		n.Kill()
		n.Client.Close()
	}
	l.watch.Wait()
	if l.Net != nil {
		l.Net.close()
	}
}

func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Start runs the node, with variables in its environment. It does nothing when the node runs.
func (n *Node) Start(environment ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.running() {
		return nil
	}
	args := []string{"server", "--config", n.config}
	if n.lab.options.Supervise {
		args = append(args, "--supervise")
	}
	p, err := startProcess(n.log, environment, n.lab.options.Program, args...)
	if err != nil {
		return err
	}
	n.process = p
	if err := n.lab.Net.up(n.place); err != nil {
		return err
	}
	n.lab.watch.Go(func() {
		<-p.done
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.process == p {
			n.lab.Net.down(n.place)
		}
	})
	return nil
}

// Failpoint is the variable that lets a node act at a point; NODE in the point stands for the node's name.
func Failpoint(node, point, action string, hit int) string {
	return fmt.Sprintf("%s=%s=%s@%d", failpoint.Variable, strings.ReplaceAll(point, "NODE", node), action, hit)
}

// Running tells whether the node's process has not ended.
func (n *Node) Running() bool { p := n.current(); return p != nil && p.running() }

// Answers tells whether the node's process runs and is not stopped.
func (n *Node) Answers() bool { p := n.current(); return p != nil && p.running() && !p.paused() }

// Kill ends the node as kill -9 does, with everything it started, and waits for that. It does nothing when the node does not run.
func (n *Node) Kill() {
	p := n.current()
	if p == nil || !p.running() {
		return
	}
	p.kill()
}

// Stop asks the node to stop in good order and waits for its end.
func (n *Node) Stop(ctx context.Context) error {
	p := n.current()
	if p == nil || !p.running() {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("node %s does not stop: %w", n.Name, ctx.Err())
	}
}

// Crash ends the server under `server --supervise` as kill -9 does, and returns at once.
func (n *Node) Crash() error {
	p := n.current()
	if p == nil || !p.running() {
		return os.ErrProcessDone
	}
	list := children(p.pid())
	if len(list) != 1 {
		return fmt.Errorf("node %s: the supervisor has %d children", n.Name, len(list))
	}
	child, err := os.FindProcess(list[0])
	if err != nil {
		return err
	}
	return child.Kill()
}

// Pause stops the node with SIGSTOP.
func (n *Node) Pause() error {
	if p := n.current(); p != nil {
		return p.pause()
	}
	return os.ErrProcessDone
}

// Resume ends Pause.
func (n *Node) Resume() error {
	if p := n.current(); p != nil {
		return p.resume()
	}
	return nil
}

// AwaitEnd waits until the node's process has ended by itself, and says how.
func (n *Node) AwaitEnd(ctx context.Context) (string, error) {
	p := n.current()
	if p == nil {
		return "", errors.New("it was never started")
	}
	select {
	case <-p.done:
		return p.how(), nil
	case <-ctx.Done():
		return "", fmt.Errorf("node %s has not ended: %w", n.Name, ctx.Err())
	}
}

// Log returns what the node has written.
func (n *Node) Log() string {
	raw, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// Tail returns the last lines of the node's log.
func (n *Node) Tail(lines int) string {
	all := strings.Split(strings.TrimSpace(n.Log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
