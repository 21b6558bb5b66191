package journal

import (
	"sort"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// ring keeps the newest bundles in memory: all that is not on disk yet, and older ones up to a limit in bytes.
type ring struct {
	limit int64
	bytes int64
	items []ringItem // items[head:] are held, in the order of their sequences, without gaps
	head  int
}

type ringItem struct {
	bundle   entry.Bundle
	receiver ident.ReceiverNumber
}

func (g *ring) push(i ringItem) {
	g.items = append(g.items, i)
	g.bytes += int64(len(i.bundle.Raw))
}

// trim drops the oldest bundles above the limit, as far as they are durable.
func (g *ring) trim(durable ident.Sequence) {
	for g.bytes > g.limit && g.head < len(g.items) && g.items[g.head].bundle.Last() <= durable {
		g.bytes -= int64(len(g.items[g.head].bundle.Raw))
		g.items[g.head] = ringItem{}
		g.head++
	}
	if g.head > 64 && g.head > len(g.items)/2 {
		n := copy(g.items, g.items[g.head:])
		clear(g.items[n:])
		g.items, g.head = g.items[:n], 0
	}
}

// cut drops what lies after last.
func (g *ring) cut(last ident.Sequence) {
	n := len(g.items)
	for n > g.head && g.items[n-1].bundle.Last() > last {
		n--
		g.bytes -= int64(len(g.items[n].bundle.Raw))
		g.items[n] = ringItem{}
	}
	g.items = g.items[:n]
}

// find returns the item that contains seq.
func (g *ring) find(seq ident.Sequence) (ringItem, bool) {
	held := g.items[g.head:]
	if len(held) == 0 || seq < held[0].bundle.First {
		return ringItem{}, false
	}
	i := sort.Search(len(held), func(i int) bool { return held[i].bundle.Last() >= seq })
	if i == len(held) {
		return ringItem{}, false
	}
	return held[i], true
}
