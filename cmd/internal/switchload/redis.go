package switchload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// setKeys is how many keys a connection writes in turn.
const setKeys = 32

// counter is a Redis connection that increments a counter of its own and writes keys of its own in turn. The answer to each increment says
// whether all before it were done once.
type counter struct {
	load *Load
	id   int
	at   int // index of the node
	conn *redisConn

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
func (c *counter) ask(ctx context.Context, args ...string) (redisReply, error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return redisReply{}, err
		}
	}
	r, err := c.conn.do(ctx, args...)
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
		if r.kind != '+' || r.text != "OK" {
			return fmt.Errorf("SET at node %s: %s", c.load.o.Nodes[c.at].Node, r)
		}
		c.sets, c.written[n] = next, next
		return nil
	}
	r, err := c.ask(ctx, "INCR", c.counterKey())
	if err != nil {
		return err
	}
	if r.kind != ':' {
		return fmt.Errorf("INCR at node %s: %s", c.load.o.Nodes[c.at].Node, r)
	}
	c.compare(r.number - 1)
	c.count = r.number
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
	if r.kind == '$' && r.text == c.value(next) {
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
	case r.kind == '_':
		return 0, nil
	case r.kind != '$':
		return 0, fmt.Errorf("GET at node %s: %s", c.load.o.Nodes[c.at].Node, r)
	}
	return strconv.ParseInt(r.text, 10, 64)
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
		if r.kind != '$' || r.text != c.value(at) {
			c.load.wrong(1, 0, "%s is %s, want %q", c.setKey(n), r, c.value(at))
		}
	}
	return nil
}

func (c *counter) close() {
	if c.conn != nil {
		_ = c.conn.conn.Close()
		c.conn = nil
	}
}

// redisConn is a RESP2 connection with one command under way.
type redisConn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func dialRedis(ctx context.Context, address string) (*redisConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &redisConn{conn: conn, in: bufio.NewReaderSize(conn, 4<<10)}, nil
}

// maxBulk bounds a reply.
const maxBulk = 1 << 20

// redisReply is a reply: kind is its first byte, '_' for none.
type redisReply struct {
	kind   byte
	text   string
	number int64
}

func (r redisReply) String() string {
	switch r.kind {
	case '_':
		return "none"
	case ':':
		return strconv.FormatInt(r.number, 10)
	}
	return strconv.Quote(string(r.kind) + r.text)
}

func (c *redisConn) do(ctx context.Context, args ...string) (redisReply, error) {
	end, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(end); err != nil {
		return redisReply{}, err
	}
	b := append(c.out[:0], '*')
	b = append(strconv.AppendInt(b, int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		b = append(b, '$')
		b = append(strconv.AppendInt(b, int64(len(a)), 10), "\r\n"...)
		b = append(append(b, a...), "\r\n"...)
	}
	c.out = b
	if _, err := c.conn.Write(b); err != nil {
		return redisReply{}, closed(err)
	}
	if _, err := c.in.Peek(1); err != nil {
		return redisReply{}, closed(err)
	}
	return c.read()
}

// closed turns the end of a connection into errClosed, and leaves a timeout what it is.
func closed(err error) error {
	var t net.Error
	if errors.As(err, &t) && t.Timeout() {
		return fmt.Errorf("no answer: %w", err)
	}
	return fmt.Errorf("%w (%w)", errClosed, err)
}

func (c *redisConn) read() (r redisReply, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return r, fmt.Errorf("read a reply: %w", err)
	}
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 {
		return r, errors.New("read a reply: an empty line")
	}
	r.kind, r.text = line[0], string(line[1:])
	switch r.kind {
	case '+', '-':
		return r, nil
	case ':':
		r.number, err = strconv.ParseInt(r.text, 10, 64)
		return r, err
	case '$':
		n, err := strconv.Atoi(r.text)
		switch {
		case err != nil || n < -1 || n > maxBulk:
			return r, fmt.Errorf("read a reply: length %q", r.text)
		case n == -1:
			return redisReply{kind: '_'}, nil
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return r, fmt.Errorf("read a reply: %w", err)
		}
		r.text = string(body[:n])
		return r, nil
	}
	return r, fmt.Errorf("read a reply: %q", line)
}
