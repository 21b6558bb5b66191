package replica

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// gate is the last gate before anything is appended to or removed from a journal: many may be inside, each for an epoch
// that is not below the promised one; a promise or a trim is inside alone. It is a lock whose exclusive side can be given
// up when a context ends.
type gate struct {
	promised atomic.Uint64 // ident.Epoch; written by whoever is alone inside

	mu     sync.Mutex
	inside int
	alone  bool  // somebody is, or waits to be, inside alone: nobody else enters
	moved  pulse // inside or alone changed
}

func (g *gate) epoch() ident.Epoch { return ident.Epoch(g.promised.Load()) }

// enter returns a leave function, or a *FencedError when a higher epoch than e was promised. It waits while a promise is
// under way, which is as long as its fsync takes.
func (g *gate) enter(e ident.Epoch) (leave func(), err error) {
	for {
		if have := g.epoch(); core.BelowPromise(have, e) {
			return nil, &FencedError{Have: have, Want: e}
		}
		g.mu.Lock()
		if !g.alone {
			break
		}
		changed := g.moved.wait()
		g.mu.Unlock()
		<-changed
	}
	if have := g.epoch(); core.BelowPromise(have, e) {
		g.mu.Unlock()
		return nil, &FencedError{Have: have, Want: e}
	}
	g.inside++
	g.mu.Unlock()
	var once sync.Once
	return func() { once.Do(g.leave) }, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	wake := g.inside == 0 && g.alone
	g.mu.Unlock()
	if wake {
		g.moved.fire()
	}
}

// exclusive runs f while nobody else is inside. It returns f's error, or ctx's when it ends first.
func (g *gate) exclusive(ctx context.Context, f func() error) error {
	if err := g.close(ctx); err != nil {
		return err
	}
	defer func() {
		g.mu.Lock()
		g.alone = false
		g.mu.Unlock()
		g.moved.fire()
	}()
	return f()
}

// close lets nobody enter any more and waits until everybody has left.
func (g *gate) close(ctx context.Context) error {
	mine := false
	for {
		g.mu.Lock()
		if !mine && !g.alone {
			g.alone, mine = true, true
		}
		if mine && g.inside == 0 {
			g.mu.Unlock()
			return nil
		}
		changed := g.moved.wait()
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			if mine {
				g.mu.Lock()
				g.alone = false
				g.mu.Unlock()
				g.moved.fire()
			}
			return context.Cause(ctx)
		}
	}
}
