package replica

import (
	"hash/maphash"

	"github.com/understudy-ha/understudy/internal/ident"
)

// graves remembers where records were deleted since the session began, so that one that was made and deleted again can be told from one
// that never was. It takes a fixed amount of memory: records share places, so it may say that a record was deleted later than it was, never
// earlier. A record's own place in the store is gone with it. It belongs to the sequencer.
type graves struct {
	seed  maphash.Seed
	floor ident.History // what was deleted up to here is not known
	last  [graveCount]ident.History
}

const graveCount = 4096

func newGraves(begin ident.History) *graves { return &graves{seed: maphash.MakeSeed(), floor: begin} }

func (g *graves) place(k recordKey) *ident.History {
	return &g.last[maphash.Comparable(g.seed, k)%graveCount]
}

// dig notes a deletion. One that is taken back stays noted.
func (g *graves) dig(k recordKey, at ident.History) {
	p := g.place(k)
	*p = max(*p, at)
}

// since returns a position after which the record was surely not deleted.
func (g *graves) since(k recordKey) ident.History { return max(g.floor, *g.place(k)) }
