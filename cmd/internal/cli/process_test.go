package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childMode makes the test binary play a process of its own. It has not the prefix that servers do not inherit.
const childMode = "CLI_TEST_CHILD"

// childMain is a server in the view of the process that started it.
func childMain(mode string) int {
	if mode == "cli" {
		return Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("2026-01-02T15:04:05.000Z [INFO]  understudy: started as", strings.Join(os.Args[1:], " "))
	fmt.Fprintln(os.Stderr, "2026-01-02T15:04:05.000Z [WARN]  understudy: a warning", "<"+os.Getenv("UNDERSTUDY_NODE")+">")
	switch mode {
	case "crash":
		fmt.Fprintln(os.Stderr, "panic: on purpose\n\ngoroutine 1 [running]:")
		return 3
	case "stubborn":
		fmt.Println("ready")
		for range stop {
		}
	case "brittle": // dies when it is told to stop
		fmt.Println("ready")
		<-stop
		return 3
	case "hung": // a server that closes for ever
		ctx, _ := interruptible([]os.Signal{syscall.SIGTERM, syscall.SIGINT})
		endWhenToldAgain(ctx, os.Stdout)
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("closing")
		select {}
	case "parent": // starts a child of its own and says where it is
		if err := os.Setenv(childMode, "server"); err != nil {
			return 1
		}
		p, err := startProcess("child", os.Args[len(os.Args)-1], io.Discard)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("pid", p.cmd.Process.Pid)
	}
	fmt.Println("ready")
	select {
	case <-stop:
		fmt.Println("2026-01-02T15:04:06.000Z [INFO]  understudy: stopped")
		return 0
	case <-time.After(10 * time.Minute): // longer than any test waits for its end
		return 9
	}
}

func startChild(t *testing.T, mode string) (*process, *bytes.Buffer) {
	t.Helper()
	t.Setenv(childMode, mode)
	t.Setenv("UNDERSTUDY_NODE", "from-the-shell")
	warnings := &bytes.Buffer{} // written by the owner of the child, read after its end
	p, err := startProcess("x", t.TempDir(), warnings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p, warnings
}

// eventually waits until holds does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // whole clusters of processes, while other tests run
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func logHas(p *process, text string) func() bool {
	return func() bool {
		raw, err := os.ReadFile(filepath.Join(p.dir, "log"))
		return err == nil && strings.Contains(string(raw), text)
	}
}

// A server that is told a second time to stop ends at once, by that signal, whatever hangs in it; one request that arrives twice is one.
func TestSecondRequestEndsTheServer(t *testing.T) {
	p, _ := startChild(t, "hung")
	eventually(t, "child is ready", logHas(p, "x | ready"))
	began := time.Now() // before it hears of anything
	p.tell(syscall.SIGTERM)
	p.tell(syscall.SIGINT)
	eventually(t, "it closes", logHas(p, "x | closing"))
	eventually(t, "it ends", func() bool {
		p.tell(syscall.SIGINT)
		return !p.running()
	})
	took := time.Since(began)
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT || !logHas(p, "told a second time")() {
		t.Errorf("it ended with %s", p.cmd.ProcessState)
	}
	if took < sameStop {
		t.Errorf("it ended %s after the first request: they may be one", took)
	}
}

func TestProcessOutputAndStop(t *testing.T) {
	p, warnings := startChild(t, "server")
	eventually(t, "child is ready", logHas(p, "x | ready"))
	raw, err := os.ReadFile(filepath.Join(p.dir, "pid"))
	if err != nil || strings.TrimSpace(string(raw)) != strconv.Itoa(p.cmd.Process.Pid) {
		t.Errorf("pid file says %q, %v", raw, err)
	}
	if err := stopProcesses([]*process{p}, time.Minute, nil); err != nil {
		t.Error(err)
	}
	if p.running() {
		t.Error("the child still runs")
	}
	if !logHas(p, "x | 2026-01-02T15:04:06.000Z [INFO]  understudy: stopped")() {
		t.Error("its last words are missing in the log")
	}
	if !logHas(p, "started as server --config "+filepath.Join(p.dir, "understudy.yaml"))() {
		t.Error("it was started otherwise")
	}
	if got := warnings.String(); got != "x | 2026-01-02T15:04:05.000Z [WARN]  understudy: a warning <>\n" {
		t.Errorf("the terminal got %q: want the warning alone, without the shell's override", got)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "pid")); !os.IsNotExist(err) {
		t.Errorf("the pid file outlives its process: %v", err)
	}
	if err := stopProcesses([]*process{p}, time.Second, nil); err != nil {
		t.Errorf("stopping what has stopped: %v", err)
	}
}

func TestProcessCrashIsShown(t *testing.T) {
	p, warnings := startChild(t, "crash")
	<-p.done
	if p.err == nil || !strings.Contains(warnings.String(), "panic: on purpose") || !strings.Contains(warnings.String(), "goroutine 1") {
		t.Errorf("ended with %v, the terminal got %q", p.err, warnings)
	}
	n := &devNode{name: "x", dir: p.dir, process: p}
	if text := n.ended().Error(); !strings.Contains(text, "exit status 3") || !strings.Contains(text, "panic: on purpose") {
		t.Errorf("the report lacks how it ended: %s", text)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	p, _ := startChild(t, "stubborn")
	eventually(t, "child is ready", logHas(p, "x | ready"))
	hurry := make(chan struct{})
	close(hurry)
	if err := stopProcesses([]*process{p}, time.Hour, hurry); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v", err)
	}
	if p.running() {
		t.Error("it still runs")
	}
}

// A parent that is killed leaves no child behind.
func TestChildrenDieWithTheParent(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self, dir)
	parent.Env = append(os.Environ(), childMode+"=parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var said []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(said), "ready") {
		n, err := out.Read(buf)
		said = append(said, buf[:n]...)
		if err != nil {
			t.Fatalf("the parent said %q and ended: %v", said, err)
		}
	}
	_, rest, _ := strings.Cut(string(said), "pid ")
	pid, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // "signal: killed"
	eventually(t, "the child is gone", func() bool { return !alive(pid) })
}

// alive tells whether a process runs: a zombie that nobody waits for does not.
func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestLogIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, make([]byte, logLimit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the new log has %v bytes, %v", info.Size(), err)
	}
	if info, err := os.Stat(path + ".old"); err != nil || info.Size() != logLimit+1 {
		t.Errorf("the old log: %v", err)
	}
}

func TestIsWarning(t *testing.T) {
	for line, want := range map[string]bool{
		`[INFO]  understudy: fine`:                                                          false,
		`[WARN]  understudy.replica: role session ended: error="x"`:                         true,
		`[ERROR] understudy.cluster.raft: failed to write: error="no space left"`:           false,
		`[ERROR] understudy.cluster: control plane cannot go on: error="no space left"`:     true,
		`[ERROR] understudy.cluster.raft: failed to appendEntries to: peer="{Voter 9 x:1}"`: false,
		`[WARN]  understudy.cluster.raft: heartbeat timeout reached: last-leader-id=`:       false,
		`[ERROR] understudy.cluster.gossip: memberlist: Failed fallback TCP ping: timeout`:  false,
		`[WARN]  understudy.cluster.gossip: node is suspect: peer=b`:                        true,
	} {
		line = "2026-01-02T15:04:05.000Z " + line
		if got := isWarning(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
