package simulation

import (
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
)

// traceLength is how many lines a failing run shows.
const traceLength = 120

// trace takes in what happens: a hash over all of it, and the last lines.
type trace struct {
	hash  uint64
	lines [traceLength]line
	n     uint64
}

// line is kept raw: it becomes text only when a run fails.
type line struct {
	at      int64
	what    string
	who     string
	a, b, c uint64
}

func mix(h uint64, v uint64) uint64 {
	h ^= v
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func mixString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// note adds a line.
func (w *world) note(what string, who ident.NodeID, a, b, c uint64) {
	w.write(what, string(who), a, b, c)
}

func (w *world) write(what, who string, a, b, c uint64) {
	t := &w.trace
	h := mix(t.hash, uint64(w.now))
	h = mixString(mixString(h, what), who)
	t.hash = mix(mix(mix(h, a), b), c)
	l := line{int64(w.now), what, who, a, b, c}
	t.lines[t.n%traceLength] = l
	t.n++
}

// note adds a line about one copy: it names the node and the group.
func (c *copied) note(what string, x, y, z uint64) { c.n.w.write(what, c.who, x, y, z) }

// noteAt is note with a history position.
func (c *copied) noteAt(what string, p ident.Position, x uint64) {
	c.note(what, uint64(p.Epoch), uint64(p.History), x)
}

func (l line) String() string {
	return fmt.Sprintf("%9.3f ms  %-3s  %-18s %d %d %d", float64(l.at)/1e6, l.who, l.what, l.a, l.b, l.c)
}

func (t *trace) tail() []string {
	var out []string
	for i := t.n - min(t.n, traceLength); i < t.n; i++ {
		out = append(out, t.lines[i%traceLength].String())
	}
	return out
}
