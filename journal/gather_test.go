package journal

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// slowDisk is a disk whose syncs of data take their time, once takes is set, and are counted.
type slowDisk struct {
	vfs.FS
	takes atomic.Int64 // in ns
	syncs atomic.Int64
}

func (d *slowDisk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	return slowDiskFile{f, d}, err
}

type slowDiskFile struct {
	vfs.File
	disk *slowDisk
}

func (f slowDiskFile) SyncData() error {
	f.disk.syncs.Add(1)
	time.Sleep(time.Duration(f.disk.takes.Load()))
	return f.File.SyncData()
}

// On a disk that takes its time, the writer waits for those whom it has just woken: all of them share every sync, where they would
// else split into two halves that wait for each other's.
func TestWritersShareSyncs(t *testing.T) {
	const writers, rounds = 64, 20
	synctest.Test(t, func(t *testing.T) {
		disk := &slowDisk{FS: vfs.NewMem()}
		o := options(disk)
		o.ReceiverBytes = 64 << 20
		j := active(t, o)
		deposit(t, j, 1, 1, 100)
		flush(t, j)
		disk.takes.Store(int64(8 * time.Millisecond))
		before := disk.syncs.Load()
		var turn sync.Mutex
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for range rounds {
					turn.Lock()
					h := deposit(t, j, 1, 1, 100)
					turn.Unlock()
					time.Sleep(50 * time.Microsecond) // so that the others come late
					if err := j.WaitDurable(t.Context(), h.Last()); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(50 * time.Microsecond)
				}
			})
		}
		all.Wait()
		if n := disk.syncs.Load() - before; n > rounds+rounds/4 {
			t.Errorf("%d syncs for %d rounds of %d writers", n, rounds, writers)
		}
		must(t, j.Close())
	})
}

// The writer sleeps until those whom it awaits have come, until there is something to do at once, or for an eighth of a sync.
func TestWriterSleeps(t *testing.T) {
	const took = 8 * time.Millisecond
	bundles := func(n int) func(*queue) {
		return func(q *queue) {
			for range n {
				q.push(operation{})
			}
		}
	}
	for _, c := range []struct {
		name  string
		after func(*queue) // happens after half a millisecond
		came  bool
		slept time.Duration
	}{
		{"all come", bundles(3), true, took / 16},
		{"one comes", bundles(1), true, took / 8},
		{"nobody comes", func(*queue) {}, false, took / 8},
		{"an operation of its own kind", func(q *queue) { q.operations = nil; q.push(operation{do: func(*writer) error { return nil }}) }, false, took / 16},
		{"the end", func(q *queue) { q.closing = true }, false, took / 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &Journal{queue: queue{wake: make(chan struct{}, 1)}}
				j.queue.push(operation{})
				j.queue.signal() // the token of what is queued already ends no sleep
				w := &writer{j: j, took: took, queued: 1}
				go func() {
					time.Sleep(took / 16)
					j.mu.Lock()
					defer j.mu.Unlock()
					c.after(&j.queue)
					j.queue.signal()
				}()
				began := time.Now()
				if came := w.sleep(4); came != c.came || time.Since(began) != c.slept {
					t.Errorf("came: %v, after %s; want %v, %s", came, time.Since(began), c.came, c.slept)
				}
				synctest.Wait()
				select {
				case <-j.queue.wake:
				default:
				}
				j.mu.Lock()
				j.queue.push(operation{})
				j.queue.signal()
				j.mu.Unlock()
				select {
				case <-j.queue.wake:
				default:
					t.Error("the writer is not woken any more")
				}
			})
		})
	}
}
