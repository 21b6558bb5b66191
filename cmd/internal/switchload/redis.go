package switchload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/understudy-ha/understudy/cmd/internal/redisconn"
)

// setKeys is how many keys a connection writes in turn.
const setKeys = 32

// counter is a Redis connection that increments a counter of its own and writes keys of its own in turn. The answer to each increment says
// whether all before it were done once.
type counter struct {
	load *Load
	id   int
	at   int // index of the node
	conn *redisconn.Conn

	count   int64          // the counter, as far as it was acknowledged
	doubt   bool           // a write before was answered with an error: what it did is learned from what is there
	sets    int64          // SETs acknowledged
	written [setKeys]int64 // by key; 0: never
	turn    bool           // the next one is a SET
}

func newCounter(l *Load, id int) *counter { return &counter{load: l, id: id, at: id % len(l.o.Nodes)} }

func (c *counter) counterKey() string   { return fmt.Sprintf("switch:counter-%d", c.id) }
func (c *counter) setKey(n int) string  { return fmt.Sprintf("switch:set-%d-%d", c.id, n) }
func (c *counter) value(n int64) string { return fmt.Sprintf("%d of connection %d", n, c.id) }

// errClosed says that the node closed the connection and no byte of an answer came.
var errClosed = errors.New("the node closed the connection without an answer")

// ask sends one command and returns its answer. A connection that broke is gone afterwards.
func (c *counter) ask(ctx context.Context, args ...string) (redisconn.Reply, error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return redisconn.Reply{}, err
		}
	}
	r, err := do(ctx, c.conn, args...)
	if err != nil {
		c.close()
		return r, fmt.Errorf("%s at node %s: %w", args[0], c.load.o.Nodes[c.at].Node, err)
	}
	return r, nil
}

// dial connects to the client's node; where it may move, to the next one that can be had.
func (c *counter) dial(ctx context.Context) error {
	var last error
	for range c.load.o.Nodes {
		conn, err := dialRedis(ctx, c.load.o.Nodes[c.at].Redis)
		if err == nil {
			c.conn = conn
			return nil
		}
		if last = err; !c.load.o.Moves {
			break
		}
		c.at = (c.at + 1) % len(c.load.o.Nodes)
	}
	return last
}

func (c *counter) step(ctx context.Context) error {
	if c.doubt {
		if err := c.learn(ctx); err != nil {
			return err
		}
	}
	err := c.write(ctx)
	if errors.Is(err, errClosed) && c.load.o.Moves {
		if err = c.move(ctx); err == nil {
			err = c.write(ctx)
		}
	}
	if err != nil {
		c.doubt = true
	} else {
		c.turn = !c.turn
	}
	return err
}

func (c *counter) write(ctx context.Context) error {
	if c.turn {
		next := c.sets + 1
		n := int(next % setKeys)
		r, err := c.ask(ctx, "SET", c.setKey(n), c.value(next))
		if err != nil {
			return err
		}
		if r.Kind != '+' || r.Text != "OK" {
			return fmt.Errorf("SET at node %s: %s", c.load.o.Nodes[c.at].Node, r)
		}
		c.sets, c.written[n] = next, next
		return nil
	}
	r, err := c.ask(ctx, "INCR", c.counterKey())
	if err != nil {
		return err
	}
	if r.Kind != ':' {
		return fmt.Errorf("INCR at node %s: %s", c.load.o.Nodes[c.at].Node, r)
	}
	c.compare(r.Number - 1)
	c.count = r.Number
	return nil
}

// compare judges what the counter was found at.
func (c *counter) compare(found int64) {
	switch {
	case found < c.count:
		c.load.wrong(c.count-found, 0, "%s was %d and is %d: increments are lost", c.counterKey(), c.count, found)
	case found > c.count:
		c.load.wrong(0, found-c.count, "%s was %d and is %d: increments were done again", c.counterKey(), c.count, found)
	}
}

// move goes on elsewhere after the node has closed the connection. What was sent and not answered must not have been done: a node that stops
// answers what it takes.
func (c *counter) move(ctx context.Context) error {
	c.at = (c.at + 1) % len(c.load.o.Nodes)
	before, set := c.count, c.written[(c.sets+1)%setKeys]
	if err := c.learn(ctx); err != nil {
		return err
	}
	if c.count != before || c.written[(c.sets+1)%setKeys] != set {
		return fmt.Errorf("connection %d: a command was done and not answered before the connection was closed", c.id)
	}
	c.load.moved()
	return nil
}

// learn finds out what became of writes without an answer.
func (c *counter) learn(ctx context.Context) error {
	found, err := c.readCounter(ctx)
	if err != nil {
		return err
	}
	if found < c.count {
		c.compare(found)
	}
	c.count = found
	next := c.sets + 1
	n := int(next % setKeys)
	r, err := c.ask(ctx, "GET", c.setKey(n))
	if err != nil {
		return err
	}
	if r.Kind == '$' && r.Text == c.value(next) {
		c.sets, c.written[n] = next, next
	}
	c.doubt = false
	return nil
}

func (c *counter) readCounter(ctx context.Context) (int64, error) {
	r, err := c.ask(ctx, "GET", c.counterKey())
	switch {
	case err != nil:
		return 0, err
	case r.Kind == redisconn.None:
		return 0, nil
	case r.Kind != '$':
		return 0, fmt.Errorf("GET at node %s: %s", c.load.o.Nodes[c.at].Node, r)
	}
	return strconv.ParseInt(r.Text, 10, 64)
}

func (c *counter) check(ctx context.Context) error {
	if c.doubt {
		return c.learn(ctx)
	}
	found, err := c.readCounter(ctx)
	if err != nil {
		return err
	}
	c.compare(found)
	c.count = found
	for n, at := range c.written {
		if at == 0 {
			continue
		}
		r, err := c.ask(ctx, "GET", c.setKey(n))
		if err != nil {
			return err
		}
		if r.Kind != '$' || r.Text != c.value(at) {
			c.load.wrong(1, 0, "%s is %s, want %q", c.setKey(n), r, c.value(at))
		}
	}
	return nil
}

func (c *counter) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func dialRedis(ctx context.Context, address string) (*redisconn.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return redisconn.New(conn), nil
}

// do sends one command and returns its reply. errClosed: the connection ended before any byte of it.
func do(ctx context.Context, c *redisconn.Conn, args ...string) (redisconn.Reply, error) {
	end, _ := ctx.Deadline()
	if err := c.SetDeadline(end); err != nil {
		return redisconn.Reply{}, err
	}
	if err := c.Send(args); err != nil {
		return redisconn.Reply{}, closed(err)
	}
	if err := c.Await(); err != nil {
		return redisconn.Reply{}, closed(err)
	}
	return c.Receive()
}

// closed turns the end of a connection into errClosed, and leaves a timeout what it is.
func closed(err error) error {
	var t net.Error
	if errors.As(err, &t) && t.Timeout() {
		return fmt.Errorf("no answer: %w", err)
	}
	return fmt.Errorf("%w (%w)", errClosed, err)
}
