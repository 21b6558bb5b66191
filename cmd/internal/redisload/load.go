// Package redisload is Redis clients that change and read a few keys through any node of a cluster, and take down what they sent and what
// they heard, so that oracle.RedisLinearizable can judge it. It is used by tests only: of nodes in virtual time, of nodes in one
// process, and of real processes.
package redisload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/cmd/internal/redisconn"
)

// File is the file that the keys belong to.
const File = "redis"

// Options say what load there is.
type Options struct {
	Recorder *oracle.Recorder
	Seed     uint64
	Clients  int
	Spaces   int           // in use at a time; fewer make more conflicts
	Pace     time.Duration // between two operations of a client, on average
	Patience time.Duration // for replies; a few operations have far less
	// Dial connects to a node of its choice, and names it.
	Dial func(ctx context.Context, r *rand.Rand) (net.Conn, string, error)
}

// retireAfter is how many changes of unknown outcome a space may have: each doubles the work of who judges it.
const retireAfter = 2

// Load is a set of clients that run.
type Load struct {
	o      Options
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	spaces  []string
	made    int
	unknown map[string]int // by space
	acked   int
}

// Start starts the clients; Stop ends them.
func Start(o Options) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{o: o, cancel: cancel, unknown: map[string]int{}}
	for range o.Spaces {
		l.spaces = append(l.spaces, l.newSpace())
	}
	for i := range o.Clients {
		c := &caller{load: l, id: i, rand: rand.New(rand.NewPCG(o.Seed, uint64(7000+i)))}
		l.work.Go(func() {
			defer c.leave()
			for c.rest(ctx) {
				c.operate(ctx)
			}
		})
	}
	return l
}

// Stop lets the operations under way end.
func (l *Load) Stop() {
	l.cancel()
	l.work.Wait()
}

// Acknowledged counts the operations that were answered.
func (l *Load) Acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

func (l *Load) newSpace() string {
	l.made++
	return fmt.Sprintf("s%03d", l.made)
}

func (l *Load) space(r *rand.Rand) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spaces[r.IntN(len(l.spaces))]
}

// ended notes what has become of an operation.
func (l *Load) ended(space string, outcome oracle.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch outcome {
	case oracle.OK:
		l.acked++
	case oracle.Unknown:
		if l.unknown[space]++; l.unknown[space] != retireAfter {
			return
		}
		for i, s := range l.spaces {
			if s == space {
				l.spaces[i] = l.newSpace()
			}
		}
	}
}

// caller is one client. It keeps to one connection until that breaks, or for a while.
type caller struct {
	load *Load
	id   int
	rand *rand.Rand
	n    int // values made
	conn *connection
}

func (c *caller) rest(ctx context.Context) bool {
	t := time.NewTimer(time.Duration(c.rand.Int64N(int64(2 * c.load.o.Pace))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *caller) leave() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// connect returns false when no node takes the connection.
func (c *caller) connect(ctx context.Context) bool {
	if c.conn != nil && c.rand.IntN(20) == 0 {
		c.leave()
	}
	if c.conn == nil {
		conn, node, err := c.load.o.Dial(ctx, c.rand)
		if err != nil {
			return false
		}
		c.conn = &connection{Conn: redisconn.New(conn), node: node}
	}
	return true
}

// operate does one operation, or a few in one pipeline.
func (c *caller) operate(ctx context.Context) {
	if !c.connect(ctx) {
		return
	}
	switch c.rand.IntN(10) {
	case 0, 1:
		c.transact()
	case 2:
		c.watch(ctx)
	case 3:
		var all []request
		for range 2 + c.rand.IntN(3) {
			all = append(all, request{space: c.load.space(c.rand), commands: [][]string{c.command()}})
		}
		c.do(all...)
	default:
		c.do(request{space: c.load.space(c.rand), commands: [][]string{c.command()}})
	}
}

// transact sends MULTI, a few commands and EXEC.
func (c *caller) transact() {
	r := request{multi: true, space: c.load.space(c.rand)}
	for range 2 + c.rand.IntN(2) {
		r.commands = append(r.commands, c.command())
	}
	c.do(r)
}

// watch reads a key and changes it, if nobody else does so between.
func (c *caller) watch(ctx context.Context) {
	space, key := c.load.space(c.rand), strconv.Itoa(c.rand.IntN(oracle.RedisSpace))
	if _, ok := c.exchange([][]string{{"watch", wire(space, key)}}, 1); !ok {
		return
	}
	had, ok := c.do(request{space: space, commands: [][]string{{"get", key}}})
	if !ok || len(had) != 1 || had[0].refused() {
		c.leave() // forgets what is watched
		return
	}
	if c.rand.IntN(2) == 0 {
		c.rest(ctx)
	}
	c.do(request{space: space, multi: true, commands: [][]string{{oracle.Watched, key, had[0].text}, {"set", key, c.value()}, c.command()}})
}

// value makes one that nobody else writes.
func (c *caller) value() string {
	c.n++
	return fmt.Sprintf("%d.%d", c.id, c.n)
}

// command makes one over the keys of a space: a string, a number, a hash, and one that is anything.
func (c *caller) command() []string {
	const text, count, hash, any = "0", "1", "2", "3"
	field := string("fg"[c.rand.IntN(2)])
	key := []string{text, text, any}[c.rand.IntN(3)]
	number := []string{count, count, count, any}[c.rand.IntN(4)]
	fields := []string{hash, hash, hash, any}[c.rand.IntN(4)]
	all := [][]string{
		{"get", text}, {"get", count}, {"get", any}, {"mget", text, count, hash, any}, {"hget", fields, field}, {"exists", text, hash},
		{"set", key, ""}, {"set", key, ""}, {"setnx", key, ""}, {"getdel", key}, {"mset", text, "", any, ""},
		{"incrby", number, "1"}, {"incrby", number, strconv.Itoa(1 + c.rand.IntN(9))}, {"set", count, strconv.Itoa(c.rand.IntN(100))},
		{"hset", fields, field, ""}, {"hincrby", fields, "n", "1"}, {"hincrby", fields, "n", "1"}, {"hdel", fields, field},
		{"del", []string{text, hash, any}[c.rand.IntN(3)]}, {"del", text, any},
	}
	args := all[c.rand.IntN(len(all))]
	for i, a := range args {
		if a == "" {
			args[i] = c.value()
		}
	}
	return args
}

// request is one operation: a command, or a transaction.
type request struct {
	space    string
	commands [][]string
	multi    bool
}

func (r request) String() string {
	parts := make([]string, len(r.commands))
	for i, c := range r.commands {
		parts[i] = strings.Join(c, " ")
	}
	return strings.Join(parts, oracle.Separator)
}

// wire is the name of a key of a space.
func wire(space, key string) string { return File + ":" + space + "/" + key }

// wire is what is sent. EXEC is answered last.
func (r request) wire() (all [][]string) {
	if r.multi {
		all = append(all, []string{"multi"})
	}
	for _, c := range r.commands {
		sent := append([]string(nil), c...)
		switch c[0] {
		case oracle.Watched:
			continue
		case "del", "exists", "mget":
			for i := 1; i < len(c); i++ {
				sent[i] = wire(r.space, c[i])
			}
		case "mset":
			for i := 1; i < len(c); i += 2 {
				sent[i] = wire(r.space, c[i])
			}
		default:
			sent[1] = wire(r.space, c[1])
		}
		all = append(all, sent)
	}
	if r.multi {
		all = append(all, []string{"exec"})
	}
	return all
}

// do sends requests in one pipeline and takes down what came of each. It returns the replies to the last one.
func (c *caller) do(all ...request) (last []reply, ok bool) {
	var commands [][]string
	began := make([]*oracle.Operation, len(all))
	for i, r := range all {
		began[i] = c.load.o.Recorder.Begin(oracle.Operation{Client: c.id, Kind: oracle.Redis, Copy: c.conn.node, Key: r.space, Value: r.String()})
		commands = append(commands, r.wire()...)
	}
	err := c.conn.send(commands, c.patience())
	for i, r := range all {
		last = nil
		for range r.wire() {
			if err != nil {
				break
			}
			var got reply
			if got, err = c.conn.receive(); err == nil {
				last = append(last, got)
			}
		}
		outcome, text := oracle.Unknown, ""
		if err == nil {
			outcome, text = r.judge(last)
		} else {
			text = err.Error()
		}
		c.load.o.Recorder.End(began[i], outcome, func(o *oracle.Operation) {
			if o.Reply = text; outcome != oracle.OK {
				o.Reply, o.Error = "", text
			}
		})
		c.load.ended(r.space, outcome)
	}
	if err != nil {
		c.leave()
	}
	return last, err == nil
}

// judge tells what the replies to a request mean: its outcome, and the replies as a history has them, or why there are none.
func (r request) judge(replies []reply) (oracle.Outcome, string) {
	final := replies[len(replies)-1]
	switch {
	case strings.HasPrefix(final.text, "-UNKNOWNOUTCOME"):
		return oracle.Unknown, final.text
	case final.refused():
		return oracle.Failed, final.text
	case !r.multi:
		return oracle.OK, final.String()
	case !final.array:
		return oracle.Failed, "a watched key was changed"
	}
	list := final.elements
	if r.commands[0][0] == oracle.Watched {
		list = append([]string{r.commands[0][2]}, list...)
	}
	return oracle.OK, strings.Join(list, oracle.Separator)
}

// exchange sends commands that are no operation and returns their replies.
func (c *caller) exchange(commands [][]string, count int) (replies []reply, ok bool) {
	err := c.conn.send(commands, c.patience())
	for range count {
		var r reply
		if err == nil {
			r, err = c.conn.receive()
		}
		replies = append(replies, r)
		ok = err == nil && !r.refused()
	}
	if err != nil {
		c.leave()
	}
	return replies, ok
}

// patience is how long a client waits for replies. A few give up early: what they sent may be done all the same, much later.
func (c *caller) patience() time.Duration {
	if c.rand.IntN(40) == 0 {
		return c.load.o.Patience / 10
	}
	return c.load.o.Patience
}
