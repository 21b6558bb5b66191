package resp

import (
	"math"
	"time"
)

// keyCommands are the commands of records of any kind.
func keyCommands() []command {
	const family = "generic"
	return []command{
		{name: "del", arity: -2, flags: writes, first: 1, last: -1, step: 1, family: family, since: "1.0.0", summary: "Deletes one or more keys.", plan: planDel},
		{name: "unlink", arity: -2, flags: writes | fast, first: 1, last: -1, step: 1, family: family, since: "4.0.0", summary: "Deletes one or more keys.", plan: planDel},
		{name: "exists", arity: -2, flags: reads | fast, first: 1, last: -1, step: 1, family: family, since: "1.0.0", summary: "Determines whether one or more keys exist.", plan: planExists},
		{name: "touch", arity: -2, flags: reads | fast, first: 1, last: -1, step: 1, family: family, since: "3.2.1", summary: "Returns the number of existing keys out of those specified.", plan: planExists},
		{name: "type", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Determines the type of value stored at a key.", plan: planType},
		{name: "expire", arity: -3, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Sets the expiration time of a key in seconds.", plan: planExpire(moment{unit: time.Second})},
		{name: "pexpire", arity: -3, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "2.6.0", summary: "Sets the expiration time of a key in milliseconds.", plan: planExpire(moment{unit: time.Millisecond})},
		{name: "expireat", arity: -3, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "1.2.0", summary: "Sets the expiration time of a key to a Unix timestamp.", plan: planExpire(moment{unit: time.Second, absolute: true})},
		{name: "pexpireat", arity: -3, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "2.6.0", summary: "Sets the expiration time of a key to a Unix milliseconds timestamp.", plan: planExpire(moment{unit: time.Millisecond, absolute: true})},
		{name: "ttl", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "1.0.0", summary: "Returns the expiration time in seconds of a key.", plan: planTTL(time.Second, false)},
		{name: "pttl", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "2.6.0", summary: "Returns the expiration time in milliseconds of a key.", plan: planTTL(time.Millisecond, false)},
		{name: "expiretime", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "7.0.0", summary: "Returns the expiration time of a key as a Unix timestamp.", plan: planTTL(time.Second, true)},
		{name: "pexpiretime", arity: 2, flags: reads | fast, first: 1, last: 1, step: 1, family: family, since: "7.0.0", summary: "Returns the expiration time of a key as a Unix milliseconds timestamp.", plan: planTTL(time.Millisecond, true)},
		{name: "persist", arity: 2, flags: writes | fast, first: 1, last: 1, step: 1, family: family, since: "2.2.0", summary: "Removes the expiration time of a key.", plan: planPersist},
		{name: "keys", arity: 2, flags: reads | noMulti, family: family, since: "1.0.0", summary: "Returns all key names that match a pattern, if there are not too many.", own: ownKeys},
		{name: "scan", arity: -2, flags: reads | noMulti, family: family, since: "2.8.0", summary: "Iterates over the key names in the database.", own: ownScan},
		{name: "dbsize", arity: 1, flags: reads | fast | noMulti, family: "server", since: "1.0.0", summary: "Returns the number of keys in the database.", own: ownDBSize},
	}
}

func planDel(c *call) (step, reply) {
	keys := c.keys
	return func(t *tx) reply {
		n := integer(0)
		for _, k := range keys {
			if t.delete(k) {
				n++
			}
		}
		return n
	}, nil
}

func planExists(c *call) (step, reply) {
	keys := c.keys
	return func(t *tx) reply {
		n := integer(0)
		for _, k := range keys {
			if t.get(k) != nil {
				n++
			}
		}
		return n
	}, nil
}

// typeOf names a kind as Redis does.
func typeOf(kind byte) string {
	switch kind {
	case KindBytes:
		return "string"
	case KindHash:
		return "hash"
	}
	return "unknown"
}

func planType(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		r := t.get(k)
		if r == nil {
			return simple("none")
		}
		return simple(typeOf(r.Kind))
	}, nil
}

// planExpire sets the time that m describes, without its value.
func planExpire(m moment) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		var nx, xx, gt, lt bool
		for _, a := range c.args[3:] {
			switch {
			case is(a, "NX"):
				nx = true
			case is(a, "XX"):
				xx = true
			case is(a, "GT"):
				gt = true
			case is(a, "LT"):
				lt = true
			default:
				return nil, failure("ERR Unsupported option " + string(quoted(a, 64)))
			}
		}
		switch {
		case nx && (xx || gt || lt):
			return nil, failure("ERR NX and XX, GT or LT options at the same time are not compatible")
		case gt && lt:
			return nil, failure("ERR GT and LT options at the same time are not compatible")
		}
		n, valid := integerOf(c.args[2])
		if !valid {
			return nil, errNotInteger
		}
		m := m
		m.value = n
		if _, fits := m.at(0); !fits {
			return nil, errExpire(c.name)
		}
		k, name := c.keys[0], c.name
		return func(t *tx) reply {
			r := t.get(k)
			if r == nil {
				return integer(0)
			}
			at, fits := m.at(t.now())
			if !fits {
				return errExpire(name)
			}
			had := r.Expiry
			if had == 0 {
				had = math.MaxInt64 // no expiry is later than any
			}
			if nx && r.Expiry != 0 || xx && r.Expiry == 0 || gt && at <= had || lt && at >= had {
				return integer(0)
			}
			t.put(k, Record{Value: r.Value, Kind: r.Kind, Expiry: at})
			return integer(1)
		}, nil
	}
}

// planTTL tells the time left, or the time itself when absolute.
func planTTL(unit time.Duration, absolute bool) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		k := c.keys[0]
		return func(t *tx) reply {
			r := t.get(k)
			switch {
			case r == nil:
				return integer(-2)
			case r.Expiry == 0:
				return integer(-1)
			case absolute:
				return integer((r.Expiry + int64(unit)/2) / int64(unit))
			}
			return integer((max(r.Expiry-t.now(), 0) + int64(unit)/2) / int64(unit)) // rounded, as Redis does
		}, nil
	}
}

func planPersist(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		r := t.get(k)
		if r == nil || r.Expiry == 0 {
			return integer(0)
		}
		t.put(k, Record{Value: r.Value, Kind: r.Kind})
		return integer(1)
	}, nil
}
