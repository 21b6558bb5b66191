package resp

import (
	"math/big"
	"strconv"
	"strings"
)

// Numbers as Redis calculates with them on most machines: an extended double, with a mantissa of 64 bits and an exponent of 15.
const (
	floatBits     = 64
	floatExponent = 16384
	floatText     = 5 << 10
	floatDigits   = 5000 // of the exponent of ten as it is written; what lies beyond is refused before anything is calculated
)

// floatOf parses a number; infinities are numbers, too, and what is too small or too large is none.
func floatOf(arg []byte) (*big.Float, bool) {
	if len(arg) == 0 || len(arg) >= floatText {
		return nil, false
	}
	s := strings.ToLower(string(arg))
	unsigned := strings.TrimLeft(s[:1], "+-") + s[1:]
	if unsigned == "inf" || unsigned == "infinity" {
		return new(big.Float).SetInf(s[0] == '-'), true
	}
	base, e := 10, "e"
	if strings.HasPrefix(unsigned, "0x") {
		base, e = 0, "p"
	}
	if i := strings.Index(s, e); i >= 0 {
		if n, err := strconv.Atoi(s[i+1:]); err != nil || n > floatDigits || n < -floatDigits {
			return nil, false
		}
	}
	for i, c := range unsigned {
		if (c < '0' || c > '9') && !strings.ContainsRune("+-.e", c) && (base == 10 || !strings.ContainsRune("abcdfp", c) && i != 1) {
			return nil, false
		}
	}
	f, _, err := big.ParseFloat(s, base, floatBits, big.ToNearestEven)
	if err != nil || f.IsInf() || f.MantExp(nil) > floatExponent || f.MantExp(nil) < -floatExponent {
		return nil, false
	}
	return f, true
}

// added returns a+b as text; false when that is no number.
func added(a, b *big.Float) ([]byte, bool) {
	if a.IsInf() || b.IsInf() {
		return nil, false
	}
	f := new(big.Float).SetPrec(floatBits).Add(a, b)
	if f.MantExp(nil) > floatExponent {
		return nil, false
	}
	s := f.Text('f', 17)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" || s == "" || s == "-" {
		s = "0"
	}
	return []byte(s), true
}

func planIncrFloat(c *call) (step, reply) {
	by, valid := floatOf(c.args[2])
	k := c.keys[0]
	return func(t *tx) reply {
		r, bad := t.bytes(k)
		if bad != nil {
			return bad
		}
		n, next := new(big.Float), Record{}
		if r != nil {
			var number bool
			if n, number = floatOf(r.Value); !number {
				return errNotFloat
			}
			next.Expiry = r.Expiry
		}
		if !valid {
			return errNotFloat
		}
		value, fits := added(n, by)
		if !fits {
			return errNaN
		}
		next.Value = value
		t.put(k, next)
		return bulk(value)
	}, nil
}
