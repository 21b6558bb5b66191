package node

import (
	"context"
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
)

// recordCounts remembers how many records a group had, and where its store stood then: at the same position there are as many. So whoever
// asks again of a group that rests has the answer at once, and several who ask at the same time count once.
type recordCounts struct {
	mu sync.Mutex
	by map[ident.GroupName]*recordCount
}

// counted is a node's copy of a group.
type counted interface {
	Position() ident.Position
	Count(ctx context.Context) (int64, error)
}

type recordCount struct {
	turn chan struct{} // holds a token while somebody counts
	copy counted       // whose count n is; nil: none is known
	at   ident.Position
	n    int64
}

func (c *recordCounts) of(group ident.GroupName) *recordCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[ident.GroupName]*recordCount{}
	}
	if c.by[group] == nil {
		c.by[group] = &recordCount{turn: make(chan struct{}, 1)}
	}
	return c.by[group]
}

// count returns the number of records of users' files in this node's copy.
func (c *recordCounts) count(ctx context.Context, group ident.GroupName, rep counted) (int64, error) {
	one := c.of(group)
	select {
	case one.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { <-one.turn }()
	before := rep.Position()
	if one.copy == rep && one.at == before && !before.IsZero() {
		return one.n, nil
	}
	n, err := rep.Count(ctx)
	if err != nil {
		return 0, err
	}
	one.copy = nil
	if before == rep.Position() { // else the count may lie anywhere between the two
		one.copy, one.at, one.n = rep, before, n
	}
	return n, nil
}
