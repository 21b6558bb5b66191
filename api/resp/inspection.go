package resp

import "strconv"

// inspectionCommands are what tools ask out of habit: about single keys, and about what there is not. Where there is no true answer they get
// the error of a Redis that does not have it either, which they know how to take.
func inspectionCommands() []command {
	return []command{
		{name: "object", arity: -2, flags: reads, first: 2, last: 2, step: 1, family: "generic", since: "2.2.3", summary: "A container for object introspection commands.", plan: planObject,
			parts: map[string]int{"encoding": 3, "refcount": 3, "idletime": 3, "freq": 3, "help": 2}},
		{name: "memory", arity: -2, flags: reads, first: 2, last: 2, step: 1, family: "server", since: "4.0.0", summary: "A container for memory diagnostics commands.", plan: planMemory,
			parts: map[string]int{"usage": -3, "help": 2}},
		{name: "cluster", arity: -2, family: "cluster", since: "3.0.0", summary: "A container for Redis Cluster commands; there is none.", own: ownCluster, light: true},
		{name: "module", arity: -2, flags: admin | noMulti, family: "server", since: "4.0.0", summary: "A container for module commands; there are none.", own: ownModule, light: true,
			parts: map[string]int{"list": 2, "help": 2}},
		{name: "acl", arity: -2, flags: noMulti, family: "server", since: "6.0.0", summary: "A container for access control commands.", own: ownACL, light: true,
			parts: map[string]int{"whoami": 2, "help": 2}},
	}
}

// Limits of Redis by which the encoding of a value is told. Here all values are bytes.
const (
	embedded     = 44  // bytes of a short string
	packedFields = 128 // of a small hash
	packedBytes  = 64  // of each of its names and values
)

func planObject(c *call) (step, reply) {
	sub := lower(c.args[1])
	if sub == "help" {
		return nil, help("OBJECT", "ENCODING <key>", "FREQ <key>", "IDLETIME <key>", "REFCOUNT <key>", "HELP")
	}
	k := c.keys[0]
	return func(t *tx) reply {
		r := t.get(k)
		switch {
		case r == nil:
			return null{}
		case sub == "refcount":
			return integer(1)
		case sub == "idletime":
			return failure("ERR idle times are not tracked")
		case sub == "freq":
			return failure("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
		}
		return text(encodingOf(r))
	}, nil
}

// encodingOf names the encoding that Redis would have chosen.
func encodingOf(r *Record) string {
	if r.Kind == KindHash {
		h, err := decodeHash(r.Value)
		if err != nil || len(h) > packedFields {
			return "hashtable"
		}
		for _, f := range h {
			if len(f.name) > packedBytes || len(f.value) > packedBytes {
				return "hashtable"
			}
		}
		return "listpack"
	}
	if n, valid := integerOf(r.Value); valid && strconv.FormatInt(n, 10) == string(r.Value) {
		return "int"
	}
	if len(r.Value) <= embedded {
		return "embstr"
	}
	return "raw"
}

// planMemory tells how many bytes a record has: its name and its value as it is stored.
func planMemory(c *call) (step, reply) {
	if is(c.args[1], "HELP") {
		return nil, help("MEMORY", "USAGE <key> [SAMPLES <count>]", "HELP")
	}
	if len(c.args) > 3 {
		if len(c.args) != 5 || !is(c.args[3], "SAMPLES") {
			return nil, errSyntax
		}
		if n, valid := integerOf(c.args[4]); !valid || n < 0 {
			return nil, errNotInteger
		}
	}
	k := c.keys[0]
	return func(t *tx) reply {
		r := t.get(k)
		if r == nil {
			return null{}
		}
		return integer(len(k.File) + len(k.Key) + len(r.Value))
	}, nil
}

// ownCluster tells clients that look for a Redis Cluster that this is none.
func ownCluster(*session, [][]byte) reply {
	return failure("ERR This instance has cluster support disabled")
}

func ownModule(_ *session, args [][]byte) reply {
	if is(args[1], "HELP") {
		return help("MODULE", "LIST", "HELP")
	}
	return array{}
}

func ownACL(s *session, args [][]byte) reply {
	if is(args[1], "HELP") {
		return help("ACL", "WHOAMI", "HELP")
	}
	return text(s.user)
}
