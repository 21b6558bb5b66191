package redisload

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// connection is one to a node, of which it is known what was sent over it. Client libraries repeat, reconnect and check connections by
// themselves, and then an outcome is not known any more.
type connection struct {
	net.Conn
	in   *bufio.Reader
	node string
}

// send writes commands at once. The replies are due within patience.
func (c *connection) send(commands [][]string, patience time.Duration) error {
	var b []byte
	for _, args := range commands {
		b = fmt.Appendf(b, "*%d\r\n", len(args))
		for _, a := range args {
			b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// reply is one answer. Of an array it has the elements; else it has the text as histories have it.
type reply struct {
	text     string
	array    bool
	elements []string
}

// String is the reply as an element of a history.
func (r reply) String() string {
	if r.array {
		return "[" + strings.Join(r.elements, " ") + "]"
	}
	return r.text
}

// refused tells whether the reply is an error; those of Redis that depend on what a key holds are none.
func (r reply) refused() bool {
	return strings.HasPrefix(r.text, "-") && r.text != oracle.RedisWrongType && r.text != oracle.RedisNotNumber
}

// maxElements bounds what a reply announces; the load asks for far less.
const maxElements = 1000

func (c *connection) receive() (r reply, err error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return r, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return r, errors.New("an empty reply")
	}
	sign, rest := line[0], line[1:]
	switch sign {
	case '+':
		return reply{text: rest}, nil
	case ':':
		return reply{text: line}, nil
	case '-':
		switch {
		case strings.HasPrefix(rest, "WRONGTYPE"):
			line = oracle.RedisWrongType
		case strings.Contains(rest, "is not an integer"):
			line = oracle.RedisNotNumber
		}
		return reply{text: line}, nil
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil, n > maxElements, sign != '$' && sign != '*':
		return r, fmt.Errorf("a reply of an unknown form: %q", line)
	case n < 0:
		return reply{text: oracle.RedisNil}, nil
	case sign == '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(c.in, b)
		return reply{text: "$" + string(b[:n])}, err
	}
	r = reply{array: true, elements: make([]string, n)}
	for i := range r.elements {
		e, err := c.receive()
		if err != nil {
			return r, err
		}
		r.elements[i] = e.String()
	}
	return r, nil
}
