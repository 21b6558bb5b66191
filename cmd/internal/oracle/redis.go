package oracle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Separator stands between the commands, and between the replies, of one Redis operation.
const Separator = "; "

// Replies of Redis as a history has them. Numbers are ":3", strings "$text", errors "-WRONGTYPE" and the like.
const (
	RedisOK        = "OK"
	RedisNil       = "nil"
	RedisWrongType = "-WRONGTYPE"
	RedisNotNumber = "-NOTNUMBER"
)

// Watched is the command that stands for what WATCH promises: at the moment of EXEC the key still has what GET showed after WATCH. It is
// done first in its transaction; its reply is the one of that GET.
const Watched = "watched"

// RedisSpace is how many keys a space has. The keys of one space are "0" to "3"; commands may touch several of them at once.
const RedisSpace = 4

// RedisLinearizable checks Redis operations, each space (Key) for itself: there is an order of all operations, in which each lies
// between its beginning and its end and is done as a whole, that explains every reply. Failed operations must have had no effect, those of
// unknown outcome have it once or never. A space that cannot be decided within limit is an error as well.
func RedisLinearizable(operations []Operation, limit time.Duration) error {
	return decide(operations, redisModel(), redisHistory, limit)
}

// redisHistory turns the operations of one space into porcupine's form.
func redisHistory(operations []Operation) []porcupine.Operation {
	var out []porcupine.Operation
	for _, o := range operations {
		if o.Kind != Redis || o.Outcome == Failed || o.Outcome == Unknown && redisReads(o.Value) {
			continue
		}
		out = append(out, timed(o, len(out)))
	}
	return out
}

// redisReads tells whether no command of an operation changes anything.
func redisReads(commands string) bool {
	for c := range strings.SplitSeq(commands, Separator) {
		switch name, _, _ := strings.Cut(c, " "); name {
		case Watched, "get", "mget", "hget", "exists":
		default:
			return false
		}
	}
	return true
}

// redisValue is what one key holds: nothing, a string, or fields, "name=text" in order, separated by commas.
type redisValue struct {
	kind byte // 0, 's' or 'h'
	text string
}

type redisState [RedisSpace]redisValue

func redisModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return redisState{} },
		Step: func(state, input, _ any) (bool, any) {
			s, o := state.(redisState), input.(Operation)
			replies := strings.Split(o.Reply, Separator)
			commands := strings.Split(o.Value, Separator)
			if o.Outcome == OK && len(replies) != len(commands) {
				return false, s
			}
			before := s
			for i, c := range commands {
				args := strings.Split(c, " ")
				if args[0] == Watched { // also when the outcome is unknown: then it was not done
					if got := s.do([]string{"get", args[1]}); len(args) != 3 || got != args[2] {
						return o.Outcome == Unknown, before
					}
					continue
				}
				if got := s.do(args); o.Outcome == OK && got != replies[i] {
					return false, before
				}
			}
			return true, s
		},
		Equal:             func(a, b any) bool { return a == b },
		DescribeOperation: func(input, _ any) string { o := input.(Operation); return o.Value + " -> " + o.Reply },
	}
}

// do applies one command and returns its reply. A command that it does not know gets none.
func (s *redisState) do(args []string) string {
	number := func(n int) string { return ":" + strconv.Itoa(n) }
	key := func(i int) *redisValue {
		if i >= len(args) {
			return nil
		}
		k, err := strconv.Atoi(args[i])
		if err != nil || k < 0 || k >= RedisSpace {
			return nil
		}
		return &s[k]
	}
	v := key(1)
	if v == nil {
		return ""
	}
	switch name, rest := args[0], args[2:]; {
	case name == "get" && len(rest) == 0:
		return v.get()
	case name == "set" && len(rest) == 1:
		*v = redisValue{'s', rest[0]}
		return RedisOK
	case name == "setnx" && len(rest) == 1:
		if v.kind != 0 {
			return number(0)
		}
		*v = redisValue{'s', rest[0]}
		return number(1)
	case name == "getdel" && len(rest) == 0:
		r := v.get()
		if r != RedisWrongType {
			*v = redisValue{}
		}
		return r
	case name == "incrby" && len(rest) == 1:
		if v.kind == 'h' {
			return RedisWrongType
		}
		sum, err := add(v.text, rest[0], v.kind == 0)
		if err != nil {
			return RedisNotNumber
		}
		*v = redisValue{'s', sum}
		return ":" + sum
	case name == "del", name == "exists", name == "mget":
		count := 0
		var all []string
		for i := 1; i < len(args); i++ {
			v := key(i)
			if v == nil {
				return ""
			}
			r := v.get()
			if r == RedisWrongType {
				r = RedisNil
			}
			all = append(all, r)
			if v.kind != 0 {
				count++
			}
			if name == "del" {
				*v = redisValue{}
			}
		}
		if name == "mget" {
			return "[" + strings.Join(all, " ") + "]"
		}
		return number(count)
	case name == "mset" && len(args)%2 == 1:
		for i := 1; i < len(args); i += 2 {
			v := key(i)
			if v == nil {
				return ""
			}
			*v = redisValue{'s', args[i+1]}
		}
		return RedisOK
	case len(rest) > 0 && v.kind == 's' && (name == "hset" || name == "hget" || name == "hdel" || name == "hincrby"):
		return RedisWrongType
	case name == "hset" && len(rest) == 2:
		if v.setField(rest[0], rest[1]) {
			return number(1)
		}
		return number(0)
	case name == "hget" && len(rest) == 1:
		if text, found := v.field(rest[0]); found {
			return "$" + text
		}
		return RedisNil
	case name == "hdel" && len(rest) == 1:
		if v.dropField(rest[0]) {
			return number(1)
		}
		return number(0)
	case name == "hincrby" && len(rest) == 2:
		text, found := v.field(rest[0])
		sum, err := add(text, rest[1], !found)
		if err != nil {
			return RedisNotNumber
		}
		v.setField(rest[0], sum)
		return ":" + sum
	}
	return ""
}

// add adds two numbers; what is absent counts as 0.
func add(text, by string, absent bool) (string, error) {
	if absent {
		text = "0"
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return "", err
	}
	m, err := strconv.ParseInt(by, 10, 64)
	return strconv.FormatInt(n+m, 10), err
}

// get is the reply to GET.
func (v *redisValue) get() string {
	switch v.kind {
	case 0:
		return RedisNil
	case 's':
		return "$" + v.text
	}
	return RedisWrongType
}

// fields lists a hash as "name=text".
func (v *redisValue) fields() []string {
	if v.kind != 'h' {
		return nil
	}
	return strings.Split(v.text, ",")
}

func (v *redisValue) field(name string) (text string, found bool) {
	for _, f := range v.fields() {
		if text, found = strings.CutPrefix(f, name+"="); found {
			return text, true
		}
	}
	return "", false
}

// setField tells whether the field is new.
func (v *redisValue) setField(name, text string) bool {
	found := v.dropField(name)
	all := append(v.fields(), name+"="+text)
	slices.Sort(all)
	*v = redisValue{'h', strings.Join(all, ",")}
	return !found
}

// dropField tells whether there was such a field. Without fields there is no hash.
func (v *redisValue) dropField(name string) bool {
	all := v.fields()
	left := slices.DeleteFunc(slices.Clone(all), func(f string) bool { return strings.HasPrefix(f, name+"=") })
	switch {
	case len(left) == len(all):
		return false
	case len(left) == 0:
		*v = redisValue{}
	default:
		v.text = strings.Join(left, ",")
	}
	return true
}

// RedisMix guards against a history in which too little happened: so many acknowledged operations, among them each command, and
// transactions that were watched.
func RedisMix(operations []Operation, least int, commands ...string) error {
	done := map[string]int{}
	total := 0
	for _, o := range operations {
		if o.Kind != Redis || o.Outcome != OK {
			continue
		}
		total++
		for c := range strings.SplitSeq(o.Value, Separator) {
			name, _, _ := strings.Cut(c, " ")
			done[name]++
		}
	}
	var f findings
	if total < least {
		f.add("nothing was tested", "%d Redis operations were acknowledged, want %d", total, least)
	}
	for _, c := range commands {
		if done[c] == 0 {
			f.add("nothing was tested", "no %s was acknowledged", c)
		}
	}
	return f.err()
}
