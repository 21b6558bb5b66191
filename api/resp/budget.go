package resp

import "sync/atomic"

// budget bounds what all connections have in memory together. It refuses rather than waits: the connection that waits would hold what
// others need.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reserves n; false when there is not as much left.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// give returns what was taken.
func (b *budget) give(n int64) { b.used.Add(-n) }
