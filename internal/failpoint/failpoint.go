// Package failpoint acts at the named points of a node: it ends the process there, hangs, slows it down or injects an error. Only
// binaries that are built with the tag failpoints contain it; what it does stands in UNDERSTUDY_FAILPOINTS.
package failpoint

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/internal/host"
)

// Variable is the environment variable that says what happens where: points separated by commas, each
// NAME=ACTION[@N]. ACTION is exit (the process is killed), hang (it never comes back from there), error, or delay:DURATION.
// N is the hit that counts, 1 by default; hang and delay go on from there.
const Variable = "UNDERSTUDY_FAILPOINTS"

type action int

const (
	actionExit action = iota + 1
	actionHang
	actionError
	actionDelay
)

// point is one failpoint that does something.
type point struct {
	action action
	delay  time.Duration
	from   int // the hit that counts
	hits   int
}

// Set is what happens at which points. It is safe for concurrent use.
type Set struct {
	out io.Writer // told of every action, so that a test can see that its fault was active
	end func()    // ends the process; does not return

	mu     sync.Mutex
	points map[string]*point
}

// FromEnvironment returns the set that Variable describes; without it nothing ever happens. What cannot be read is an error: a fault
// that a test asked for and did not get would make it pass for nothing.
func FromEnvironment() (*Set, error) { return parse(os.Getenv(Variable), os.Stderr, kill) }

func parse(text string, out io.Writer, end func()) (*Set, error) {
	s := &Set{out: out, end: end, points: map[string]*point{}}
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, what, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s: %q: want NAME=ACTION[@N]", Variable, part)
		}
		p := &point{from: 1}
		if verb, count, counted := strings.Cut(what, "@"); counted {
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%s: %q: %q is not the number of a hit", Variable, part, count)
			}
			what, p.from = verb, n
		}
		verb, argument, _ := strings.Cut(what, ":")
		switch verb {
		case "exit":
			p.action = actionExit
		case "hang":
			p.action = actionHang
		case "error":
			p.action = actionError
		case "delay":
			d, err := time.ParseDuration(argument)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("%s: %q: want delay:DURATION", Variable, part)
			}
			p.action, p.delay = actionDelay, d
		default:
			return nil, fmt.Errorf("%s: %q: want exit, hang, error or delay:DURATION", Variable, part)
		}
		s.points[name] = p
	}
	return s, nil
}

// Host returns h with the set's failpoints.
func (s *Set) Host(h host.Host) host.Host {
	h.Failpoint = s.Hit
	return h
}

// Hit is called at the point called name.
func (s *Set) Hit(name string) error {
	s.mu.Lock()
	p := s.points[name]
	if p == nil {
		s.mu.Unlock()
		return nil
	}
	p.hits++
	hit, due := p.hits, p.hits == p.from
	on := p.hits >= p.from
	if due {
		fmt.Fprintf(s.out, "failpoint %s: active at hit %d\n", name, hit)
	}
	s.mu.Unlock()
	switch {
	case due && p.action == actionExit:
		s.end()
	case due && p.action == actionError:
		return fmt.Errorf("failpoint %s", name)
	case on && p.action == actionHang:
		select {}
	case on && p.action == actionDelay:
		time.Sleep(p.delay)
	}
	return nil
}

// kill ends this process as kill -9 does: nothing is closed, nothing is written.
func kill() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // the signal is on its way
}
