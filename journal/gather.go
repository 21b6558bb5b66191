package journal

import (
	"runtime"
	"time"
)

const (
	// The writer lets others run for so long at most before it takes what is queued, for so long after the last of them came, and so
	// often: a clock may stand still meanwhile.
	maxGather, maxLull, maxYields = 4 * time.Millisecond, time.Millisecond, 2048

	// From this time of a sync on the writer sleeps while it waits for others. If it only yielded, it would keep a processor from
	// the thread of whoever holds the lock that the others wait for. A timer may be a millisecond late, so a faster disk has it yield.
	sleepFrom = 2 * time.Millisecond

	// maxShy bounds how many batches go by before it lets others run again, where that was of no use.
	maxShy = 3
)

// gather lets those deposit once more who have just learned that their bundle is on disk, so that the next sync is theirs, too.
// Without it they would split into two halves that wait for each other's syncs. It is left out for a while when nobody came.
func (w *writer) gather() {
	awaited := w.awaited
	if w.awaited = 0; awaited == 0 {
		return
	}
	if w.alone > 0 {
		w.alone--
		return
	}
	came := false
	if w.took < sleepFrom {
		came = w.yield(awaited)
	} else {
		came = w.sleep(awaited)
	}
	if came {
		w.shy = 0
		return
	}
	w.shy = min(2*w.shy+1, maxShy)
	w.alone = w.shy
}

// yield lets others run until the awaited have come, or nobody did for a while. It tells whether anybody came.
func (w *writer) yield(awaited int) bool {
	j, began, most := w.j, time.Now(), w.queued
	came := began
	for range maxYields {
		j.mu.RLock()
		n, urgent := len(j.queue.operations), j.queue.urgent()
		j.mu.RUnlock()
		now := time.Now()
		if n > most {
			most, came = n, now
		}
		if n >= awaited || urgent || now.Sub(came) >= min(w.took/16, maxLull) || now.Sub(began) >= min(w.took/2, maxGather) {
			break
		}
		runtime.Gosched()
	}
	return most > w.queued
}

// sleep sleeps until the awaited have come, but for an eighth of a sync at most. It tells whether anybody came.
func (w *writer) sleep(awaited int) bool {
	j := w.j
	expect := func(n int) (ready bool, queued int) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.queue.expected = n
		select {
		case <-j.queue.wake: // of those who are queued already
		default:
		}
		return j.queue.ready(), len(j.queue.operations)
	}
	if ready, _ := expect(awaited); !ready {
		late := time.NewTimer(min(w.took/8, maxGather))
		select {
		case <-j.queue.wake:
		case <-late.C:
		}
		late.Stop()
	}
	_, queued := expect(0)
	return queued > w.queued
}
