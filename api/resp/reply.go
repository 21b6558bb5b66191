package resp

import (
	"math"
	"strconv"
	"strings"
)

// reply is what a command answers. It is rendered on the connection's own goroutine, in the protocol that the client has chosen.
type reply interface {
	// render appends the reply in RESP2 or RESP3.
	render(b []byte, proto int) []byte
	// weight is about how many bytes it takes.
	weight() int64
}

type (
	simple   string   // +OK
	failure  string   // -ERR …, without the sign
	integer  int64    // :1
	bulk     []byte   // $2; never null
	null     struct{} // no value
	nothing  struct{} // no array: what EXEC answers when it was not done
	array    []reply
	pairs    []reply // a map: key, value, key, value; flat in RESP2
	set      []reply
	push     []reply // out of band; an array in RESP2
	double   float64
	boolean  bool
	verbatim string // text for people
	silence  struct{}
)

const ok = simple("OK")

func (r simple) render(b []byte, _ int) []byte  { return line(b, '+', string(r)) }
func (r failure) render(b []byte, _ int) []byte { return line(b, '-', string(r)) }
func (r integer) render(b []byte, _ int) []byte { return header(b, ':', int64(r)) }
func (r silence) render(b []byte, _ int) []byte { return b }
func (r array) render(b []byte, proto int) []byte {
	return each(header(b, '*', int64(len(r))), r, proto)
}

func (r bulk) render(b []byte, _ int) []byte {
	b = append(header(b, '$', int64(len(r))), r...)
	return append(b, '\r', '\n')
}

func (r null) render(b []byte, proto int) []byte {
	if proto == 3 {
		return append(b, "_\r\n"...)
	}
	return append(b, "$-1\r\n"...)
}

func (r nothing) render(b []byte, proto int) []byte {
	if proto == 3 {
		return append(b, "_\r\n"...)
	}
	return append(b, "*-1\r\n"...)
}

func (r pairs) render(b []byte, proto int) []byte {
	if proto == 3 {
		return each(header(b, '%', int64(len(r)/2)), r, proto)
	}
	return array(r).render(b, proto)
}

func (r set) render(b []byte, proto int) []byte {
	if proto == 3 {
		return each(header(b, '~', int64(len(r))), r, proto)
	}
	return array(r).render(b, proto)
}

func (r push) render(b []byte, proto int) []byte {
	if proto == 3 {
		return each(header(b, '>', int64(len(r))), r, proto)
	}
	return array(r).render(b, proto)
}

func (r double) render(b []byte, proto int) []byte {
	text := strconv.FormatFloat(float64(r), 'g', 17, 64)
	if math.IsInf(float64(r), 0) {
		text = strings.ToLower(strings.TrimPrefix(text, "+"))
	}
	if proto == 3 {
		return line(b, ',', text)
	}
	return bulk(text).render(b, proto)
}

func (r boolean) render(b []byte, proto int) []byte {
	switch {
	case proto != 3 && bool(r):
		return append(b, ":1\r\n"...)
	case proto != 3:
		return append(b, ":0\r\n"...)
	case bool(r):
		return append(b, "#t\r\n"...)
	}
	return append(b, "#f\r\n"...)
}

func (r verbatim) render(b []byte, proto int) []byte {
	if proto != 3 {
		return bulk(r).render(b, proto)
	}
	b = append(header(b, '=', int64(len(r)+4)), "txt:"...)
	return append(append(b, r...), '\r', '\n')
}

const replyCost = 40 // bytes of a reply beside its own

func (r simple) weight() int64   { return replyCost + int64(len(r)) }
func (r failure) weight() int64  { return replyCost + int64(len(r)) }
func (r integer) weight() int64  { return replyCost }
func (r bulk) weight() int64     { return replyCost + int64(len(r)) }
func (r null) weight() int64     { return replyCost }
func (r nothing) weight() int64  { return replyCost }
func (r array) weight() int64    { return weigh(r) }
func (r pairs) weight() int64    { return weigh(r) }
func (r set) weight() int64      { return weigh(r) }
func (r push) weight() int64     { return weigh(r) }
func (r double) weight() int64   { return replyCost }
func (r boolean) weight() int64  { return replyCost }
func (r verbatim) weight() int64 { return replyCost + int64(len(r)) }
func (r silence) weight() int64  { return 0 }

func weigh(all []reply) int64 {
	n := int64(replyCost)
	for _, r := range all {
		n += r.weight()
	}
	return n
}

func each(b []byte, all []reply, proto int) []byte {
	for _, r := range all {
		b = r.render(b, proto)
	}
	return b
}

func header(b []byte, sign byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, sign), n, 10), '\r', '\n')
}

// line appends text that must not contain line ends.
func line(b []byte, sign byte, text string) []byte {
	b = append(b, sign)
	if strings.ContainsAny(text, "\r\n") {
		text = strings.NewReplacer("\r", " ", "\n", " ").Replace(text)
	}
	return append(append(b, text...), '\r', '\n')
}

// text is a string as a bulk.
func text(s string) bulk { return bulk(s) }

// texts is a list of strings.
func texts[T ~string | ~[]byte](all ...T) array {
	a := make(array, len(all))
	for i, s := range all {
		a[i] = bulk(s)
	}
	return a
}

// wire appends a command as clients send it.
func wire(b []byte, args ...[]byte) []byte {
	b = header(b, '*', int64(len(args)))
	for _, a := range args {
		b = bulk(a).render(b, 2)
	}
	return b
}
