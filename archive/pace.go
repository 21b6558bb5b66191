package archive

import (
	"context"
	"io"
	"sync"
	"time"
)

// pace limits how many bytes pass per second, over all who read at the same time.
type pace struct {
	rate  int64
	sleep func(context.Context, int64)

	mu   sync.Mutex
	debt time.Duration // how long what passed should have taken, since then
	then time.Time
}

func newPace(o Options) *pace {
	p := &pace{rate: o.Rate, sleep: o.Sleep}
	if p.sleep == nil {
		p.sleep = func(ctx context.Context, ns int64) {
			t := time.NewTimer(time.Duration(ns))
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
	}
	return p
}

// burst is how far ahead of the rate somebody may get before it has to wait.
const burst = 50 * time.Millisecond

// passed notes n bytes, and waits as long as they are ahead of the rate.
func (p *pace) passed(ctx context.Context, n int) {
	if p.rate <= 0 || n <= 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if !p.then.IsZero() {
		p.debt = max(0, p.debt-now.Sub(p.then))
	}
	p.then = now
	p.debt += time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	wait := p.debt
	p.mu.Unlock()
	if wait > burst {
		p.sleep(ctx, int64(wait))
	}
}

// reader yields what in yields at the pace, and ends with ctx.
func (p *pace) reader(ctx context.Context, in io.Reader) io.Reader {
	return readerFunc(func(b []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := in.Read(b)
		p.passed(ctx, n)
		return n, err
	})
}
