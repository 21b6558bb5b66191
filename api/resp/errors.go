package resp

import (
	"bytes"
	"fmt"
	"strings"
)

// Errors with the texts of Redis, which clients compare.
const (
	errSyntax        = failure("ERR syntax error")
	errWrongType     = failure("WRONGTYPE Operation against a key holding the wrong kind of value")
	errNotInteger    = failure("ERR value is not an integer or out of range")
	errNotFloat      = failure("ERR value is not a valid float")
	errNaN           = failure("ERR increment would produce NaN or Infinity")
	errHashInteger   = failure("ERR hash value is not an integer")
	errHashFloat     = failure("ERR hash value is not a float")
	errOverflow      = failure("ERR increment or decrement would overflow")
	errTooLong       = failure("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	errHashTooLarge  = failure("ERR the hash exceeds the maximum size of a record: use several hashes")
	errReplyTooLarge = failure("ERR the reply would exceed the maximum size of a reply: ask for less at once")
	errReplyMemory   = failure("OOM the memory for replies in flight is used up: try again later")
	errCommandMemory = failure("OOM the memory for commands in flight is used up: try again later")
	errNoAuth        = failure("NOAUTH Authentication required.")
	errWrongPass     = failure("WRONGPASS invalid username-password pair or user is disabled.")
	errNoPass        = failure("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	errNoProto       = failure("NOPROTO unsupported protocol version")
	errReadOnly      = failure("READONLY You can't write against a read only replica.")
	errExecAbort     = failure("EXECABORT Transaction discarded because of previous errors.")
	errNotMeant      = failure("ELSEWHERE ") // a key that another node takes for one of a group is local here: that is not what was meant
	errMoved         = failure("TRYAGAIN the key has just become another group's: nothing was done")
	errNestedMulti   = failure("ERR MULTI calls can not be nested")
	errNoMulti       = failure("ERR EXEC without MULTI")
	errNoDiscard     = failure("ERR DISCARD without MULTI")
	errWatchMulti    = failure("ERR WATCH inside MULTI is not allowed")
	errInMulti       = failure("ERR Command not allowed inside a transaction")
	errQueueFull     = failure("ERR the transaction has too many or too large commands: split it")
	errSelect        = failure("ERR value is out of range, value must between -2147483648 and 2147483647")
	errTimeout       = failure("ERR timeout is not an integer or out of range")
	errInfinite      = failure("ERR value is NaN or Infinity")
	errIndex         = failure("ERR DB index is out of range")
	errCursor        = failure("ERR invalid cursor")
	errNoSuchMaster  = failure("ERR No such master with that name")
	errConnections   = failure("ERR max number of clients reached")
	errWaiting       = failure("TRYAGAIN too many requests wait for a primary: nothing was done, try again later")
	errAbandoned     = failure("ERR the command was abandoned")
	errStopping      = failure("TRYAGAIN this node is stopping: nothing was done, connect to another one")
	errPanic         = failure("ERR the command failed in an unforeseen way: nothing was done, see the node's log")
	errNotSubscribed = "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
)

// Error lets a failure end a program: then nothing of it is done, and it is the reply.
func (r failure) Error() string { return string(r) }

func errArity(name string) failure {
	return failure("ERR wrong number of arguments for '" + name + "' command")
}

// errExecRefused is the answer to an EXEC that cannot be run at all.
func errExecRefused(why reply) failure {
	f, _ := why.(failure)
	text := string(f)
	if _, rest, cut := strings.Cut(text, " "); cut {
		text = rest
	}
	return failure("EXECABORT Transaction discarded because of: " + text)
}

func errExpire(name string) failure {
	return failure("ERR invalid expire time in '" + name + "' command")
}

// errUnknownCommand quotes what was sent, as much as fits on a line.
func errUnknownCommand(args [][]byte) failure {
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= 128 {
			break
		}
		fmt.Fprintf(&b, "'%s' ", quoted(a, 128-b.Len()))
	}
	return failure(fmt.Sprintf("ERR unknown command '%s', with args beginning with: %s", quoted(args[0], 128), b.String()))
}

func errSubcommand(command string, sub []byte) failure {
	return failure(fmt.Sprintf("ERR unknown subcommand '%s'. Try %s HELP.", quoted(sub, 128), strings.ToUpper(command)))
}

// quoted is what Redis repeats of an argument: the bytes up to the first zero, without line ends.
func quoted(a []byte, most int) []byte {
	a = a[:min(len(a), most)]
	if i := bytes.IndexByte(a, 0); i >= 0 {
		a = a[:i]
	}
	a = bytes.Clone(a)
	for i, c := range a {
		if c == '\r' || c == '\n' {
			a[i] = ' '
		}
	}
	return a
}

// clean makes what a client sent fit for a line.
func clean(a []byte, most int) string {
	if len(a) > most {
		a = a[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(a))
}

// crossGroup refuses a command, or a transaction, with keys of two groups. It begins as clients of a cluster know it.
func crossGroup(a Key, of string, b Key, other string) reply {
	return failure(fmt.Sprintf("CROSSSLOT Keys in request don't belong to the same group: %.100q is of group %s, %.100q of group %s; a command and a transaction touch one group",
		nameOf(a.File, a.Key), of, nameOf(b.File, b.Key), other))
}
