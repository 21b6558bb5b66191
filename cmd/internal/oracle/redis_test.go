package oracle

import (
	"testing"
	"time"
)

// rop is a Redis operation in space s.
func rop(client int, value, reply string, outcome Outcome, call, ret int64) Operation {
	return Operation{Client: client, Kind: Redis, Key: "s", Value: value, Reply: reply, Outcome: outcome, Call: call, Return: ret}
}

// Proves BX-5: histories of Redis clients are judged, and one that no order explains is found.
func TestRedisLinearizable(t *testing.T) {
	const broken = "not linearizable"
	for _, c := range []struct {
		name string
		ops  []Operation
		want string
	}{
		{"a life of one key", []Operation{
			rop(1, "get 0", "nil", OK, 1, 2), rop(1, "setnx 0 7", ":1", OK, 3, 4), rop(1, "incrby 0 3", ":10", OK, 5, 6), rop(1, "setnx 0 x", ":0", OK, 7, 8),
			rop(1, "hset 0 f 1", "-WRONGTYPE", OK, 9, 10), rop(1, "exists 0 1", ":1", OK, 11, 12), rop(1, "getdel 0", "$10", OK, 13, 14), rop(1, "del 0", ":0", OK, 15, 16),
			rop(1, "hset 0 f 1", ":1", OK, 17, 18), rop(1, "hincrby 0 f 2", ":3", OK, 19, 20), rop(1, "hset 0 a x", ":1", OK, 21, 22), rop(1, "hincrby 0 a 1", "-NOTNUMBER", OK, 23, 24),
			rop(1, "get 0", "-WRONGTYPE", OK, 25, 26), rop(1, "hdel 0 f", ":1", OK, 27, 28), rop(1, "hget 0 f", "nil", OK, 29, 30), rop(1, "hget 0 a", "$x", OK, 31, 32),
			rop(1, "mset 1 p 2 q", "OK", OK, 33, 34), rop(1, "mget 0 1 2 3", "[nil $p $q nil]", OK, 35, 36), rop(1, "hdel 0 a", ":1", OK, 37, 38), rop(1, "del 0 1 2", ":2", OK, 39, 40),
		}, ""},
		{"stale read", []Operation{rop(1, "set 0 a", "OK", OK, 1, 2), rop(1, "set 0 b", "OK", OK, 3, 4), rop(2, "get 0", "$a", OK, 5, 6)}, broken},
		{"read during the write", []Operation{rop(1, "set 0 a", "OK", OK, 1, 2), rop(1, "set 0 b", "OK", OK, 3, 6), rop(2, "get 0", "$a", OK, 4, 5)}, ""},
		{"lost increment", []Operation{rop(1, "incrby 0 1", ":1", OK, 1, 2), rop(2, "incrby 0 1", ":1", OK, 3, 4)}, broken},
		{"the same number twice at once", []Operation{rop(1, "incrby 0 1", ":1", OK, 1, 4), rop(2, "incrby 0 1", ":1", OK, 2, 3)}, broken},
		{"two that were first", []Operation{rop(1, "setnx 0 a", ":1", OK, 1, 4), rop(2, "setnx 0 b", ":1", OK, 2, 3)}, broken},
		{"refused and done", []Operation{rop(1, "incrby 0 1", "", Failed, 1, 2), rop(1, "get 0", "$1", OK, 3, 4)}, broken},
		{"unknown and done late", []Operation{rop(1, "incrby 0 1", "", Unknown, 1, 2), rop(2, "get 0", "nil", OK, 3, 4), rop(2, "get 0", "$1", OK, 5, 6)}, ""},
		{"unknown and done twice", []Operation{rop(1, "incrby 0 1", "", Unknown, 1, 2), rop(2, "get 0", "$2", OK, 5, 6)}, broken},
		{"unknown and undone", []Operation{rop(1, "set 0 a", "", Unknown, 1, 2), rop(2, "get 0", "$a", OK, 3, 4), rop(2, "get 0", "nil", OK, 5, 6)}, broken},
		{"half a transaction", []Operation{rop(1, "incrby 0 1; incrby 1 1", ":1; :1", OK, 1, 9), rop(2, "mget 0 1", "[$1 nil]", OK, 2, 3)}, broken},
		{"a whole one", []Operation{rop(1, "incrby 0 1; incrby 1 1", ":1; :1", OK, 1, 9), rop(2, "mget 0 1", "[$1 $1]", OK, 2, 3)}, ""},
		{"half a transaction of unknown outcome", []Operation{rop(1, "set 0 a; set 1 a", "", Unknown, 1, 2), rop(2, "get 1", "$a", OK, 3, 4), rop(2, "get 0", "nil", OK, 5, 6)}, broken},
		{"watched", []Operation{rop(1, "set 0 a", "OK", OK, 1, 2), rop(1, "watched 0 $a; set 0 b", "; OK", OK, 3, 4), rop(2, "get 0", "$b", OK, 5, 6)}, ""},
		{"watched, and changed between", []Operation{rop(1, "set 0 a", "OK", OK, 1, 2), rop(2, "set 0 c", "OK", OK, 3, 4), rop(1, "watched 0 $a; set 0 b", "; OK", OK, 5, 6)}, broken},
		{"watched, of unknown outcome, and changed between", []Operation{
			rop(1, "set 0 a", "OK", OK, 1, 2), rop(2, "set 0 c", "OK", OK, 3, 4), rop(1, "watched 0 $a; set 0 b", "", Unknown, 5, 6), rop(2, "get 0", "$b", OK, 7, 8),
		}, broken},
		{"a reply is missing", []Operation{rop(1, "incrby 0 1; incrby 1 1", ":1", OK, 1, 2)}, broken},
		{"a command nobody knows", []Operation{rop(1, "append 0 x", ":1", OK, 1, 2)}, broken},
	} {
		check(t, c.name, RedisLinearizable(c.ops, time.Minute), c.want)
	}
	some := []Operation{rop(1, "set 0 a", "OK", OK, 1, 2), rop(1, "get 0", "", Failed, 3, 4)}
	check(t, "enough", RedisMix(some, 1, "set"), "")
	check(t, "too little", RedisMix(some, 2), "nothing was tested")
	check(t, "no reads", RedisMix(some, 1, "get"), "no get was acknowledged")
}
