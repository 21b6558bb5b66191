package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	logLimit  = 16 << 20 // a log beyond it is put aside when the node starts
	tailLines = 12       // shown when a process ends unexpectedly
	lineLimit = 64 << 10 // of one line of output
)

// process is one server process, started as a child of this one.
type process struct {
	name string // of the node
	dir  string // its directory: configuration, log, pid
	cmd  *exec.Cmd

	asked atomic.Bool   // it was told to stop: its end is no death
	done  chan struct{} // closed when the process has ended and its output is written
	err   error         // how it ended; valid after done
	tail  []string      // its last lines of output; valid after done
}

// startProcess starts `server` for the configuration in dir. Its output goes, each line prefixed with the node's name, to
// dir/log, and warnings, errors and crashes to warnings as well. dir/pid exists while the process runs.
//
// The kernel kills the child when the thread that started it ends, so the goroutine that owns the child is locked to its
// thread until the child is gone. The child has a process group of its own: Ctrl-C reaches only the parent, which stops
// its children in an orderly way.
func startProcess(name, dir string, warnings io.Writer) (*process, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	logFile, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	output, input, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, logFile.Close())
	}
	p := &process{name: name, dir: dir, done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:   binary,
		Args:   []string{os.Args[0], "server", "--config", filepath.Join(dir, "understudy.yaml")},
		Env:    serverEnvironment(os.Environ()),
		Stdout: input,
		Stderr: input,
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL,
			Setpgid:   true,
		},
	}
	started := make(chan error, 1)
	go p.own(started, input, output, logFile, warnings)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// own is the child's owner goroutine.
func (p *process) own(started chan<- error, input, output, logFile *os.File, warnings io.Writer) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	_ = input.Close() // the child has its own
	pidFile := filepath.Join(p.dir, "pid")
	if err == nil {
		if err = os.WriteFile(pidFile, []byte(strconv.Itoa(p.cmd.Process.Pid)+"\n"), 0o644); err != nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	}
	if err != nil {
		_ = output.Close()
		_ = logFile.Close()
		started <- fmt.Errorf("start node %s: %w", p.name, err)
		return
	}
	started <- nil
	drained := make(chan []string)
	go func() { drained <- copyOutput(p.name, output, logFile, warnings) }()
	err = p.cmd.Wait()
	p.tail = <-drained
	_ = output.Close()
	if cerr := logFile.Close(); err == nil {
		err = cerr
	}
	_ = os.Remove(pidFile) // a stale id would point at somebody else's process one day
	p.err = err
	close(p.done)
}

// serverEnvironment drops the overrides of the configuration: a UNDERSTUDY_NODE in the operator's shell would make all
// nodes one.
func serverEnvironment(environ []string) []string {
	var kept []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "UNDERSTUDY_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, fmt.Errorf("put the old log aside: %w", err)
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// copyOutput copies a child's output until it ends and returns its last lines.
func copyOutput(name string, from io.Reader, logFile, warnings io.Writer) (tail []string) {
	lines := bufio.NewReaderSize(from, lineLimit)
	crashed := false
	for {
		line, isPrefix, err := lines.ReadLine()
		if err != nil {
			return tail
		}
		text := string(line)
		for isPrefix && err == nil { // the rest of an overlong line is dropped
			_, isPrefix, err = lines.ReadLine()
		}
		prefixed := name + " | " + text + "\n"
		_, _ = io.WriteString(logFile, prefixed) // a full disk must not stop the child
		if tail = append(tail, text); len(tail) > tailLines {
			tail = tail[1:]
		}
		crashed = crashed || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")
		if crashed || isWarning(text) {
			_, _ = io.WriteString(warnings, prefixed)
		}
	}
}

// isWarning tells lines for the terminal by the log format's level. What the libraries for Raft and gossip say of peers
// that are gone belongs to every election; it stays in the log, and what matters of it the node says itself.
func isWarning(line string) bool {
	_, rest, found := strings.Cut(line, " [WARN]  ")
	if !found {
		if _, rest, found = strings.Cut(line, " [ERROR] "); !found {
			return false
		}
	}
	logger, message, _ := strings.Cut(rest, ": ")
	switch name := logger[strings.LastIndexByte(logger, '.')+1:]; {
	case strings.HasPrefix(message, "memberlist: "), name == "transport":
		return false
	case name == "raft":
		return false
	}
	return true
}

// running tells whether the process has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process at once, as a power failure would, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it fails only when the process has ended
	<-p.done
}

// ask asks the process to stop in an orderly way, with its roles, and does not wait.
func (p *process) ask() { p.tell(syscall.SIGINT) }

// tell sends the process a signal that stops it.
func (p *process) tell(s os.Signal) {
	p.asked.Store(true)
	_ = p.cmd.Process.Signal(s) // it fails only when the process has ended
}

// stopProcesses asks all that run to stop, waits, and kills what is left after grace or when hurry is closed. The returned error
// names the ones that had to be killed or ended badly.
func stopProcesses(all []*process, grace time.Duration, hurry <-chan struct{}) error {
	var asked []*process
	for _, p := range all {
		if p.running() {
			p.ask()
			asked = append(asked, p)
		}
	}
	deadline := time.NewTimer(grace)
	defer deadline.Stop()
	var errs []error
	forced := false
	for _, p := range asked {
		wasKilled := false
		if !forced {
			select {
			case <-p.done:
			case <-deadline.C:
				forced = true
			case <-hurry:
				forced = true
			}
		}
		if forced && p.running() {
			wasKilled = true
			p.kill()
		}
		<-p.done
		switch {
		case wasKilled:
			errs = append(errs, fmt.Errorf("node %s did not stop and was killed; see %s", p.name, filepath.Join(p.dir, "log")))
		case p.err != nil:
			errs = append(errs, fmt.Errorf("node %s ended with %w; see %s", p.name, p.err, filepath.Join(p.dir, "log")))
		}
	}
	return errors.Join(errs...)
}
