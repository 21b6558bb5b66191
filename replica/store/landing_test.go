package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

func TestNoViewWhileABatchLands(t *testing.T) {
	var l landing
	failed := make(chan struct{})
	if !l.look(failed) || !l.look(failed) {
		t.Fatal("views keep each other out")
	}
	landed := make(chan bool)
	go func() { landed <- l.begin(failed) }()
	for under := false; !under; runtime.Gosched() {
		l.mu.Lock()
		under = l.under
		l.mu.Unlock()
	}
	looked := make(chan bool)
	go func() { looked <- l.look(failed) }()
	l.leave()
	select {
	case <-landed:
		t.Fatal("a batch lands while a view is taken")
	case <-looked:
		t.Fatal("a view is taken while a batch waits to land")
	case <-time.After(time.Millisecond): // a wrong answer only; a right one takes as long as it takes
	}
	l.leave()
	if !<-landed {
		t.Fatal("no batch lands")
	}
	l.end()
	if !<-looked {
		t.Fatal("no view is taken")
	}
	// What waits for a disk that hangs is let go when the store fails.
	go func() { landed <- l.begin(failed) }()
	close(failed)
	if <-landed {
		t.Fatal("a batch lands beside a view")
	}
	l.under = true
	if l.look(failed) {
		t.Fatal("a view is taken beside a batch")
	}
}

// Every way to take a view waits for the batch that lands, and a batch waits for the views being taken.
func TestEveryViewWaitsForTheLanding(t *testing.T) {
	s := open(t, Options{})
	g := s.Group("g")
	apply(t, g, ident.Position{}, at(1, 1), put("f", "k", "v", at(1, 1)))
	waits := func(what string, call func() error, let func()) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- call() }()
		for waiting := false; !waiting; runtime.Gosched() {
			select {
			case err := <-done:
				t.Errorf("%s does not wait (%v)", what, err)
				let()
				return
			default:
			}
			g.landing.mu.Lock()
			waiting = g.landing.changed != nil
			g.landing.mu.Unlock()
		}
		let()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, view := range map[string]func() error{
		"Get":       func() error { _, err := g.Get("f", []byte("k")); return err },
		"Scan":      func() error { _, err := g.Scan("f", nil, nil, 0); return err },
		"Files":     func() error { _, err := g.Files(); return err },
		"Digest":    func() error { _, err := g.Digest(t.Context()); return err },
		"positions": func() error { _, err := s.positions(true); return err },
	} {
		if !g.landing.begin(s.health.failed) {
			t.Fatal("the store failed")
		}
		waits(what, view, g.landing.end)
	}
	if !g.landing.look(s.health.failed) {
		t.Fatal("the store failed")
	}
	waits("Apply", func() error { return g.Apply(at(1, 1), at(1, 2), []Change{put("f", "k", "w", at(1, 2))}) }, g.landing.leave)
}

// TestReadsNeverGoBack reads registers while they are counted up and the memtable is flushed all the time: no read is older
// than what was applied before it. It needs a suspension at the right moment, so it shows a broken store only now and then;
// docs/decisions/0006 says what it looks for. Proves BX-2 for reads.
func TestReadsNeverGoBack(t *testing.T) {
	const registers = 3
	s := open(t, Options{MemTableBytes: 256 << 10})
	g := s.Group("g")
	var applied [registers]atomic.Int64
	name := func(r int) []byte { return []byte(strconv.Itoa(r)) }
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		pos := ident.Position{}
		for n := int64(1); ctx.Err() == nil; n++ {
			next := at(1, pos.History+registers+1)
			changes := []Change{put("log", fmt.Sprint(n), "entry", next)}
			for r := range registers {
				changes = append(changes, put("registers", string(name(r)), strconv.FormatInt(n, 10), next))
			}
			if err := g.Apply(pos, next, changes); err != nil {
				t.Error(err)
				return
			}
			pos = next
			for r := range registers {
				applied[r].Store(n)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			if err := s.Flush(context.Background()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var reads atomic.Int64
	for r := range registers {
		wg.Go(func() {
			for ctx.Err() == nil {
				before := applied[r].Load()
				image, err := g.Get("registers", name(r))
				if before == 0 {
					continue
				}
				if got, _ := strconv.ParseInt(string(image.Value), 10, 64); err != nil || got < before {
					t.Errorf("register %d: %d at %s, %v, after %d was applied", r, got, image.Position, err, before)
					return
				}
				reads.Add(1)
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	if reads.Load() == 0 {
		t.Error("nothing was read")
	}
}
