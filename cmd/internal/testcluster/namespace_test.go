package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a network namespace of its own with one address: as good as a machine for what crosses the network.
type machine struct {
	id, space, addr string
	port            int // of HTTP; the others follow
	config          string
	process         *exec.Cmd
}

// Proves HB-1: master and slaves over plain TCP/IP between separate addresses, with ports that differ from node to node.
func TestSeparateMachines(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("making network namespaces needs ip of iproute2")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "understudy")
	if out, err := exec.Command("go", "build", "-o", program, "../../understudy").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	tag := fmt.Sprintf("us%d", os.Getpid()%100000)
	bridge := tag + "br"
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// The switch stands in a namespace, too, so that nothing is left behind in the machine's own.
	middle := tag + "sw"
	run("netns", "add", middle)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", middle).Run() })
	run("-n", middle, "link", "add", bridge, "type", "bridge")
	run("-n", middle, "link", "set", bridge, "up")
	var all []*machine
	for i, id := range []string{"a", "b", "c"} {
		m := &machine{id: id, space: tag + id, addr: fmt.Sprintf("10.77.0.%d", i+1), port: 7400 + 100*i}
		all = append(all, m)
		run("netns", "add", m.space)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", m.space).Run() })
		run("link", "add", m.space+"x", "type", "veth", "peer", "name", m.space+"y")
		run("link", "set", m.space+"x", "netns", m.space)
		run("link", "set", m.space+"y", "netns", middle)
		run("-n", middle, "link", "set", m.space+"y", "master", bridge, "up")
		run("-n", m.space, "addr", "add", m.addr+"/24", "dev", m.space+"x")
		run("-n", m.space, "link", "set", m.space+"x", "up")
		run("-n", m.space, "link", "set", "lo", "up")
	}
	var join []string
	for _, m := range all {
		join = append(join, fmt.Sprintf("%s:%d", m.addr, m.port+2))
	}
	for i, m := range all {
		m.config = filepath.Join(dir, m.id+".yaml")
		text := fmt.Sprintf("node: %s\ncluster: machines\ndata: %s\nbootstrap: %v\ninsecure: true\njoin: [%s]\nlisten: {http: %q, gossip: %q, raft: %q, ship: %q}\n",
			m.id, filepath.Join(dir, m.id), i == 0, strings.Join(join, ", "), m.at(0), m.at(1), m.at(2), m.at(3))
		if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m.start(t, program)
	}
	a, b := all[0], all[1]
	wait := func(what string, m *machine, args ...string) string {
		t.Helper()
		deadline := time.Now().Add(40 * time.Second)
		for {
			out, err := m.understudy(program, args...)
			if err == nil {
				return out
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v\n%s", what, err, out)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	inSync := func(m *machine) {
		t.Helper()
		deadline := time.Now().Add(40 * time.Second)
		for {
			out, err := m.understudy(program, "status", "default", "-o", "json")
			if err == nil && strings.Contains(out, `"state": "sync"`) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody is in sync: %v\n%s", err, out)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	wait("write on b", b, "put", "orders", "1", "first")
	inSync(b)
	wait("write on b, forwarded to a", b, "put", "orders", "2", "second")
	if err := a.process.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = a.process.Wait() // killed: the error says so
	wait("write after the failover", b, "put", "orders", "3", "third")
	for key, want := range map[string]string{"1": "first", "2": "second", "3": "third"} {
		if out := wait("read", all[2], "get", "orders", key); strings.TrimSpace(out) != want {
			t.Errorf("record %s is %q, want %q", key, out, want)
		}
	}
	a.start(t, program)
	wait("the killed node answers again", a, "get", "orders", "3")
}

func (m *machine) at(port int) string { return fmt.Sprintf("%s:%d", m.addr, m.port+port) }

func (m *machine) start(t *testing.T, program string) {
	t.Helper()
	log, err := os.OpenFile(m.config+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.process = exec.Command("ip", "netns", "exec", m.space, program, "server", "--config", m.config)
	m.process.Stdout, m.process.Stderr = log, log
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
	process := m.process
	t.Cleanup(func() {
		if err := process.Process.Signal(syscall.SIGTERM); err == nil || !errors.Is(err, os.ErrProcessDone) {
			_ = process.Wait()
		}
		if t.Failed() {
			raw, _ := os.ReadFile(m.config + ".log")
			lines := strings.Split(string(raw), "\n")
			t.Logf("node %s:\n%s", m.id, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
}

// understudy runs the program on this machine, against its own node.
func (m *machine) understudy(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	args = append([]string{"netns", "exec", m.space, program, "--addr", m.at(0)}, args...)
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	return string(out), err
}
