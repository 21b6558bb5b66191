package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/node"
)

// supervise runs the node as a child until it is told to stop, or the child stops in good order. A child that dies, also one
// that was told to stop, is released through another member, and started again unless it was to stop; one that dies again and again at once is given up. The
// configuration at path was read as c; the child reads it anew.
func (a *app) supervise(ctx context.Context, path string, c node.Config, again restarts) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	for {
		began := time.Now()
		p, err := startWard(path, c.Moved, a.out, a.err)
		if err != nil {
			return err
		}
		a.supervisor("node %s runs as pid %d", c.Node, p.cmd.Process.Pid)
		stopped := a.attend(ctx, p, signals)
		code, how := p.ending()
		if stopped && code != exitDone { // it still held what it had not handed over
			a.supervisor("node %s died while it stopped (%s)", c.Node, how)
			a.obituary(ctx, c)
		}
		if stopped || code == exitDone || code == exitUsage {
			return a.orderly(c, code, how)
		}
		a.supervisor("node %s died after %s (%s)", c.Node, humanDuration(time.Since(began)), how)
		a.obituary(ctx, c)
		wait, hopeless := again.died(time.Since(began))
		if hopeless {
			return exitWith(max(code, exitFailure), "node %s died %d times in a row, each time within %s of its start, the last time with %s: given up. Its messages above say why; correct the cause, then start it again",
				c.Node, again.deaths, humanDuration(steadyAfter), how)
		}
		a.supervisor("node %s is started again in %s", c.Node, humanDuration(wait))
		select {
		case <-time.After(wait):
		case <-signals:
			return nil // it does not run: that is what was asked for
		}
	}
}

// supervisor writes one line, in the place where the child's log goes.
func (a *app) supervisor(format string, args ...any) {
	fmt.Fprintf(a.err, "%s [INFO]  supervisor: %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z0700"), fmt.Sprintf(format, args...))
}

// attend passes signals on until the child has ended. It tells whether the child was asked to stop. A second signal kills.
func (a *app) attend(ctx context.Context, p *ward, signals <-chan os.Signal) (stopped bool) {
	for {
		select {
		case <-p.done:
			return stopped
		case s := <-signals:
			if stopped && time.Since(p.asked) > sameStop {
				a.supervisor("killing the node: told a second time to stop")
				s = syscall.SIGKILL
			} else if !stopped {
				p.asked = time.Now()
			}
			stopped = true
			_ = p.cmd.Process.Signal(s) // it fails only when the process has ended
		}
	}
}

// orderly is the end of a supervisor whose child stopped, or never can run.
func (a *app) orderly(c node.Config, code int, how string) error {
	a.supervisor("node %s has stopped (%s)", c.Node, how)
	if code == exitDone {
		return nil
	}
	return &exitError{max(code, exitFailure), fmt.Errorf("%w: node %s ended with %s", errReported, c.Node, how)}
}

// obituary releases the dead child's lease and logs what came of it.
func (a *app) obituary(ctx context.Context, c node.Config) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	r, err := releaseDead(within, c, nil)
	if err != nil {
		a.supervisor("%v", err)
		return
	}
	a.supervisor("%s", r)
}

// ward is the child of a supervisor. The kernel kills it when the supervisor ends, however that happens.
type ward struct {
	cmd   *exec.Cmd
	asked time.Time     // when it was first told to stop; only attend touches it
	done  chan struct{} // closed when the process was waited for
	err   error         // of the wait; valid after done
}

// startWard starts `server` without a supervisor for the configuration at path, with the environment and the output of this
// process. The goroutine that owns the child stays on its thread: the kernel counts the death of that thread as the
// parent's. The child has a process group of its own, so that Ctrl-C reaches only the supervisor.
func startWard(path string, moved bool, out, errOut io.Writer) (*ward, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	args := []string{os.Args[0], "server", "--config", path}
	if moved {
		args = append(args, "--moved")
	}
	p := &ward{done: make(chan struct{}), cmd: &exec.Cmd{
		Path: binary, Args: args, Stdout: out, Stderr: errOut,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	return p, nil
}

// ending returns the exit code, -1 after a signal, and says in words how the child ended. Call it after done.
func (p *ward) ending() (code int, how string) {
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return exitDone, "exit code 0"
	case errors.As(p.err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), "exit code " + strconv.Itoa(exit.ExitCode())
	case errors.As(p.err, &exit):
		return -1, strings.TrimPrefix(exit.String(), "signal: ")
	}
	return exitFailure, p.err.Error()
}
