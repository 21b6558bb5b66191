package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// errReply is an answer of another node that is none.
var errReply = errors.New("the answer is not of the Redis protocol")

const maxNesting = 8

// readReply reads an answer of another node, of at most limit bytes.
func readReply(in *bufio.Reader, limit int64) (reply, error) {
	left := limit
	return readNested(in, &left, maxNesting)
}

func readNested(in *bufio.Reader, left *int64, depth int) (reply, error) {
	b, err := in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errReply
		}
		return nil, err
	}
	if *left -= int64(len(b)) + replyCost; *left < 0 {
		return nil, fmt.Errorf("%w: it is larger than allowed", errReply)
	}
	if len(b) < 3 || b[len(b)-2] != '\r' {
		return nil, errReply
	}
	sign, rest := b[0], string(b[1:len(b)-2])
	switch sign {
	case '+':
		return simple(rest), nil
	case '-':
		return failure(rest), nil
	case '_':
		return null{}, nil
	case '#':
		return boolean(rest == "t"), nil
	case ',':
		f, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			return nil, errReply
		}
		return double(f), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	switch {
	case err != nil:
		return nil, errReply
	case sign == ':':
		return integer(n), nil
	case sign == '$' && n == -1:
		return null{}, nil
	case sign == '*' && n == -1:
		return nothing{}, nil
	case n < 0 || n > *left:
		return nil, errReply
	case sign == '$':
		v, err := readBulk(in, n, left)
		return bulk(v), err
	case sign == '=':
		v, err := readBulk(in, n, left)
		if err == nil && len(v) < 4 {
			err = errReply
		}
		if err != nil {
			return nil, err
		}
		return verbatim(v[4:]), nil
	case depth == 0:
		return nil, errReply
	}
	if sign == '%' {
		n *= 2
	}
	all := make([]reply, 0, min(n, 64))
	for range n {
		r, err := readNested(in, left, depth-1)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	switch sign {
	case '*':
		return array(all), nil
	case '%':
		return pairs(all), nil
	case '~':
		return set(all), nil
	case '>':
		return push(all), nil
	}
	return nil, errReply
}

// readBulk reads n bytes and the line end. What was announced and does not arrive takes no memory.
func readBulk(in *bufio.Reader, n int64, left *int64) ([]byte, error) {
	*left -= n
	v := make([]byte, 0, min(n, flushAt))
	for int64(len(v)) < n {
		if len(v) == cap(v) {
			v = append(make([]byte, 0, min(2*int64(cap(v)), n)), v...)
		}
		m, err := io.ReadFull(in, v[len(v):cap(v)])
		v = v[:len(v)+m]
		if err != nil {
			return nil, err
		}
	}
	var end [2]byte
	if _, err := io.ReadFull(in, end[:]); err != nil {
		return nil, err
	}
	if end != [2]byte{'\r', '\n'} {
		return nil, errReply
	}
	return v, nil
}
