package resp

import (
	"math/big"
	"strconv"
)

// hashCommands are the commands of hashes.
func hashCommands() []command {
	const family = "hash"
	one := func(name string, arity int, f flags, since, summary string, plan func(*call) (step, reply)) command {
		return command{name: name, arity: arity, flags: f, first: 1, last: 1, step: 1, family: family, since: since, summary: summary, plan: plan}
	}
	return []command{
		one("hset", -4, writes|bigger|fast, "2.0.0", "Creates or modifies the value of a field in a hash.", planHSet(false)),
		one("hmset", -4, writes|bigger|fast, "2.0.0", "Sets the values of multiple fields.", planHSet(true)),
		one("hsetnx", 4, writes|bigger|fast, "2.0.0", "Sets the value of a field in a hash only when the field doesn't exist.", planHSetNX),
		one("hget", 3, reads|fast, "2.0.0", "Returns the value of a field in a hash.", planHGet),
		one("hmget", -3, reads|fast, "2.0.0", "Returns the values of all fields in a hash.", planHMGet),
		one("hdel", -3, writes|fast, "2.0.0", "Deletes one or more fields and their values from a hash.", planHDel),
		one("hgetall", 2, reads, "2.0.0", "Returns all fields and values in a hash.", planHGetAll(true, true)),
		one("hkeys", 2, reads, "2.0.0", "Returns all fields in a hash.", planHGetAll(true, false)),
		one("hvals", 2, reads, "2.0.0", "Returns all values in a hash.", planHGetAll(false, true)),
		one("hexists", 3, reads|fast, "2.0.0", "Determines whether a field exists in a hash.", planHExists),
		one("hlen", 2, reads|fast, "2.0.0", "Returns the number of fields in a hash.", planHLen),
		one("hstrlen", 3, reads|fast, "3.2.0", "Returns the length of the value of a field.", planHStrLen),
		one("hincrby", 4, writes|bigger|fast, "2.0.0", "Increments the integer value of a field in a hash by a number.", planHIncr),
		one("hincrbyfloat", 4, writes|bigger|fast, "2.6.0", "Increments the floating point value of a field by a number.", planHIncrFloat),
		one("hscan", -3, reads, "2.8.0", "Iterates over fields and values of a hash.", planHScan),
	}
}

// hash returns the fields of a record; none when there is no record.
func (t *tx) hash(k Key) (hash, *Record, reply) {
	r, bad := t.kind(k, KindHash)
	if bad != nil || r == nil {
		return nil, nil, bad
	}
	h, err := decodeHash(r.Value)
	if err != nil && t.err == nil {
		t.err = err
	}
	return h, r, nil
}

// putHash keeps the fields with the expiry of the record that was read; without fields there is no record.
func (t *tx) putHash(k Key, h hash, old *Record) reply {
	if len(h) == 0 {
		t.delete(k)
		return nil
	}
	if h.size() > t.limits.Hash {
		return errHashTooLarge
	}
	r := Record{Value: h.encode(), Kind: KindHash}
	if old != nil {
		r.Expiry = old.Expiry
	}
	t.put(k, r)
	return nil
}

func planHSet(quiet bool) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		if len(c.args)%2 != 0 {
			return nil, errArity(c.name)
		}
		var fields hash
		for i := 2; i < len(c.args); i += 2 {
			fields = append(fields, field{c.args[i], c.args[i+1]})
		}
		k := c.keys[0]
		return func(t *tx) reply {
			h, old, bad := t.hash(k)
			if bad != nil {
				return bad
			}
			h, added := h.merge(fields)
			if bad := t.putHash(k, h, old); bad != nil {
				return bad
			}
			if quiet {
				return ok
			}
			return integer(added)
		}, nil
	}
}

func planHSetNX(c *call) (step, reply) {
	k, name, value := c.keys[0], c.args[2], c.args[3]
	return func(t *tx) reply {
		h, old, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		if _, found := h.find(name); found {
			return integer(0)
		}
		h, _ = h.merge(hash{{name, value}})
		return or(t.putHash(k, h, old), integer(1))
	}, nil
}

func planHGet(c *call) (step, reply) {
	k, name := c.keys[0], c.args[2]
	return func(t *tx) reply {
		h, _, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		if v, found := h.get(name); found {
			return bulk(v)
		}
		return null{}
	}, nil
}

func planHMGet(c *call) (step, reply) {
	k, names := c.keys[0], c.args[2:]
	return func(t *tx) reply {
		h, _, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		all := make(array, len(names))
		for i, name := range names {
			all[i] = null{}
			if v, found := h.get(name); found {
				all[i] = bulk(v)
			}
		}
		return all
	}, nil
}

func planHDel(c *call) (step, reply) {
	k, names := c.keys[0], c.args[2:]
	return func(t *tx) reply {
		h, old, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		left, gone := h.without(names)
		if gone == 0 {
			return integer(0)
		}
		return or(t.putHash(k, left, old), integer(gone))
	}, nil
}

func planHGetAll(names, values bool) func(*call) (step, reply) {
	return func(c *call) (step, reply) {
		k := c.keys[0]
		return func(t *tx) reply {
			h, _, bad := t.hash(k)
			if bad != nil {
				return bad
			}
			all := make([]reply, 0, 2*len(h))
			for _, f := range h {
				if names {
					all = append(all, bulk(f.name))
				}
				if values {
					all = append(all, bulk(f.value))
				}
			}
			if names && values {
				return pairs(all)
			}
			return array(all)
		}, nil
	}
}

func planHExists(c *call) (step, reply) {
	k, name := c.keys[0], c.args[2]
	return func(t *tx) reply {
		h, _, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		if _, found := h.find(name); found {
			return integer(1)
		}
		return integer(0)
	}, nil
}

func planHLen(c *call) (step, reply) {
	k := c.keys[0]
	return func(t *tx) reply {
		h, _, bad := t.hash(k)
		return or(bad, integer(len(h)))
	}, nil
}

func planHStrLen(c *call) (step, reply) {
	k, name := c.keys[0], c.args[2]
	return func(t *tx) reply {
		h, _, bad := t.hash(k)
		v, _ := h.get(name)
		return or(bad, integer(len(v)))
	}, nil
}

func planHIncr(c *call) (step, reply) {
	by, valid := integerOf(c.args[3])
	if !valid {
		return nil, errNotInteger
	}
	k, name := c.keys[0], c.args[2]
	return func(t *tx) reply {
		h, old, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		var n int64
		if v, found := h.get(name); found {
			var valid bool
			if n, valid = integerOf(v); !valid {
				return errHashInteger
			}
		}
		n, fits := sum(n, by)
		if !fits {
			return errOverflow
		}
		h, _ = h.merge(hash{{name, strconv.AppendInt(nil, n, 10)}})
		return or(t.putHash(k, h, old), integer(n))
	}, nil
}

func planHIncrFloat(c *call) (step, reply) {
	by, valid := floatOf(c.args[3])
	switch {
	case !valid:
		return nil, errNotFloat
	case by.IsInf():
		return nil, errInfinite
	}
	k, name := c.keys[0], c.args[2]
	return func(t *tx) reply {
		h, old, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		n := new(big.Float)
		if v, found := h.get(name); found {
			var valid bool
			if n, valid = floatOf(v); !valid {
				return errHashFloat
			}
		}
		value, fits := added(n, by)
		if !fits {
			return errNaN
		}
		h, _ = h.merge(hash{{name, value}})
		return or(t.putHash(k, h, old), bulk(value))
	}, nil
}

// planHScan answers with all fields at once, as Redis does for small hashes: a hash is one record and is read whole anyway.
func planHScan(c *call) (step, reply) {
	if _, valid := cursorOf(c.args[2]); !valid {
		return nil, errCursor
	}
	o, late := scanOptionsOf(c.args[3:], true)
	k := c.keys[0]
	return func(t *tx) reply {
		h, r, bad := t.hash(k)
		if bad != nil {
			return bad
		}
		if r != nil && late != nil { // a key that is not there is answered first
			return late
		}
		all := array{}
		for _, f := range h {
			if o.match != nil && !matches(o.match, f.name) {
				continue
			}
			if all = append(all, bulk(f.name)); !o.noValues {
				all = append(all, bulk(f.value))
			}
		}
		return array{text("0"), all}
	}, nil
}
