// Package redisconn is a connection to a Redis listener for programs that have to know what was sent over it: it repeats nothing, never
// connects again and checks nothing by itself, as client libraries do, which leave an outcome unknown.
package redisconn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// Bounds of what a reply announces; who measures or tests asks for far less.
const (
	maxLine     = 4 << 10
	maxBulk     = 1 << 20
	maxElements = 1000
	maxDepth    = 4
)

// Conn speaks RESP2. Deadlines are those of the connection below. It has one user at a time; one may send while another one receives.
type Conn struct {
	net.Conn
	in  *bufio.Reader
	out []byte
}

// New speaks over c and owns it.
func New(c net.Conn) *Conn { return &Conn{Conn: c, in: bufio.NewReaderSize(c, maxLine)} }

// Send writes commands at once.
func (c *Conn) Send(commands ...[]string) error {
	b := c.out[:0]
	for _, args := range commands {
		b = announced(b, '*', len(args))
		for _, a := range args {
			b = append(append(announced(b, '$', len(a)), a...), "\r\n"...)
		}
	}
	c.out = b
	_, err := c.Write(b)
	return err
}

func announced(b []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(b, kind), int64(n), 10), "\r\n"...)
}

// Await waits for the first byte of the next reply.
func (c *Conn) Await() error {
	_, err := c.in.Peek(1)
	return err
}

// None is the kind of a null reply.
const None = '_'

// Reply is one reply.
type Reply struct {
	Kind     byte   // its first byte, or None
	Text     string // of all kinds but '*'
	Number   int64  // of ':'
	Elements []Reply
}

func (r Reply) String() string {
	switch r.Kind {
	case None:
		return "none"
	case ':':
		return r.Text
	case '*':
		return fmt.Sprint(r.Elements)
	}
	return strconv.Quote(string(r.Kind) + r.Text)
}

// Receive reads the next reply.
func (c *Conn) Receive() (Reply, error) { return c.receive(maxDepth) }

func (c *Conn) receive(depth int) (r Reply, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return r, fmt.Errorf("read a reply: %w", err)
	}
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 {
		return r, errors.New("read a reply: an empty line")
	}
	r.Kind, r.Text = line[0], string(line[1:])
	switch r.Kind {
	case '+', '-':
		return r, nil
	case ':':
		if r.Number, err = strconv.ParseInt(r.Text, 10, 64); err != nil {
			return r, fmt.Errorf("read a reply: %w", err)
		}
		return r, nil
	}
	n, err := strconv.Atoi(r.Text)
	switch {
	case err != nil, n < -1, r.Kind != '$' && r.Kind != '*', r.Kind == '$' && n > maxBulk, r.Kind == '*' && (n > maxElements || depth == 0):
		return r, fmt.Errorf("read a reply: %q is of a form that is not expected", string(r.Kind)+r.Text)
	case n < 0:
		return Reply{Kind: None}, nil
	case r.Kind == '$':
		body := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return r, fmt.Errorf("read a reply: %w", err)
		}
		r.Text = string(body[:n])
		return r, nil
	}
	r.Text, r.Elements = "", make([]Reply, n)
	for i := range r.Elements {
		if r.Elements[i], err = c.receive(depth - 1); err != nil {
			return r, err
		}
	}
	return r, nil
}
