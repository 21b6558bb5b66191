package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/replica"
)

// Hooks are programs that the node runs.
type Hooks struct {
	Events       []Hook     `yaml:"events,omitempty"`
	BeforeDelete DeleteHook `yaml:"before_delete,omitempty"`
}

// Hook is a program that is run for each event of some kinds, one at a time and in their order. It gets the event as JSON on
// its standard input, and as environment variables UNDERSTUDY_EVENT_KIND, _ID, _TIME, _NODE, _GROUP, _SEVERITY, _MESSAGE and
// _FIELD_<NAME>. Nothing waits for it.
type Hook struct {
	Run     []string      `yaml:"run"`               // program and arguments; the program with its whole path
	Kinds   []string      `yaml:"kinds,omitempty"`   // of events; default: the six of roles; "*": all
	Groups  []string      `yaml:"groups,omitempty"`  // default: all
	Timeout time.Duration `yaml:"timeout,omitempty"` // then it is killed; default 10 s
}

// Bounds of hooks. As each hook runs one program at a time, maxHooks is also how many run at once.
const (
	maxHooks        = 8
	hookTimeout     = 10 * time.Second
	maxHookTimeout  = 10 * time.Minute
	hookOutput      = 4 << 10         // bytes of output that are logged
	hookLastTimeout = 2 * time.Second // for all programs that still run, or are still owed, when the node stops
)

// roleKinds are the events that tell of this server's role.
func roleKinds() []string {
	return []string{string(replica.EventPrimary), string(replica.EventStandby), string(replica.EventSecondary),
		string(replica.EventShadowLost), string(replica.EventShadowGain), string(replica.EventRecovered)}
}

// check says what is wrong with the hooks.
func (h Hooks) check() (p []error) {
	if len(h.Events) > maxHooks {
		p = append(p, fmt.Errorf("hooks.events: %d programs, at most %d", len(h.Events), maxHooks))
	}
	for i, x := range h.Events {
		add := func(key, format string, args ...any) {
			p = append(p, fmt.Errorf("hooks.events[%d].%s: %w", i, key, fmt.Errorf(format, args...)))
		}
		switch {
		case len(x.Run) == 0:
			add("run", "is missing; name a program and its arguments, such as [/usr/local/bin/move-address, eth0]")
		case !strings.HasPrefix(x.Run[0], "/"):
			add("run", "%q: name the program with its whole path", x.Run[0])
		}
		for _, k := range x.Kinds {
			if known := client.EventKinds(); k != "*" && !slices.Contains(known, k) {
				add("kinds", "%q is no kind of events: want \"*\" for all, or some of %s", k, strings.Join(known, ", "))
			}
		}
		if x.Timeout < 0 || x.Timeout > maxHookTimeout {
			add("timeout", "%s: want at most %s", x.Timeout, maxHookTimeout)
		}
	}
	return append(p, h.BeforeDelete.check()...)
}

// wants tells whether the hook is run for e.
func (h Hook) wants(e client.Event) bool {
	kinds := h.Kinds
	if len(kinds) == 0 {
		kinds = roleKinds()
	}
	return (slices.Contains(kinds, e.Kind) || slices.Contains(kinds, "*")) && (len(h.Groups) == 0 || slices.Contains(h.Groups, e.Group))
}

// hookRunner runs the hooks of a node.
type hookRunner struct {
	events *events
	log    hclog.Logger
	stop   chan struct{} // closed by close: nothing new is waited for
	once   sync.Once
	killed context.Context // ends hookLastTimeout later
	kill   context.CancelFunc
	work   sync.WaitGroup
}

// runHooks runs the hooks for every event from now on, until close.
func runHooks(e *events, hooks Hooks, log hclog.Logger) *hookRunner {
	r := &hookRunner{events: e, log: log, stop: make(chan struct{})}
	r.killed, r.kill = context.WithCancel(context.Background())
	since := e.last()
	for _, h := range hooks.Events {
		r.work.Go(func() { r.follow(h, since) })
	}
	return r
}

// follow runs one hook.
func (r *hookRunner) follow(h Hook, since uint64) {
	for {
		fresh, changed := r.events.since(since)
		for i, e := range fresh {
			if i == 0 && e.ID > since+1 {
				r.log.Error("a hook is too slow: events were left out", "program", h.Run[0], "events", e.ID-since-1)
			}
			since = e.ID
			if h.wants(e) && r.killed.Err() == nil {
				r.run(h, e)
			}
		}
		if len(fresh) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-r.stop:
			return
		}
	}
}

// run runs the program once.
func (r *hookRunner) run(h Hook, e client.Event) {
	limit := h.Timeout
	if limit == 0 {
		limit = hookTimeout
	}
	ctx, cancel := context.WithTimeout(r.killed, limit)
	defer cancel()
	input, err := json.Marshal(e)
	if err != nil {
		r.log.Error("event cannot be given to a hook", "event", e.Kind, "error", err)
		return
	}
	began := time.Now()
	out, err := runProgram(ctx, h.Run, input, hookEnvironment(e))
	log := r.log.With("program", h.Run[0], "event", e.Kind, "group", e.Group, "id", e.ID, "took", time.Since(began).Round(time.Millisecond), "output", out)
	switch {
	case err == nil:
		log.Info("hook has run")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		log.Error("hook was killed: it did not end in time", "timeout", limit)
	case ctx.Err() != nil:
		log.Warn("hook was killed: the node stops")
	default:
		log.Error("hook failed", "error", err)
	}
}

// runProgram runs a program with a line of input, and returns the beginning of its output. When ctx ends it is killed with its
// children.
func runProgram(ctx context.Context, argv []string, input []byte, env []string) (string, error) {
	out := &bounded{limit: hookOutput}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(input, '\n')), out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its children too
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.String(), err
}

// hookEnvironment is an event as environment variables.
func hookEnvironment(e client.Event) []string {
	const prefix = "UNDERSTUDY_EVENT_"
	env := []string{
		prefix + "KIND=" + e.Kind, prefix + "ID=" + strconv.FormatUint(e.ID, 10), prefix + "TIME=" + e.Time.Format(time.RFC3339Nano),
		prefix + "NODE=" + e.Node, prefix + "GROUP=" + e.Group, prefix + "SEVERITY=" + e.Severity, prefix + "MESSAGE=" + e.Message,
	}
	for k, v := range e.Fields {
		env = append(env, prefix+"FIELD_"+strings.ToUpper(k)+"="+v)
	}
	for i := range env { // a zero byte would make the program fail to start
		env[i] = strings.ReplaceAll(env[i], "\x00", "")
	}
	return env
}

// close lets the programs that run end, for a moment, and joins everything.
func (r *hookRunner) close() error {
	r.once.Do(func() { close(r.stop) })
	last := time.AfterFunc(hookLastTimeout, r.kill)
	r.work.Wait()
	last.Stop()
	r.kill()
	return nil
}

// bounded keeps the first bytes written to it and drops the rest.
type bounded struct {
	limit int
	buf   bytes.Buffer
	more  bool
}

// Write takes everything.
func (b *bounded) Write(p []byte) (int, error) {
	take := min(len(p), b.limit-b.buf.Len())
	b.buf.Write(p[:take])
	b.more = b.more || take < len(p)
	return len(p), nil
}

func (b *bounded) String() string {
	if b.more {
		return b.buf.String() + " …"
	}
	return b.buf.String()
}
