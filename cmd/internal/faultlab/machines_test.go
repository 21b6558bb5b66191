package faultlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machines are network namespaces on a bridge in one of their own: links that go down lose packets as a pulled cable does, with no
// connection ended and no address refused.
type machines struct {
	tag     string
	program string
	dir     string
	procs   map[string]*process
}

func (m *machines) space(node string) string { return m.tag + node }

func (m *machines) ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// makeMachines builds the namespaces, which go with the test.
func makeMachines(t *testing.T) *machines {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("making network namespaces needs ip of iproute2")
	}
	program, err := product.once()
	must(t, err)
	m := &machines{tag: fmt.Sprintf("uf%d", os.Getpid()%100000), program: program, dir: t.TempDir(), procs: map[string]*process{}}
	middle, bridge := m.space("sw"), m.tag+"br"
	steps := [][]string{
		{"netns", "add", middle},
		{"-n", middle, "link", "add", bridge, "type", "bridge"},
		{"-n", middle, "link", "set", bridge, "up"},
	}
	t.Cleanup(func() {
		for _, name := range []string{"a", "b", "c", "sw"} {
			_ = m.ip("netns", "del", m.space(name)) // one that was never made is no matter
		}
	})
	for i, name := range []string{"a", "b", "c"} {
		inside, outside := m.space(name)+"x", m.space(name)+"y"
		steps = append(steps,
			[]string{"netns", "add", m.space(name)},
			[]string{"link", "add", inside, "type", "veth", "peer", "name", outside},
			[]string{"link", "set", inside, "netns", m.space(name)},
			[]string{"link", "set", outside, "netns", middle},
			[]string{"-n", middle, "link", "set", outside, "master", bridge, "up"},
			[]string{"-n", m.space(name), "addr", "add", fmt.Sprintf("10.78.0.%d/24", i+1), "dev", inside},
			[]string{"-n", m.space(name), "link", "set", inside, "up"},
			[]string{"-n", m.space(name), "link", "set", "lo", "up"})
	}
	for _, s := range steps {
		if err := m.ip(s...); err != nil {
			t.Skipf("this machine lets nobody make namespaces: %v", err)
		}
	}
	return m
}

// start runs a node in its namespace.
func (m *machines) start(i int) error {
	name := string(rune('a' + i))
	addr := fmt.Sprintf("10.78.0.%d", i+1)
	config := filepath.Join(m.dir, name+".yaml")
	text := fmt.Sprintf("node: %s\ncluster: machines\ndata: %s\nbootstrap: %v\ninsecure: true\njoin: [10.78.0.1:7402, 10.78.0.2:7402, 10.78.0.3:7402]\n"+
		"listen: {http: \"%[4]s:7400\", gossip: \"%[4]s:7401\", raft: \"%[4]s:7402\", ship: \"%[4]s:7403\"}\n", name, filepath.Join(m.dir, name), i == 0, addr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	p, err := startProcess(config+".log", nil, "ip", "netns", "exec", m.space(name), m.program, "server", "--config", config)
	if err == nil {
		m.procs[name] = p
	}
	return err
}

// cable plugs a node's cable in or out, at the switch.
func (m *machines) cable(node, state string) error {
	return m.ip("-n", m.space("sw"), "link", "set", m.space(node)+"y", state)
}

// understudy runs a command on a node's machine, against that node.
func (m *machines) understudy(ctx context.Context, node string, args ...string) (string, error) {
	addr := fmt.Sprintf("10.78.0.%d:7400", node[0]-'a'+1)
	args = append([]string{"netns", "exec", m.space(node), m.program, "--addr", addr}, args...)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), err
}

// Proves the row "full partition of primary" with a network of the kernel's own: the cable of the primary's machine is pulled out. It
// stops by itself, another one takes over, and when the cable is back the old one follows.
func TestPulledCable(t *testing.T) {
	if testing.Short() || !*allFlag {
		t.Skip("run with -faultlab.all")
	}
	m := makeMachines(t)
	t.Cleanup(func() {
		for name, p := range m.procs {
			p.kill()
			if raw, err := os.ReadFile(filepath.Join(m.dir, name+".yaml.log")); err == nil && t.Failed() {
				lines := strings.Split(string(raw), "\n")
				t.Logf("node %s:\n%s", name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
			}
		}
	})
	for i := range 3 {
		must(t, m.start(i))
	}
	ctx := t.Context()
	does := func(what, node string, args ...string) {
		t.Helper()
		must(t, Await(ctx, what, 40*time.Second, func(context.Context) error { _, err := m.understudy(ctx, node, args...); return err }))
	}
	does("a write", "a", "put", "orders", "1", "first")
	must(t, Await(ctx, "somebody is in sync", 30*time.Second, func(context.Context) error {
		out, err := m.understudy(ctx, "a", "status", "default", "-o", "json")
		if err == nil && !strings.Contains(out, `"state": "sync"`) {
			err = errors.New("nobody is")
		}
		return err
	}))
	does("a write with a shadow", "a", "put", "orders", "2", "second")
	began := time.Now()
	must(t, m.cable("a", "down"))
	does("a write after the failover", "b", "put", "orders", "3", "third")
	t.Logf("a write was accepted %s after the cable was pulled out", time.Since(began).Round(10*time.Millisecond))
	if out, err := m.understudy(ctx, "a", "get", "orders", "2"); err == nil {
		t.Errorf("the primary that is cut off answers a read: %q", out)
	}
	must(t, m.cable("a", "up"))
	for key, want := range map[string]string{"1": "first", "2": "second", "3": "third"} {
		must(t, Await(ctx, "the old primary answers again", 40*time.Second, func(context.Context) error {
			out, err := m.understudy(ctx, "a", "get", "orders", key)
			if err == nil && out != want {
				t.Fatalf("record %s is %q, want %q", key, out, want)
			}
			return err
		}))
	}
}
