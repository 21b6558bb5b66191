package store

import (
	"sync"

	"github.com/understudy-ha/understudy/journal/entry"
)

const (
	recentPlaces = 1 << 14 // over which records are spread to tell whether a batch has touched them
	recentTurn   = 256     // records that a batch passes before it lets others look
	recentCost   = 192     // bytes of a row beside key and value
	recentShare  = 64      // no row takes more than this part of all there is
)

// recent keeps records that were looked at lately, and that there was none, for all groups together and bounded in bytes. What it says is what
// the database would say at that moment:
//
//   - A batch hides the records that it changes before it lands, and shows what it made of them after. Meanwhile who wants them goes to the
//     database, and waits there. Those that it does not touch are the same before and after.
//   - What somebody has read in the database is kept only if no batch that touches the record has begun since before that look.
//
// A batch brings nothing in that nobody looked at. Records share places, so that a batch may be taken to touch more than it does, never less.
type recent struct {
	max int64

	mu    sync.Mutex
	rows  map[string]*row // by their keys in the database
	ring  row             // of all rows: next is the one looked at last, before is the one looked at longest ago
	bytes int64
	begun uint64               // batches of all groups
	last  [recentPlaces]uint64 // the last batch that touched a record of this place
}

// row is what is known of one record.
type row struct {
	key          string
	image        *entry.Image // never changed, only replaced; nil: there is no record
	hidden       bool         // a batch that changes it lands
	touched      int          // where the batch has it while it is hidden
	dropped      bool         // to make room
	next, before *row
}

func newRecent(max int64) *recent {
	c := &recent{max: max, rows: make(map[string]*row)}
	c.ring.next, c.ring.before = &c.ring, &c.ring
	return c
}

// placeOf spreads keys. It is the same in each life, so that what is read from disk is, too.
func placeOf(key []byte) int {
	h := uint32(2166136261) // FNV-1a
	for _, b := range key {
		h = (h ^ uint32(b)) * 16777619
	}
	return int((h ^ h>>16) % recentPlaces)
}

// since is the last batch whose outcome a look at the database that begins now is sure to see, and all of the group before it. Under mu.
func (c *recent) since(g *Group) uint64 {
	if g.lands != 0 {
		return g.lands - 1
	}
	return c.begun
}

// find returns what is known of a record. Under mu.
func (c *recent) find(key []byte) (*row, bool) {
	r := c.rows[string(key)]
	if r == nil || r.hidden {
		return nil, false
	}
	c.unlink(r)
	c.link(r)
	return r, true
}

// get returns a record, nil when there is none; if it is not known, what keep wants to be told.
func (c *recent) get(g *Group, key []byte) (image *entry.Image, known bool, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.find(key); ok {
		return r.image, true, 0
	}
	return nil, false, c.since(g)
}

// keep takes what was read in the database by a look that began after since. The key is copied, the image is not.
func (c *recent) keep(key []byte, since uint64, image *entry.Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last[placeOf(key)] > since || c.rows[string(key)] != nil {
		return
	}
	cost := costOf(len(key), image)
	if cost > c.max/recentShare {
		return
	}
	r := &row{key: string(key), image: image}
	c.rows[r.key] = r
	c.link(r)
	c.bytes += cost
	c.fit()
}

// touched are the records that a batch changes.
type touched struct {
	keys []byte
	ends []int // of the keys, in the order of the changes
	rows []touchedRow
}

type touchedRow struct {
	row    *row
	change int          // the last one of the record
	image  *entry.Image // what that makes of it
}

func (t *touched) add(key []byte) {
	t.keys = append(t.keys, key...)
	t.ends = append(t.ends, len(t.keys))
}

// hide takes what a batch of the group will change out of sight. The next one comes after show.
func (c *recent) hide(g *Group, t *touched, changes []Change) {
	for i, from := 0, 0; i < len(t.ends) || i == 0; i += recentTurn {
		from = c.hideSome(g, t, i, from)
	}
	t.make(changes)
}

// make says what the changes make of the records that are hidden.
func (t *touched) make(changes []Change) {
	for i := range t.rows {
		if put := changes[t.rows[i].change].Put; put != nil {
			image := *put
			image.Value = cloneValue(put.Value)
			t.rows[i].image = &image
		}
	}
}

// hideSome hides one turn, from the change i on, whose key begins at from. It returns where the next one's begins.
func (c *recent) hideSome(g *Group, t *touched, i, from int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i == 0 {
		c.begun++
		g.lands = c.begun
	}
	for k := i; k < min(i+recentTurn, len(t.ends)); k++ {
		key := t.keys[from:t.ends[k]]
		from = t.ends[k]
		last := &c.last[placeOf(key)]
		*last = max(*last, g.lands) // a batch of another group that shares the place may have begun since the first turn
		switch r := c.rows[string(key)]; {
		case r == nil:
		case r.hidden: // by this batch: what it makes of the record in between nobody sees
			t.rows[r.touched].change = k
		default:
			r.hidden, r.touched = true, len(t.rows)
			t.rows = append(t.rows, touchedRow{row: r, change: k})
		}
	}
	return from
}

// show tells what the batch that has landed made of the records.
func (c *recent) show(g *Group, t *touched) {
	for i := 0; i < len(t.rows) || i == 0; i += recentTurn {
		c.showSome(g, t, i)
	}
}

// showSome shows one turn, from the row i on.
func (c *recent) showSome(g *Group, t *touched, i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := i; k < min(i+recentTurn, len(t.rows)); k++ {
		c.replace(t.rows[k].row, t.rows[k].image)
	}
	if i+recentTurn >= len(t.rows) {
		c.fit()
		g.lands = 0
	}
}

// replace shows a record as it is now. Under mu.
func (c *recent) replace(r *row, image *entry.Image) {
	if r.dropped {
		return
	}
	c.bytes += costOf(len(r.key), image) - costOf(len(r.key), r.image)
	r.image, r.hidden = image, false
	if costOf(len(r.key), image) > c.max/recentShare {
		c.drop(r)
	}
}

// fit makes room. Under mu.
func (c *recent) fit() {
	for c.bytes > c.max && c.ring.before != &c.ring {
		c.drop(c.ring.before)
	}
}

func (c *recent) drop(r *row) {
	c.unlink(r)
	delete(c.rows, r.key)
	c.bytes -= costOf(len(r.key), r.image)
	r.dropped = true
}

func (c *recent) link(r *row) {
	r.next, r.before = c.ring.next, &c.ring
	r.next.before, c.ring.next = r, r
}

func (c *recent) unlink(r *row) { r.before.next, r.next.before = r.next, r.before }

func costOf(key int, image *entry.Image) int64 {
	n := int64(key) + recentCost
	if image != nil {
		n += int64(len(image.Value))
	}
	return n
}

// cloneValue copies a value with nothing behind it: who appends to what was given out has to copy.
func cloneValue(v []byte) []byte {
	out := make([]byte, len(v))
	copy(out, v)
	return out
}
