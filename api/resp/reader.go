package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	firstBuffer = 4 << 10   // of a connection
	lastBuffer  = 256 << 10 // to which it grows while it is filled at once
	maxHeader   = 64        // bytes of a line that gives a number
	chunkSize   = 8 << 10   // small arguments share their memory
	argCost     = 48        // bytes that an argument takes beside its own
)

// protocolError is answered, and ends the connection.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return "Protocol error: " + e.text }

// errMemory ends a connection whose command does not fit into what is left for all.
var errMemory = errors.New("the memory for commands in flight is used up")

// request is a command as it arrived.
type request struct {
	args [][]byte
	size int64 // what was taken for it
}

// reader takes commands out of a byte stream. It never holds more than has arrived, twice at most.
type reader struct {
	src    io.Reader
	limits *Limits
	take   func(int64) bool // reserves memory
	give   func(int64)
	login  bool // the client is not authenticated: the smaller limits count

	buf  []byte // what is read and not yet parsed is buf[r:w]
	r, w int

	chunk []byte // free memory for small arguments
	left  int    // arguments that the command begun still lacks; 0: none is begun
	args  [][]byte
	bulk  int    // length of the argument begun; -1: its header comes next
	part  []byte // of a large argument
	size  int64  // taken for the command begun
}

func newReader(src io.Reader, limits *Limits, take func(int64) bool, give func(int64)) *reader {
	return &reader{src: src, limits: limits, take: take, give: give, buf: make([]byte, firstBuffer), bulk: -1}
}

// begun tells whether a part of a command has arrived.
func (rd *reader) begun() bool { return rd.left > 0 || rd.r < rd.w }

// next returns the next command that has arrived completely; false when there is none. It does not read.
func (rd *reader) next() (request, bool, error) {
	for {
		if rd.left == 0 {
			if rd.r == rd.w {
				return request{}, false, nil
			}
			if rd.buf[rd.r] != '*' {
				args, ok, err := rd.inline()
				if err != nil || !ok {
					return request{}, false, err
				}
				if len(args) > 0 {
					return rd.done(args), true, nil
				}
				continue
			}
			n, ok, err := rd.header("invalid multibulk length", "too big mbulk count string")
			if err != nil || !ok {
				return request{}, false, err
			}
			switch {
			case n <= 0: // Redis passes over it, too
				continue
			case rd.login && n > rd.limits.LoginArguments:
				return request{}, false, &protocolError{"unauthenticated multibulk length"}
			case n > rd.limits.Arguments:
				return request{}, false, &protocolError{"invalid multibulk length"}
			}
			rd.left, rd.bulk, rd.args = n, -1, make([][]byte, 0, min(n, 16))
		}
		for rd.left > 0 {
			ok, err := rd.argument()
			if err != nil || !ok {
				return request{}, false, err
			}
		}
		return rd.done(rd.args), true, nil
	}
}

// done hands the command over.
func (rd *reader) done(args [][]byte) request {
	q := request{args: args, size: rd.size}
	rd.args, rd.size = nil, 0
	return q
}

// argument reads one; false when not all of it has arrived.
func (rd *reader) argument() (bool, error) {
	if rd.bulk < 0 {
		if rd.r == rd.w {
			return false, nil
		}
		if c := rd.buf[rd.r]; c != '$' {
			return false, &protocolError{fmt.Sprintf("expected '$', got '%c'", printable(c))}
		}
		n, ok, err := rd.header("invalid bulk length", "too big bulk count string")
		if err != nil || !ok {
			return false, err
		}
		switch {
		case n < 0:
			return false, &protocolError{"invalid bulk length"}
		case n > rd.limits.Bulk:
			return false, &protocolError{fmt.Sprintf("invalid bulk length: %d bytes, at most %d are possible", n, rd.limits.Bulk)}
		case rd.login && n > rd.limits.LoginBulk:
			return false, &protocolError{"unauthenticated bulk length"}
		case rd.size+int64(n) > rd.limits.Command:
			return false, &protocolError{"command larger than " + strconv.FormatInt(rd.limits.Command, 10) + " bytes"}
		}
		if err := rd.charge(argCost); err != nil {
			return false, err
		}
		rd.bulk, rd.part = n, nil
	}
	if rd.part == nil && rd.w-rd.r >= rd.bulk+2 { // the usual case: all of it is there
		if err := rd.charge(int64(rd.bulk)); err != nil {
			return false, err
		}
		arg := rd.room(rd.bulk)
		copy(arg, rd.buf[rd.r:])
		rd.r += rd.bulk
		return true, rd.end(arg)
	}
	for len(rd.part) < rd.bulk && rd.r < rd.w {
		if err := rd.grow(); err != nil {
			return false, err
		}
		n := copy(rd.part[len(rd.part):cap(rd.part)], rd.buf[rd.r:rd.w])
		n = min(n, rd.bulk-len(rd.part))
		rd.part, rd.r = rd.part[:len(rd.part)+n], rd.r+n
	}
	if len(rd.part) < rd.bulk || rd.w-rd.r < 2 {
		return false, nil
	}
	return true, rd.end(rd.part)
}

// end takes the line end behind an argument.
func (rd *reader) end(arg []byte) error {
	if rd.buf[rd.r] != '\r' || rd.buf[rd.r+1] != '\n' {
		return &protocolError{"expected CRLF behind a bulk"}
	}
	rd.r += 2
	rd.args = append(rd.args, arg)
	rd.bulk, rd.part = -1, nil
	rd.left--
	return nil
}

// grow makes room in part, in steps: what was announced and has not arrived takes no memory.
func (rd *reader) grow() error {
	if len(rd.part) < cap(rd.part) {
		return nil
	}
	size := min(max(2*cap(rd.part), firstBuffer), rd.bulk)
	if err := rd.charge(int64(size - cap(rd.part))); err != nil {
		return err
	}
	rd.part = append(make([]byte, 0, size), rd.part...)
	return nil
}

// room returns memory for a small argument.
func (rd *reader) room(n int) []byte {
	if n > chunkSize/8 {
		return make([]byte, n)
	}
	if n > len(rd.chunk) {
		rd.chunk = make([]byte, chunkSize)
	}
	arg := rd.chunk[:n:n]
	rd.chunk = rd.chunk[n:]
	return arg
}

func (rd *reader) charge(n int64) error {
	if !rd.take(n) {
		return errMemory
	}
	rd.size += n
	return nil
}

// header reads a line with a number behind one sign.
func (rd *reader) header(invalid, long string) (int, bool, error) {
	i := bytes.IndexByte(rd.buf[rd.r:rd.w], '\n')
	if i < 0 {
		if rd.w-rd.r > maxHeader {
			return 0, false, &protocolError{long}
		}
		return 0, false, nil
	}
	line := rd.buf[rd.r+1 : rd.r+i]
	if i > maxHeader || len(line) < 2 || line[len(line)-1] != '\r' {
		return 0, false, &protocolError{invalid}
	}
	n, err := strconv.ParseInt(string(line[:len(line)-1]), 10, 32)
	if err != nil || line[0] == '+' {
		return 0, false, &protocolError{invalid}
	}
	rd.r += i + 1
	return int(n), true, nil
}

// inline reads a command that is one line; false when its end has not arrived.
func (rd *reader) inline() ([][]byte, bool, error) {
	limit := rd.limits.Inline
	if rd.login {
		limit = min(limit, rd.limits.LoginBulk)
	}
	i := bytes.IndexByte(rd.buf[rd.r:rd.w], '\n')
	if i > limit || i < 0 && rd.w-rd.r > limit {
		return nil, false, &protocolError{"too big inline request"}
	}
	if i < 0 {
		return nil, false, nil
	}
	line := bytes.TrimSuffix(rd.buf[rd.r:rd.r+i], []byte{'\r'})
	rd.r += i + 1
	args, err := splitLine(line, rd.limits.Arguments)
	if err != nil {
		return nil, false, err
	}
	return args, true, rd.charge(int64(len(line) + argCost*len(args)))
}

// fill reads once from the connection.
func (rd *reader) fill() error {
	if rd.r == rd.w {
		rd.r, rd.w = 0, 0
		if rd.left > 0 && rd.bulk-len(rd.part) > len(rd.buf) && rd.part != nil { // a large argument needs no detour
			if err := rd.grow(); err != nil {
				return err
			}
			n, err := rd.src.Read(rd.part[len(rd.part):cap(rd.part)])
			rd.part = rd.part[:len(rd.part)+n]
			return filled(n, err)
		}
		if rd.left == 0 && len(rd.buf) > firstBuffer { // what a burst needed, an idle connection does not keep
			rd.give(int64(len(rd.buf) - firstBuffer))
			rd.buf = make([]byte, firstBuffer)
		}
	}
	if rd.r > 0 {
		rd.w = copy(rd.buf, rd.buf[rd.r:rd.w])
		rd.r = 0
	}
	if rd.w == len(rd.buf) { // an inline command, or a header behind much that is parsed
		if !rd.enlarge() {
			return errMemory
		}
	}
	n, err := rd.src.Read(rd.buf[rd.w:])
	rd.w += n
	if rd.w == len(rd.buf) && len(rd.buf) < lastBuffer {
		rd.enlarge() // more is on its way; without the memory it goes on as it is
	}
	return filled(n, err)
}

func filled(n int, err error) error {
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// enlarge doubles the buffer.
func (rd *reader) enlarge() bool {
	if !rd.take(int64(len(rd.buf))) {
		return false
	}
	rd.buf = append(rd.buf, make([]byte, len(rd.buf))...)
	return true
}

func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// splitLine cuts an inline command into arguments, with the quotes and escapes of redis-cli.
func splitLine(line []byte, most int) ([][]byte, error) {
	unbalanced := &protocolError{"unbalanced quotes in request"}
	var args [][]byte
	for i := 0; ; {
		for i < len(line) && space(line[i]) {
			i++
		}
		if i == len(line) {
			return args, nil
		}
		if len(args) == most {
			return nil, &protocolError{"invalid multibulk length"}
		}
		arg := []byte{}
		var quote byte
	word:
		for ; i < len(line); i++ {
			c := line[i]
			switch {
			case quote == 0 && space(c):
				break word
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case quote != 0 && c == quote:
				quote = 0
				if i++; i < len(line) && !space(line[i]) {
					return nil, unbalanced
				}
				break word
			case quote == '"' && c == '\\' && i+3 < len(line) && line[i+1] == 'x' && hexDigit(line[i+2]) >= 0 && hexDigit(line[i+3]) >= 0:
				arg = append(arg, byte(hexDigit(line[i+2])<<4|hexDigit(line[i+3])))
				i += 3
			case quote == '"' && c == '\\' && i+1 < len(line):
				i++
				arg = append(arg, unescape(line[i]))
			case quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
				i++
				arg = append(arg, '\'')
			default:
				arg = append(arg, c)
			}
		}
		if quote != 0 {
			return nil, unbalanced
		}
		args = append(args, arg)
	}
}

func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}
