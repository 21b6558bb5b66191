package faultlab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one run of the program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; valid after done

	mu      sync.Mutex
	stopped bool // by SIGSTOP
}

// startProcess runs a program with its output appended to log. The kernel kills it when the thread that started it ends, so it cannot
// outlive a test that dies; the goroutine that owns it is locked to its thread until it has ended.
func startProcess(log string, environment []string, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(cleanEnvironment(os.Environ()), environment...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

// cleanEnvironment drops what would configure the nodes.
func cleanEnvironment(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, "UNDERSTUDY_") })
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// family lists the process and its children.
func (p *process) family() []int { return append([]int{p.pid()}, children(p.pid())...) }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends s to the process while it has not been waited for, so that no other one can have its id.
func (p *process) signal(s os.Signal) error {
	if !p.running() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(s)
}

// pause stops the process, and returns when none of its threads runs any more: the signal alone is only on its way, and on a busy machine a
// thread may answer a request meanwhile.
func (p *process) pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); !p.still(); time.Sleep(time.Millisecond) {
		switch {
		case !p.running():
			return os.ErrProcessDone
		case time.Now().After(end):
			return fmt.Errorf("process %d does not stop", p.pid())
		}
	}
	return nil
}

// still tells whether all threads of the process are stopped.
func (p *process) still() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
	for _, thread := range threads {
		stat, readErr := os.ReadFile(thread)
		_, rest, _ := bytes.Cut(stat, []byte(") ")) // behind the name of the program
		if readErr != nil || !bytes.HasPrefix(rest, []byte("T")) {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

// resume ends pause.
func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		return nil
	}
	p.stopped = false
	return p.signal(syscall.SIGCONT)
}

func (p *process) paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// kill ends the process at once and waits for its end. Children end with it.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL)
	<-p.done
}

// how says how the process ended.
func (p *process) how() string {
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}
