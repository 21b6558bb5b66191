package store

import (
	"fmt"
	"testing"

	"github.com/understudy-ha/understudy/journal/entry"
)

// turned is a batch of n changes of the keys, one after the other, and what memory keeps of all of them before it.
func turned(t *testing.T, max int64, n int, keys ...string) (c *recent, g *Group, b *touched, changes []Change) {
	t.Helper()
	g = newGroup(open(t, Options{}), "g")
	c, b = newRecent(max), &touched{}
	for _, key := range keys {
		c.keep([]byte(key), c.begun, &entry.Image{Value: []byte("old")})
	}
	for i := range n {
		b.add([]byte(keys[i%len(keys)]))
		changes = append(changes, Change{Put: &entry.Image{Value: fmt.Append(nil, i)}})
	}
	return c, g, b, changes
}

func valueOf(c *recent, g *Group, key string) string {
	image, known, _ := c.get(g, []byte(key))
	switch {
	case !known:
		return "unknown"
	case image == nil:
		return "none"
	}
	return string(image.Value)
}

// A batch that changes a record so often that it takes more than one turn shows what it makes of it at last, and nothing in between.
func TestRecentShowsTheLastChangeOnly(t *testing.T) {
	const n = 2*recentTurn + 1
	c, g, b, changes := turned(t, 1<<20, n, "k")
	c.hide(g, b, changes)
	if len(b.rows) != 1 {
		t.Errorf("%d rows are to be shown, want one", len(b.rows))
	}
	last := fmt.Sprint(n - 1)
	for i := 0; i < len(b.rows); i += recentTurn {
		c.showSome(g, b, i)
		if got := valueOf(c, g, "k"); got != last && got != "unknown" {
			t.Errorf("shown in between: %s", got)
		}
	}
	if got := valueOf(c, g, "k"); got != last {
		t.Errorf("shown at last: %s, want %s", got, last)
	}
}

// A batch ends with its last turn, also when that is a whole one: looks that begin then are kept, and there is room again.
func TestRecentEndsWithTheLastTurn(t *testing.T) {
	for _, n := range []int{1, recentTurn - 1, recentTurn, recentTurn + 1, 2 * recentTurn} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("%04d", i))
		}
		most := int64(n)*(4+recentCost+3) + recentShare*(4+recentCost+3) // as all of them are before
		c, g, b, changes := turned(t, most, n, keys...)
		for i := range changes {
			changes[i].Put.Value = make([]byte, 100)
		}
		c.hide(g, b, changes)
		if len(b.rows) != n {
			t.Fatalf("%d of %d records are known", len(b.rows), n)
		}
		c.show(g, b)
		if g.lands != 0 || c.bytes > c.max {
			t.Errorf("%d records: batch %d lands still; %d bytes, room for %d", n, g.lands, c.bytes, c.max)
		}
	}
}

// What was looked at last stays; a look at what is known counts.
func TestRecentKeepsWhatIsLookedAt(t *testing.T) {
	c, g, _, _ := turned(t, 1<<20, 0, "a", "b", "c")
	valueOf(c, g, "a")
	c.max = c.bytes - 1
	c.mu.Lock()
	c.fit()
	c.mu.Unlock()
	if a, b := valueOf(c, g, "a"), valueOf(c, g, "b"); a != "old" || b != "unknown" {
		t.Errorf("a: %s, b: %s", a, b)
	}
}

// What a batch was made of belongs to who made it: memory has its own.
func TestRecentCopiesValues(t *testing.T) {
	c, g, b, changes := turned(t, 1<<20, 1, "k")
	c.hide(g, b, changes)
	changes[0].Put.Value[0] = 'x'
	changes[0].Put.Time = 9
	if c.show(g, b); valueOf(c, g, "k") != "0" {
		t.Errorf("it is %q now", valueOf(c, g, "k"))
	}
}
