package testcluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// foreignClient is a program of docs/examples that uses a client library which nobody here wrote.
type foreignClient struct {
	name, script string
	interpreters []string
	probe        []string // ends with 0 where the library is there
	missing      string
}

func foreignClients() []foreignClient {
	return []foreignClient{
		{"redis-py", "counter.py", []string{"python3", "/usr/bin/python3"}, []string{"-c", "import redis.sentinel"}, "redis-py is not installed; on Debian: apt-get install python3-redis"},
		{"ioredis", "counter.js", []string{"node"}, []string{"-e", "require('ioredis')"}, "ioredis is not installed: npm install ioredis, and NODE_PATH names its node_modules"},
		{"jedis", "Counter.java", []string{"java"}, []string{example("Counter.java")}, "Jedis is not installed: CLASSPATH names its jar and those that it needs"},
	}
}

func example(name string) string { return filepath.Join("..", "..", "..", "docs", "examples", name) }

// interpreter is the one that has the library; "" when none has.
func (f *foreignClient) interpreter() string {
	for _, program := range f.interpreters {
		if exec.Command(program, f.probe...).Run() == nil {
			return program
		}
	}
	return ""
}

// foreignRun is a run of such a program.
type foreignRun struct {
	t     *testing.T
	cmd   *exec.Cmd
	input interface{ Close() error }
	lines *bufio.Reader
	errs  bytes.Buffer
}

func (f *foreignClient) count(t *testing.T, program string, c *Cluster, key string) *foreignRun {
	t.Helper()
	n := &foreignRun{t: t, cmd: exec.Command(program, example(f.script), strings.Join(c.sentinels(), ","), key)}
	n.cmd.Env, n.cmd.Stderr = os.Environ(), &n.errs
	in, err1 := n.cmd.StdinPipe()
	out, err2 := n.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, n.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	n.input, n.lines = in, bufio.NewReader(out)
	t.Cleanup(sync.OnceFunc(func() { _ = n.cmd.Process.Kill() }))
	if line, err := n.lines.ReadString('\n'); err != nil || line != "counting\n" {
		t.Fatalf("%s: %q, %v\n%s", f.name, line, err, n.errs.String())
	}
	return n
}

// tally is what such a program says in the end.
type tally struct {
	Client                                  string
	Begun, Counted, Value, Unknown, Refused int64
}

func (n *foreignRun) end() (all tally) {
	n.t.Helper()
	_ = n.input.Close()
	line, err := n.lines.ReadBytes('\n')
	if err = errors.Join(err, n.cmd.Wait()); err == nil {
		err = json.Unmarshal(line, &all)
	}
	if err != nil {
		n.t.Fatalf("%v: %s\n%s", err, line, n.errs.String())
	}
	return all
}

// TestForeignClients: a counter that a library nobody here wrote keeps over Sentinel is exact through planned switch-overs, of which it
// hears nothing, and through the death of primaries. Proves BX-5.
func TestForeignClients(t *testing.T) {
	for _, f := range foreignClients() {
		t.Run(f.name, func(t *testing.T) {
			program := f.interpreter()
			if program == "" {
				t.Skip(f.missing)
			}
			c := Start(t, Options{Group: fsm.GroupSpec{Preferred: "a"}})
			progress := func() {
				t.Helper()
				at := c.number("counters:n")
				c.Wait("the client goes on", time.Minute, func() error {
					if c.number("counters:n") < at+10 {
						return errors.New("it does not")
					}
					return nil
				})
			}

			n := f.count(t, program, c, "counters:n")
			progress()
			for _, to := range []ident.NodeID{"b", "c", "a"} {
				c.switchTo(to)
				progress()
			}
			calm := n.end()
			if calm.Unknown != 0 || calm.Refused != 0 || calm.Counted != calm.Value || calm.Counted < 40 {
				t.Errorf("planned switch-overs: %+v", calm)
			}

			n = f.count(t, program, c, "counters:n")
			progress()
			for _, dead := range []ident.NodeID{"a", "b"} {
				c.Wait("all are level", time.Minute, c.settled)
				if c.primary().ID != dead {
					c.switchTo(dead)
					progress()
				}
				c.Node(dead).Crash()
				other := ident.NodeID("c")
				c.until(other, "somebody has taken over", func(g client.GroupStatus) bool { return g.Phase == "opened" && g.Primary != string(dead) })
				progress()
				c.Node(dead).Start()
			}
			hard := n.end()
			if hard.Begun != calm.Value || hard.Counted != hard.Value {
				t.Errorf("primaries died: %+v after %+v", hard, calm)
			}
			if v := c.number("counters:n"); v != hard.Value {
				t.Errorf("the counter is %d, the client says %+v", v, hard)
			}
			t.Logf("%s: %d increments through 3 switch-overs; %d through 2 deaths of primaries, of %d the outcome was looked up", calm.Client, calm.Counted-calm.Begun, hard.Counted-hard.Begun, hard.Unknown)
			c.Wait("all are level", time.Minute, c.settled)
			c.equalDigests()
		})
	}
}

// number reads a counter at some node that answers.
func (c *Cluster) number(key string) int64 {
	for _, id := range c.options.Nodes {
		if c.Node(id).running == nil {
			continue
		}
		if v, err := c.redisOf(id).Get(c.t.Context(), key).Int64(); err == nil {
			return v
		}
	}
	return 0
}
