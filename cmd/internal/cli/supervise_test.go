package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
)

func TestRestartsBackOffAndGiveUp(t *testing.T) {
	var r restarts
	var waits []time.Duration
	for {
		wait, hopeless := r.died(time.Second)
		waits = append(waits, wait/time.Second)
		if hopeless {
			break
		}
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 30}; !slices.Equal(waits, want) {
		t.Errorf("it waits %v seconds and then gives up, want %v", waits, want)
	}
	if wait, hopeless := r.died(2 * steadyAfter); wait != firstRestart || hopeless {
		t.Errorf("after a long life it waits %s, gives up: %t", wait, hopeless)
	}
}

// superviseChild supervises the test binary playing a server, in a directory that belongs to no cluster.
func superviseChild(t *testing.T, mode string) (log *lockedBuffer, ended chan error) {
	t.Helper()
	t.Setenv(childMode, mode)
	log, ended = &lockedBuffer{}, make(chan error, 1)
	c := node.DefaultConfig()
	c.Node, c.Data = "x", t.TempDir()
	go func() {
		ended <- (&app{out: io.Discard, err: log}).supervise(context.Background(), "x.yaml", c, restarts{first: time.Millisecond})
	}()
	return log, ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A child that dies again and again at once is given up, with its own exit code and a message that says how often.
func TestSupervisorGivesUp(t *testing.T) {
	log, ended := superviseChild(t, "crash")
	err := <-ended
	if exitCode(err) != 3 || !strings.Contains(err.Error(), "died 6 times in a row") || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("ended with %v", err)
	}
	for _, want := range []string{"panic: on purpose", "died after", "started again in", "nothing to release for node x"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// A child that dies while it stops is released as well: it may have held its roles still. One that stops in good order is not.
func TestSupervisorReleasesWhoDiesAtTheStop(t *testing.T) {
	for mode, died := range map[string]bool{"brittle": true, "server": false} {
		log, ended := superviseChild(t, mode)
		eventually(t, "the child runs", func() bool { return strings.Contains(log.String(), "a warning") })
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil { // the supervisor has asked for it
			t.Fatal(err)
		}
		err := <-ended
		if (exitCode(err) == 3) != died || (err == nil) == died {
			t.Errorf("%s: ended with %v", mode, err)
		}
		if strings.Contains(log.String(), "nothing to release for node x") != died {
			t.Errorf("%s: is it released? want %t:\n%s", mode, died, log)
		}
	}
}

// live is a cluster of supervised servers, processes of their own.
type live struct {
	t       *testing.T
	cluster *devCluster
	client  *client.Client
	keeper  map[string]*exec.Cmd
	log     map[string]*lockedBuffer
}

// longLease gives a node a lease that no test waits out: what moves a role here is a release or a hand-over, however busy the machine is.
func longLease(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("timing: {lease: 5m}\n")
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func startSupervised(t *testing.T) *live {
	t.Helper()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newDevCluster(t.TempDir(), 3, ports, false, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{t: t, cluster: c, client: client.New(c.http()...), keeper: map[string]*exec.Cmd{}, log: map[string]*lockedBuffer{}}
	t.Cleanup(l.client.Close)
	for _, n := range c.nodes {
		longLease(t, n.file())
		l.start(n)
	}
	t.Cleanup(func() {
		for name, cmd := range l.keeper {
			_ = cmd.Process.Kill() // the child goes with it
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("%s:\n%s", name, l.log[name])
			}
		}
	})
	eventually(t, "the cluster serves", func() bool {
		st, err := l.client.Status(t.Context())
		return err == nil && serving(st, 3) == nil
	})
	return l
}

func (l *live) start(n *devNode) {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	log := &lockedBuffer{}
	cmd := &exec.Cmd{Path: self, Args: []string{"understudy", "server", "--supervise", "--config", n.file()}, Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.keeper[n.name], l.log[n.name] = cmd, log
}

// pid returns the process of the node itself.
func (l *live) pid(n *devNode) int {
	raw, err := os.ReadFile(filepath.Join(n.config.Data, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	return pid
}

// primary waits for a primary other than the given node.
func (l *live) primary(but string) (g client.GroupStatus, n *devNode) {
	l.t.Helper()
	eventually(l.t, "a primary other than "+but, func() bool {
		var err error
		g, err = l.client.Group(l.t.Context(), demoGroup)
		return err == nil && g.Phase == "opened" && g.Primary != "" && g.Primary != but
	})
	return g, l.cluster.node(g.Primary)
}

// inSync waits until the group has a secondary.
func (l *live) inSync() {
	l.t.Helper()
	eventually(l.t, "a secondary in sync", func() bool {
		g, err := l.client.Group(l.t.Context(), demoGroup)
		return err == nil && len(g.InSync) > 0 && g.Operation == nil && len(g.Targets) == 2
	})
}

// release runs `understudy release` for a node.
func (l *live) release(n *devNode) (string, int) {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := (&exec.Cmd{Path: self, Args: []string{"understudy", "release", "--config", n.file()}}).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	case err != nil:
		l.t.Fatal(err)
	}
	return string(out), 0
}

// Proves CL-3 on real processes: a supervisor says that its child is dead and starts it again, a stopped one hands the role
// over, `release` refuses while the process lives and says what happened when it is dead, and no child outlives its
// supervisor.
func TestSupervisedCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	l := startSupervised(t)
	l.inSync()
	_, first := l.primary("")

	if out, code := l.release(first); code != exitPrecondition || !strings.Contains(out, "still runs") {
		t.Errorf("release of a living node: exit code %d, %s", code, out)
	}
	old := l.pid(first)
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, second := l.primary(first.name)
	eventually(t, "the supervisor says that it is dead", func() bool {
		return strings.Contains(l.log[first.name].String(), fmt.Sprintf("supervisor: node %s is released", first.name))
	})
	ops, err := l.client.Operations(t.Context())
	if err != nil || len(ops) != 1 || ops[0].Steps[0].Name != "detect" || !strings.Contains(ops[0].Reason, "has ended") {
		t.Errorf("the failover was not begun by the release: %+v, %v", ops, err)
	}
	eventually(t, "the child is started again", func() bool { pid := l.pid(first); return pid != 0 && pid != old && alive(pid) })
	l.inSync()

	// SIGTERM to the supervisor: the child hands over, both end with 0, and there is nothing left to release.
	keeper := l.keeper[second.name]
	if err := keeper.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Wait(); err != nil {
		t.Errorf("the supervisor of a stopped node ended with %v", err)
	}
	_, third := l.primary(second.name)
	if ops, err = l.client.Operations(t.Context()); err != nil || len(ops) != 2 || ops[0].Kind != "switchover" || ops[0].State != client.OperationDone {
		t.Errorf("it was not handed over: %+v, %v", ops, err)
	}
	if out, code := l.release(second); code != 0 || !strings.Contains(out, "primary of no group") {
		t.Errorf("release after an orderly stop: exit code %d, %s", code, out)
	}
	if out, code := l.release(second); code != 0 {
		t.Errorf("once more: exit code %d, %s", code, out)
	}
	l.start(second)
	l.inSync()

	// A supervisor that is killed takes its child along, and `release` says so for it.
	pid := l.pid(third)
	if err := l.keeper[third.name].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child is gone", func() bool { return !alive(pid) })
	if out, code := l.release(third); code != 0 || !strings.Contains(out, "default fails over now") && !strings.Contains(out, "primary of no group") {
		t.Errorf("release of a killed node: exit code %d, %s", code, out)
	}
	l.primary(third.name)
}

// Nothing is released for a node that never lived, nor when nobody can be asked.
func TestReleaseWithoutAnybody(t *testing.T) {
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newDevCluster(t.TempDir(), 1, ports, false, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	n := c.nodes[0]
	r, err := releaseDead(t.Context(), n.config, nil)
	if err != nil || r.Released || !strings.Contains(r.String(), "no process") {
		t.Errorf("a node that never lived: %+v, %v", r, err)
	}
	for name, content := range map[string]string{"incarnation": "c0ffee\n", "members.json": `{"b":"` + n.config.Listen.HTTP + `"}`} {
		if err := errors.Join(os.MkdirAll(n.config.Data, 0o750), os.WriteFile(filepath.Join(n.config.Data, name), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := releaseDead(ctx, n.config, nil); exitCode(err) != exitPrecondition || !strings.Contains(err.Error(), "runs out by itself") {
		t.Errorf("nobody answers: %v", err)
	}
	if err := os.WriteFile(filepath.Join(n.config.Data, "incarnation"), []byte("c0ffee\n{\"inode\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := releaseDead(t.Context(), n.config, nil); exitCode(err) != exitPrecondition || !strings.Contains(err.Error(), "LOCK file is not the one") {
		t.Errorf("a life that was recorded in another directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(n.config.Data, "incarnation"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := releaseDead(t.Context(), n.config, nil); exitCode(err) != exitPrecondition || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged file: %v", err)
	}
}

// The systemd unit in deploy/ calls commands that exist, with flags that they have.
func TestUnitFileCallsRealCommands(t *testing.T) {
	raw, err := os.ReadFile("../../../deploy/understudy.service")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if !strings.HasPrefix(key, "Exec") {
			continue
		}
		found++
		words := strings.Fields(strings.TrimPrefix(value, "-"))
		cmd, rest, err := newRoot(&app{}).Find(words[1:])
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err != nil || cmd.Name() == "understudy" || len(cmd.Flags().Args()) > 0 {
			t.Errorf("%s: %v", line, err)
		}
	}
	if found != 2 {
		t.Errorf("%d commands, want ExecStart and ExecStopPost", found)
	}
}
