package faultlab

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/understudy-ha/understudy/cmd/internal/oracle"
	"github.com/understudy-ha/understudy/cmd/internal/redisload"
)

// startRedis starts Redis clients beside the workload, which are heard in the same history. They connect to any node that answers, past
// the lab's network; what nodes relay to each other goes through it.
func (l *Lab) startRedis(r *oracle.Recorder, seed uint64) *redisload.Load {
	return redisload.Start(redisload.Options{
		Recorder: r, Seed: seed, Clients: 4, Spaces: 2, Pace: 2 * pace, Patience: 12 * time.Second, // a node waits for a primary for 10 s
		Dial: func(ctx context.Context, r *rand.Rand) (net.Conn, string, error) {
			n := l.nodes[l.names[r.IntN(len(l.names))]]
			for range 20 {
				if n.Answers() || n.Running() && r.IntN(unlikely) == 0 {
					break
				}
				n = l.nodes[l.names[r.IntN(len(l.names))]]
			}
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", n.place.listen[Redis])
			return conn, n.Name, err
		},
	})
}
