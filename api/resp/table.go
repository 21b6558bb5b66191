package resp

import "bytes"

// flags of a command, as COMMAND tells them.
type flags uint16

const (
	writes flags = 1 << iota
	reads
	fast
	admin
	pubsub
	early      // allowed before the client is authenticated
	noMulti    // not allowed in a transaction
	subscribed // allowed in RESP2 while subscribed
	bigger     // may make values bigger
	internal   // not listed; between nodes
)

// command is a row of the table. Either plan or own is set.
type command struct {
	name              string
	arity             int // with the name; negative: at least
	flags             flags
	first, last, step int    // of the arguments that are keys; last counts from the end when negative
	family, since     string // for COMMAND DOCS
	summary           string

	// plan checks the arguments and returns the part of a program; or the error that is the reply.
	plan func(c *call) (step, reply)
	// own answers without records. It is run in the order of the connection: everything before it was answered.
	own func(s *session, args [][]byte) reply
	// parts are the subcommands with their arity, both names included; nil: it has none, or looks itself.
	parts map[string]int
	// light: own needs nothing of what is still pending, and so does not end a batch.
	light bool
}

// step is the part of a command in a program: it reads and changes records and returns the reply.
type step func(t *tx) reply

// call is a data command with its arguments.
type call struct {
	name   string
	args   [][]byte // with the name
	keys   []Key
	limits *Limits
}

// keysOf cuts the keys out of the arguments.
func (c *command) keysOf(args [][]byte) []Key {
	if c.first == 0 {
		return nil
	}
	last := c.last
	if last < 0 {
		last += len(args)
	}
	keys := make([]Key, 0, (last-c.first)/c.step+1)
	for i := c.first; i <= last && i < len(args); i += c.step {
		keys = append(keys, keyOf(args[i]))
	}
	return keys
}

const defaultFile = "default"

// keyOf parses `file:key`. Without a colon the whole is the key of a record in the file default.
func keyOf(arg []byte) Key {
	if i := bytes.IndexByte(arg, ':'); i >= 0 {
		return Key{File: string(arg[:i]), Key: arg[i+1:]}
	}
	return Key{File: defaultFile, Key: arg}
}

// nameOf is the inverse of keyOf, in the shorter of the forms that are possible.
func nameOf(file string, key []byte) []byte {
	if file == defaultFile && bytes.IndexByte(key, ':') < 0 {
		return bytes.Clone(key)
	}
	return append(append(append(make([]byte, 0, len(file)+1+len(key)), file...), ':'), key...)
}

// fits finds what is wrong with the number of arguments, or with the subcommand.
func (c *command) fits(args [][]byte) reply {
	if !enough(c.arity, len(args)) {
		return errArity(c.name)
	}
	if c.parts == nil || len(args) < 2 {
		return nil
	}
	part := lower(args[1][:min(len(args[1]), 32)])
	switch arity, known := c.parts[part]; {
	case !known:
		return errSubcommand(c.name, args[1])
	case !enough(arity, len(args)):
		return errArity(c.name + "|" + part)
	}
	return nil
}

// enough compares a number of arguments with an arity.
func enough(arity, n int) bool {
	if arity < 0 {
		return n >= -arity
	}
	return n == arity
}

// commands is the one table of commands.
func commands() map[string]*command {
	all := map[string]*command{}
	for _, family := range [][]command{stringCommands(), keyCommands(), hashCommands(), transactionCommands(), connectionCommands(), serverCommands(), pubsubCommands(), sentinelCommands(), inspectionCommands(), peerCommands()} {
		for i := range family {
			c := &family[i]
			all[c.name] = c
		}
	}
	return all
}

// rights are what a user needs for the command.
func (c *command) rights() Rights {
	switch {
	case c.flags&writes != 0:
		return MayWrite
	case c.flags&reads != 0:
		return MayRead
	}
	return 0
}
