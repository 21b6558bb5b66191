package api

import (
	"fmt"
	"sync/atomic"

	"github.com/understudy-ha/understudy/client"
)

// budget bounds the bytes of all bodies in memory. It refuses rather than waits: the connection that waits would hold what
// others need.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reserves n bytes until release is called.
func (b *budget) take(n int64) (release func(), err error) {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return nil, &client.Error{Code: client.CodeUnavailable, Detail: "too many large requests at once",
			Reason: fmt.Sprintf("their bodies may take %d bytes together", b.limit)}
	}
	return func() { b.used.Add(-n) }, nil
}
