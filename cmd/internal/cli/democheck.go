package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-ha/understudy/client"
)

const (
	checkReaders = 8
	shownFaults  = 10
	digestLimit  = 2 * time.Minute // for all nodes to reach one position
)

// faults collects what is wrong, and keeps the first few in words.
type faults struct {
	mu    sync.Mutex
	count int
	words []string
}

func (f *faults) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; len(f.words) < shownFaults {
		f.words = append(f.words, fmt.Sprintf(format, args...))
	}
}

func (f *faults) err(what string) error {
	if f.count == 0 {
		return nil
	}
	text := fmt.Sprintf("%s: %s", what, plural(f.count, "fault", "faults"))
	for _, w := range f.words {
		text += "\n  " + w
	}
	if f.count > len(f.words) {
		text += fmt.Sprintf("\n  and %s more", humanCount(f.count-len(f.words)))
	}
	return errors.New(text)
}

// readBack is what reading all writes gave.
type readBack struct {
	acknowledged int // found with the right content, all of them
	survived     int // of unknown outcome, found with the right content
	unknown      int
	failed       int // surely not done, and absent
}

// checkWrites reads every write back. An acknowledged one must be there, a failed one must not, an unknown one may; and
// whatever is there must have the content that was written.
func checkWrites(ctx context.Context, cl *client.Client, outcomes []outcome) (readBack, error) {
	var (
		mu  sync.Mutex
		sum readBack
		bad faults
	)
	err := eachParallel(ctx, len(outcomes), func(n int) error {
		r, err := cl.Get(ctx, writerFile, writerKey(n), client.ReadOptions{})
		present := err == nil
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("read %s back: %w", writerKey(n), err)
		}
		if present && !bytes.Equal(r.Value, writerValue(n)) {
			bad.add("%s has another content than was written", writerKey(n))
		}
		mu.Lock()
		defer mu.Unlock()
		switch outcomes[n] {
		case acknowledged:
			sum.acknowledged++
			if !present {
				bad.add("%s was acknowledged and is LOST", writerKey(n))
			}
		case failed:
			sum.failed++
			if present {
				bad.add("%s was refused and is there all the same", writerKey(n))
			}
		case unknown:
			sum.unknown++
			if present {
				sum.survived++
			}
		case inFlight:
			bad.add("%s has no outcome", writerKey(n))
		}
		return nil
	})
	if err == nil {
		err = bad.err("reading the writes back")
	}
	return sum, err
}

// checkLoaded compares every loaded record with the file it came from.
func checkLoaded(ctx context.Context, cl *client.Client, file string, files []sourceFile) error {
	var bad faults
	err := eachParallel(ctx, len(files), func(i int) error {
		want, err := os.ReadFile(files[i].path)
		if err != nil {
			return err
		}
		r, err := cl.Get(ctx, file, []byte(files[i].key), client.ReadOptions{})
		switch {
		case errors.Is(err, client.ErrNotFound):
			bad.add("%s is LOST", files[i].key)
		case err != nil:
			return fmt.Errorf("read %s back: %w", files[i].key, err)
		case !bytes.Equal(r.Value, want):
			bad.add("%s has another content than the file", files[i].key)
		}
		return nil
	})
	if err == nil {
		err = bad.err("reading the loaded records back")
	}
	return err
}

// eachParallel calls do for 0 to n-1 from several goroutines until all are done or one fails.
func eachParallel(ctx context.Context, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(checkReaders, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// compareDigests asks every node for its digest until all have given one at the same position, and compares those. With
// no writes under way that position is the end.
func compareDigests(ctx context.Context, c *devCluster, group string) (map[string]client.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, digestLimit)
	defer cancel()
	clients := map[string]*client.Client{}
	for _, n := range c.nodes {
		clients[n.name] = client.New(n.config.Listen.HTTP)
		defer clients[n.name].Close()
	}
	at := map[string]map[string]client.Digest{} // position to node to digest
	latest := map[string]string{}
	var last error
	for {
		for _, name := range sortedKeys(clients) {
			d, err := clients[name].Digest(ctx, group)
			if err != nil {
				last = fmt.Errorf("digest of node %s: %w", name, err)
				continue
			}
			latest[name] = d.Position
			if at[d.Position] == nil {
				at[d.Position] = map[string]client.Digest{}
			}
			at[d.Position][name] = d
			if len(at[d.Position]) == len(clients) {
				return at[d.Position], sameDigests(at[d.Position])
			}
		}
		select {
		case <-ctx.Done():
			var have []string
			for _, name := range sortedKeys(latest) {
				have = append(have, name+" at "+latest[name])
			}
			return nil, errors.Join(fmt.Errorf("the nodes did not reach one position within %s: %s", digestLimit, strings.Join(have, ", ")), last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func sameDigests(all map[string]client.Digest) error {
	names := sortedKeys(all)
	first := all[names[0]]
	if i := slices.IndexFunc(names, func(n string) bool { return all[n].Sum != first.Sum || all[n].Records != first.Records }); i >= 0 {
		other := all[names[i]]
		return fmt.Errorf("CONTENT DIFFERS at position %s: node %s has %s records, sum %s; node %s has %s records, sum %s",
			first.Position, names[0], humanCount(first.Records), first.Sum, names[i], humanCount(other.Records), other.Sum)
	}
	return nil
}
