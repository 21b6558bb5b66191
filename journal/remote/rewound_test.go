package remote

import (
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// While there is no credit nothing is read. If the end of the copy that is shipped is removed then, and something else comes in its place, the
// marks of that are not told to a target that has the old end. Proves RJ-4.
func TestMarksOfAnotherEndAreNotTold(t *testing.T) {
	author, src := newJournal(t), newJournal(t)
	author.deposit(5, 1, "v")
	author.durable()
	src.fill(author, author.end())
	end, bundles, window := src.end(), 0, uint64(journal.HeaderSize)-1
	for seq := ident.Sequence(1); seq <= end; seq++ {
		b, err := src.BundleAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		if b.First == seq {
			window += uint64(len(b.Raw))
			bundles++
		}
	}
	const common = 3 // the first bundle is J PR, the others have two entries
	var (
		mu       sync.Mutex
		received int
		over     = make(chan struct{})
		once     sync.Once
	)
	addr := actor(t, func(p *peer, h wire.Hello) {
		defer once.Do(func() { close(over) })
		p.say(wire.Offer{Points: []wire.Point{{}}, Last: true})
		if _, err := p.r.Next(); err != nil {
			return
		}
		p.say(wire.Start{From: 1, Window: window})
		for {
			f, err := p.r.Next()
			if err != nil {
				return
			}
			switch m := f.Message.(type) {
			case wire.Bundle:
				mu.Lock()
				received++
				mu.Unlock()
			case wire.Progress:
				if m.Durable >= end {
					t.Errorf("told that %s is confirmed, which was removed", m.Durable)
				}
			case wire.Heartbeat:
				p.say(wire.Heartbeat{})
			case wire.End:
				return
			}
		}
	})
	r := ship(t, src, addr, func(o *SourceOptions) { o.Author = false })
	defer r.stop(t)
	eventually(t, "everything is there, and no credit is left", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return received == bundles
	})
	if err := author.Rewind(common); err != nil {
		t.Fatal(err)
	}
	author.deposit(9, 2, "other")
	author.durable()
	// The source is not to see anything in between.
	if err := src.Rewind(common); err != nil {
		t.Fatal(err)
	}
	rest, err := author.Reader(common + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	for {
		item, ok, err := rest.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if item.ReceiverHeader == nil {
			if _, err := src.AppendRaw(item.Raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	src.Mark(src.end(), 0)
	select {
	case <-over:
	case <-time.After(patience):
		t.Error("the session goes on")
	}
}
