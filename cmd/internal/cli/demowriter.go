package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// outcome is what the writer was told about one write.
type outcome byte

const (
	inFlight outcome = iota
	acknowledged
	failed  // surely not done
	unknown // may have been done
)

const (
	writerFile    = "demo"
	writerTimeout = 30 * time.Second // for one write, across a failover
)

// writerStats count what happened since the last look.
type writerStats struct {
	acknowledged int
	failed       int
	unknown      int
	longest      time.Duration // between two acknowledgements, whichever writer had them
	lastError    error         // of a failed or unknown write
}

func (s writerStats) String() string {
	return fmt.Sprintf("longest pause %s; %s acknowledged, %s failed, %s unknown",
		humanDuration(s.longest), humanCount(s.acknowledged), humanCount(s.failed), humanCount(s.unknown))
}

// demoWriter writes new records without a break and remembers what it was told about each. Write n has a key and a
// content that follow from n, so nothing else needs to be kept.
type demoWriter struct {
	client *client.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome // by n
	window   writerStats
	lastAck  time.Time
	total    int           // acknowledged since the start
	advanced chan struct{} // closed and replaced at every acknowledgement
}

// startWriter starts writers that go on until stop.
func startWriter(cl *client.Client, writers int) *demoWriter {
	ctx, cancel := context.WithCancel(context.Background())
	w := &demoWriter{client: cl, cancel: cancel, lastAck: time.Now(), advanced: make(chan struct{})}
	for range writers {
		w.wg.Go(func() { w.run(ctx) })
	}
	return w
}

// stop lets the writes in flight end and joins the writers. It may be called more than once.
func (w *demoWriter) stop() {
	w.cancel()
	w.wg.Wait()
}

func (w *demoWriter) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		n := len(w.outcomes)
		w.outcomes = append(w.outcomes, inFlight)
		w.mu.Unlock()
		// Not ctx: stopping must not make the outcome of the last writes unknown.
		write, cancel := context.WithTimeout(context.Background(), writerTimeout)
		_, err := w.client.Put(write, writerFile, writerKey(n), writerValue(n), client.WriteOptions{Wait: 10 * time.Second})
		cancel()
		w.record(n, err)
		if err != nil && !errors.Is(err, client.ErrUnknownOutcome) {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // a cluster that refuses at once must not be hammered
			}
		}
	}
}

func writerKey(n int) []byte { return fmt.Appendf(nil, "write-%08d", n) }

func writerValue(n int) []byte {
	return fmt.Appendf(nil, "content of write %d %s", n, strings.Repeat("understudy ", 16+n%16))
}

func (w *demoWriter) record(n int, err error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.outcomes[n] = acknowledged
		w.window.acknowledged++
		w.total++
		w.window.longest = max(w.window.longest, now.Sub(w.lastAck))
		w.lastAck = now
		close(w.advanced)
		w.advanced = make(chan struct{})
	case surelyNotDone(err):
		w.outcomes[n] = failed
		w.window.failed++
		w.window.lastError = err
	default:
		w.outcomes[n] = unknown
		w.window.unknown++
		w.window.lastError = err
	}
}

// surelyNotDone tells errors that promise that nothing was done from those that leave it open.
func surelyNotDone(err error) bool {
	var e *client.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case client.CodeUnknownOutcome, client.CodeInternal, client.CodeCorrupt:
		return false
	}
	return true
}

// look returns what happened since the last look. A pause that goes on counts up to now.
func (w *demoWriter) look() writerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.window
	s.longest = max(s.longest, time.Since(w.lastAck))
	w.window = writerStats{}
	return s
}

// await returns when n more writes were acknowledged, and an error when for the limit none was.
func (w *demoWriter) await(ctx context.Context, n int, limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	w.mu.Lock()
	goal := w.total + n
	w.mu.Unlock()
	for {
		w.mu.Lock()
		reached, advanced := w.total >= goal, w.advanced
		w.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-advanced:
			deadline.Reset(limit)
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			w.mu.Lock()
			last := w.window.lastError
			w.mu.Unlock()
			if last != nil {
				return fmt.Errorf("writes have not gone on for %s; last error: %w", limit, last)
			}
			return fmt.Errorf("writes have not gone on for %s", limit)
		}
	}
}

// results returns the outcome of every write; call it after stop.
func (w *demoWriter) results() []outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outcomes
}
