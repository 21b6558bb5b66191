package resp

import (
	"math"
	"strconv"
	"time"
)

// tx is the view of a program for commands. The first error of the View sticks; then nothing is read or changed any more, and the program
// ends with it.
type tx struct {
	view   View
	limits *Limits
	err    error
}

func (t *tx) now() int64 { return t.view.Now() }

// get returns nil when there is no record.
func (t *tx) get(k Key) *Record {
	if t.err != nil {
		return nil
	}
	r, err := t.view.Get(k.File, k.Key)
	if err != nil {
		t.err = err
		return nil
	}
	return r
}

// kind returns a record if it is of that kind; else the error to answer.
func (t *tx) kind(k Key, kind byte) (*Record, reply) {
	r := t.get(k)
	if r != nil && r.Kind != kind {
		return nil, errWrongType
	}
	return r, nil
}

// bytes returns the value of a string record; nil when there is none.
func (t *tx) bytes(k Key) (*Record, reply) { return t.kind(k, KindBytes) }

// put keeps a record; one that has expired already is deleted.
func (t *tx) put(k Key, r Record) {
	switch {
	case t.err != nil:
	case r.Expiry != 0 && r.Expiry <= t.now():
		t.delete(k)
	default:
		t.err = t.view.Put(k.File, k.Key, r)
	}
}

// delete tells whether there was a record.
func (t *tx) delete(k Key) bool {
	if t.err != nil {
		return false
	}
	found, err := t.view.Delete(k.File, k.Key)
	t.err = err
	return found
}

// moment is a point in time as a command names it: relative to the program's time, or absolute.
type moment struct {
	value    int64
	unit     time.Duration
	absolute bool
}

// at resolves it; false when it lies beyond what can be told (the year 2262), or is more milliseconds than there are numbers.
func (m moment) at(now int64) (int64, bool) {
	if m.value > math.MaxInt64/int64(m.unit) || m.value < math.MinInt64/int64(m.unit/time.Millisecond) {
		return 0, false
	}
	if m.value < math.MinInt64/int64(m.unit) {
		return 1, true // longer ago than can be told
	}
	ns := m.value * int64(m.unit)
	if m.absolute {
		return max(ns, 1), true // 0 would be no expiry; long past either way
	}
	if ns > 0 && now > math.MaxInt64-ns {
		return 0, false
	}
	if ns < 0 && now < math.MinInt64-ns {
		return 1, true
	}
	return max(now+ns, 1), true
}

// integerOf parses a number as strictly as Redis does.
func integerOf(arg []byte) (int64, bool) {
	if len(arg) == 0 || len(arg) > 20 || arg[0] == '+' || len(arg) > 1 && (arg[0] == '0' || arg[0] == '-' && arg[1] == '0') {
		return 0, false
	}
	n, err := strconv.ParseInt(string(arg), 10, 64)
	return n, err == nil
}

// sum adds without overflow.
func sum(a, b int64) (int64, bool) {
	if b > 0 && a > math.MaxInt64-b || b < 0 && a < math.MinInt64-b {
		return 0, false
	}
	return a + b, true
}

// is compares an argument with an upper-case word.
func is(arg []byte, word string) bool {
	if len(arg) != len(word) {
		return false
	}
	for i := range arg {
		c := arg[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// lower returns an argument in lower case.
func lower(arg []byte) string {
	b := make([]byte, len(arg))
	for i, c := range arg {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	return string(b)
}
