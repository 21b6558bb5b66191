package redisload

import (
	"fmt"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/cmd/internal/redisconn"
)

// connection is one to a node.
type connection struct {
	*redisconn.Conn
	node string
}

// send writes commands at once. The replies are due within patience.
func (c *connection) send(commands [][]string, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return c.Send(commands...)
}

// receive reads a reply.
func (c *connection) receive() (reply, error) {
	r, err := c.Receive()
	if err != nil {
		return reply{}, err
	}
	return replyOf(r)
}

// reply is one answer. Of an array it has the elements; else it has the text as histories have it.
type reply struct {
	text     string
	array    bool
	elements []string
}

func replyOf(r redisconn.Reply) (reply, error) {
	switch r.Kind {
	case redisconn.None:
		return reply{text: oracle.RedisNil}, nil
	case '+':
		return reply{text: r.Text}, nil
	case '-':
		switch {
		case strings.HasPrefix(r.Text, "WRONGTYPE"):
			return reply{text: oracle.RedisWrongType}, nil
		case strings.Contains(r.Text, "is not an integer"):
			return reply{text: oracle.RedisNotNumber}, nil
		}
		fallthrough
	case ':', '$':
		return reply{text: string(r.Kind) + r.Text}, nil
	case '*':
		all := reply{array: true, elements: make([]string, len(r.Elements))}
		for i, e := range r.Elements {
			one, err := replyOf(e)
			if err != nil {
				return all, err
			}
			all.elements[i] = one.String()
		}
		return all, nil
	}
	return reply{}, fmt.Errorf("a reply of an unknown form: %s", r)
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
