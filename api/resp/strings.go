package resp

import (
	"strconv"
	"time"
)

// stringCommands are the commands of plain values.
func stringCommands() []command {
	const family = "string"
	return []command{
		{name: "get", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Returns the string value of a key.", plan: planGet},
		{name: "set", arity: -3, flags: writes | bigger, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Sets the string value of a key, ignoring its type.", plan: planSet},
		{name: "setnx", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Sets the string value of a key only when the key doesn't exist.", plan: planSetNX},
		{name: "setex", arity: 4, flags: writes | bigger, first: 1, last: 1, step: 1, family: family, since: "2.0.0", summary: "Sets the string value and expiration time of a key.", plan: planSetEX(time.Second)},
		{name: "psetex", arity: 4, flags: writes | bigger, first: 1, last: 1, step: 1, family: family, since: "2.6.0", summary: "Sets the string value and expiration time in milliseconds of a key.", plan: planSetEX(time.Millisecond)},
		{name: "getset", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Returns the previous string value of a key after setting it to a new value.", plan: planGetSet},
		{name: "getdel", arity: 2, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "6.2.0", summary: "Returns the string value of a key after deleting the key.", plan: planGetDel},
		{name: "getex", arity: -2, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "6.2.0", summary: "Returns the string value of a key after setting its expiration time.", plan: planGetEX},
		{name: "mget", arity: -2, flags: reads | fast, first: 1, last: -1, step: 1, family: family, since: "1.0.0", summary: "Atomically returns the string values of one or more keys.", plan: planMGet},
		{name: "mset", arity: -3, flags: writes | bigger, first: 1, last: -1, step: 2, family: family, since: "1.0.1", summary: "Atomically creates or modifies the string values of one or more keys.", plan: planMSet(false)},
		{name: "msetnx", arity: -3, flags: writes | bigger, first: 1, last: -1, step: 2, family: family, since: "1.0.1", summary: "Atomically modifies the string values of one or more keys only when all keys don't exist.", plan: planMSet(true)},
		{name: "incr", arity: 2, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Increments the integer value of a key by one.", plan: planIncr(1, false)},
		{name: "decr", arity: 2, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Decrements the integer value of a key by one.", plan: planIncr(-1, false)},
		{name: "incrby", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Increments the integer value of a key by a number.", plan: planIncr(1, true)},
		{name: "decrby", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Decrements a number from the integer value of a key.", plan: planIncr(-1, true)},
		{name: "incrbyfloat", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "2.6.0", summary: "Increments the floating point value of a key by a number.", plan: planIncrFloat},
		{name: "append", arity: 3, flags: writes | bigger | fast, first: 1, last: 1, step: 1, family: family, since: "2.0.0", summary: "Appends a string to the value of a key.", plan: planAppend},
		{name: "strlen", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "2.2.0", summary: "Returns the length of a string value.", plan: planStrLen},
	}
}

// valueOf is a string record as a reply.
func valueOf(r *Record) reply {
	if r == nil {
		return null{}
	}
	return bulk(r.Value)
}

func planGet(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil {
			return bad
		}
		return valueOf(r)
	}, nil
}

// setting is what SET and GETEX say beside key and value.
type setting struct {
	nx, xx, get, keep, persist bool
	expiry                     *moment // without its value, until it is resolved
	time                       []byte
}

// settingOf parses options; getex: those of GETEX, else those of SET. The time is still to be read.
func settingOf(args [][]byte, getex bool) (s setting, bad reply) {
	for i := 0; i < len(args); i++ {
		m := moment{}
		switch a := args[i]; {
		case !getex && is(a, "NX") && !s.xx:
			s.nx = true
			continue
		case !getex && is(a, "XX") && !s.nx:
			s.xx = true
			continue
		case !getex && is(a, "GET"):
			s.get = true
			continue
		case !getex && is(a, "KEEPTTL") && s.expiry == nil:
			s.keep = true
			continue
		case getex && is(a, "PERSIST") && s.expiry == nil:
			s.persist = true
			continue
		case is(a, "EX"):
			m.unit = time.Second
		case is(a, "PX"):
			m.unit = time.Millisecond
		case is(a, "EXAT"):
			m.unit, m.absolute = time.Second, true
		case is(a, "PXAT"):
			m.unit, m.absolute = time.Millisecond, true
		default:
			return s, errSyntax
		}
		if s.expiry != nil && *s.expiry != m || s.keep || s.persist || i+1 == len(args) { // the same option twice: the last one counts
			return s, errSyntax
		}
		i++
		s.expiry, s.time = &m, args[i]
	}
	return s, nil
}

// resolve reads the time, which Redis looks at after all options.
func (s *setting) resolve(name string) reply {
	if s.expiry == nil {
		return nil
	}
	m, bad := momentOf(name, s.time, *s.expiry)
	s.expiry = &m
	return bad
}

// momentOf parses a time that must be positive.
func momentOf(name string, arg []byte, m moment) (moment, reply) {
	n, valid := integerOf(arg)
	if !valid {
		return m, errNotInteger
	}
	m.value = n
	if _, fits := m.at(0); n <= 0 || !fits {
		return m, errExpire(name)
	}
	return m, nil
}

func planSet(c *call) (step, reply) {
	s, bad := settingOf(c.args[3:], false)
	if bad == nil {
		bad = s.resolve("set")
	}
	if bad != nil {
		return nil, bad
	}
	k, value := c.keys[0], c.args[2]
	return func(t *tx) reply {
		var old *Record
		if s.nx || s.xx || s.get || s.keep {
			old = t.get(k)
		}
		answer := reply(ok)
		if s.get {
			if old != nil && old.Kind != KindBytes {
				return errWrongType
			}
			answer = valueOf(old)
		}
		if s.nx && old != nil || s.xx && old == nil {
			if s.get {
				return answer
			}
			return null{}
		}
		r := Record{Value: value}
		if s.keep && old != nil {
			r.Expiry = old.Expiry
		}
		if s.expiry != nil {
			at, fits := s.expiry.at(t.now())
			if !fits {
				return errExpire("set")
			}
			r.Expiry = at
		}
		t.put(k, r)
		return answer
	}, nil
}

func planSetNX(c *call) (step, reply) {
	k, value := c.keys[0], c.args[2]
	return func(t *tx) reply {
		if t.get(k) != nil {
			return integer(0)
		}
		t.put(k, Record{Value: value})
		return integer(1)
	}, nil
}

func planSetEX(unit time.Duration) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		m, bad := momentOf(c.name, c.args[2], moment{unit: unit})
		if bad != nil {
			return nil, bad
		}
		k, value, name := c.keys[0], c.args[3], c.name
		return func(t *tx) reply {
			at, fits := m.at(t.now())
			if !fits {
				return errExpire(name)
			}
			t.put(k, Record{Value: value, Expiry: at})
			return ok
		}, nil
	}
}

func planGetSet(c *call) (step, reply) {
	k, value := c.keys[0], c.args[2]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil {
			return bad
		}
		t.put(k, Record{Value: value})
		return valueOf(r)
	}, nil
}

func planGetDel(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil || r == nil {
			return or(bad, null{})
		}
		t.delete(k)
		return valueOf(r)
	}, nil
}

func planGetEX(c *call) (step, reply) {
	s, bad := settingOf(c.args[2:], true)
	if bad != nil {
		return nil, bad
	}
	late := s.resolve("getex") // a key that is not there is answered first
	k := c.keys[0]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil || r == nil {
			return or(bad, null{})
		}
		if late != nil {
			return late
		}
		switch {
		case s.persist && r.Expiry != 0:
			t.put(k, Record{Value: r.Value})
		case s.expiry != nil:
			at, fits := s.expiry.at(t.now())
			if !fits {
				return errExpire("getex")
			}
			t.put(k, Record{Value: r.Value, Expiry: at})
		}
		return valueOf(r)
	}, nil
}

// or returns a unless it is nil.
func or(a, b reply) reply {
	if a != nil {
		return a
	}
	return b
}

func planMGet(c *call) (step, reply) {
	keys := c.keys
	return func(t *tx) reply {
		all := make(array, len(keys))
		var size int64
		for i, k := range keys {
			all[i] = null{}
			if r := t.get(k); r != nil && r.Kind == KindBytes {
				if size += replyCost + int64(len(r.Value)); size > t.limits.Reply { // before the rest is read, too
					return errReplyTooLarge
				}
				all[i] = bulk(r.Value)
			}
		}
		return all
	}, nil
}

func planMSet(nx bool) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		if len(c.args)%2 == 0 {
			return nil, errArity(c.name)
		}
		keys, args := c.keys, c.args
		return func(t *tx) reply {
			if nx {
				for _, k := range keys {
					if t.get(k) != nil {
						return integer(0)
					}
				}
			}
			for i, k := range keys {
				t.put(k, Record{Value: args[2+2*i]})
			}
			if nx {
				return integer(1)
			}
			return ok
		}, nil
	}
}

func planIncr(sign int64, operand bool) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		by := sign
		if operand {
			n, valid := integerOf(c.args[2])
			if !valid {
				return nil, errNotInteger
			}
			if sign < 0 && n == -n && n != 0 { // the smallest number has no opposite
				return nil, failure("ERR decrement would overflow")
			}
			by = sign * n
		}
		k := c.keys[0]
		return func(t *tx) reply {
			r, bad := t.bytes(k)
			if bad != nil {
				return bad
			}
			next := Record{}
			var n int64
			if r != nil {
				var valid bool
				if n, valid = integerOf(r.Value); !valid {
					return errNotInteger
				}
				next.Expiry = r.Expiry
			}
			n, fits := sum(n, by)
			if !fits {
				return errOverflow
			}
			next.Value = strconv.AppendInt(nil, n, 10)
			t.put(k, next)
			return integer(n)
		}, nil
	}
}

func planAppend(c *call) (step, reply) {
	k, more := c.keys[0], c.args[2]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil {
			return bad
		}
		next := Record{Value: more}
		if r != nil {
			if len(r.Value)+len(more) > t.limits.Bulk {
				return errTooLong
			}
			next.Value = append(append(make([]byte, 0, len(r.Value)+len(more)), r.Value...), more...)
			next.Expiry = r.Expiry
		}
		t.put(k, next)
		return integer(len(next.Value))
	}, nil
}

func planStrLen(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil || r == nil {
			return or(bad, integer(0))
		}
		return integer(len(r.Value))
	}, nil
}
