package remote

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// backlog is how much a target lacks in BenchmarkCatchUp.
const backlog = 128 << 20

// BenchmarkCatchUp has an empty target catch up with a source whose receivers are not in the page cache, and measures in the same
// run what the machine could do: read the files cold, write as many bytes and sync them, send them over loopback. The ratio to the
// least of the three is what counts (RJ-3: at least 0.7).
func BenchmarkCatchUp(b *testing.B) {
	for name, size := range map[string]int{"bundles-of-64KiB": 64 << 10, "bundles-of-2KiB": 2 << 10} {
		b.Run(name, func(b *testing.B) {
			src, dir := backlogged(b, size)
			b.SetBytes(backlog)
			var took, read, write, loop time.Duration
			for b.Loop() {
				b.StopTimer()
				read += coldRead(b, dir)
				write += syncedWrite(b)
				loop += loopback(b)
				forget(b, dir)
				b.StartTimer()
				took += catchUp(b, src)
			}
			rate := func(d time.Duration) float64 { return float64(backlog) * float64(b.N) / d.Seconds() / 1e6 }
			b.ReportMetric(rate(read), "read-MB/s")
			b.ReportMetric(rate(write), "write-MB/s")
			b.ReportMetric(rate(loop), "loopback-MB/s")
			b.ReportMetric(rate(took)/min(rate(read), rate(write), rate(loop)), "ratio")
		})
	}
}

// backlogged returns a journal with so many bytes in bundles of about size, and its directory.
func backlogged(b *testing.B, size int) (*journal.Journal, string) {
	dir := b.TempDir()
	j, err := journal.Open(journal.Options{Dir: dir, ID: ordersA, Cluster: cluster, RingBytes: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	if err := j.SetState(journal.Active); err != nil {
		b.Fatal(err)
	}
	p := &benchPair{src: j}
	var last ident.Sequence
	for n := 0; n < backlog; n += size {
		last = p.deposit(b, size-200)
	}
	if err := j.WaitDurable(context.Background(), last); err != nil {
		b.Fatal(err)
	}
	return j, dir
}

// forget drops the files in dir from the page cache.
func forget(b *testing.B, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*.rcv"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

func coldRead(b *testing.B, dir string) time.Duration {
	forget(b, dir)
	names, err := filepath.Glob(filepath.Join(dir, "*.rcv"))
	if err != nil {
		b.Fatal(err)
	}
	room := make([]byte, 1<<20)
	begun := time.Now()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, room); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
	return time.Since(begun)
}

func syncedWrite(b *testing.B) time.Duration {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	piece := make([]byte, 1<<20)
	begun := time.Now()
	for n := 0; n < backlog; n += len(piece) {
		if _, err := f.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}

func loopback(b *testing.B) time.Duration {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	begun := time.Now()
	go func() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return
		}
		defer conn.Close()
		piece := make([]byte, 1<<20)
		for range backlog / len(piece) {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	}()
	conn, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 1<<20)); err != nil || n != backlog {
		b.Fatal(n, err)
	}
	return time.Since(begun)
}

// catchUp ships everything to a new target on disk, until it has said that all is durable there.
func catchUp(b *testing.B, src *journal.Journal) time.Duration {
	dst, err := journal.Open(journal.Options{Dir: b.TempDir(), ID: ordersA, Cluster: cluster})
	if err != nil {
		b.Fatal(err)
	}
	defer dst.Close()
	begun := time.Now()
	durable := make(chan struct{}, 1)
	end, _ := src.View()
	stop := shipBetween(b, src, dst, func(d ident.Sequence) {
		if d >= end.Last {
			offerTo(durable, struct{}{})
		}
	})
	<-durable
	took := time.Since(begun)
	stop()
	return took
}

// shipBetween runs a source and a target on loopback until stop is called.
func shipBetween(b *testing.B, src, dst *journal.Journal, durable func(ident.Sequence)) (stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() {
		done <- Serve(ctx, ln, newStage(&paper{Journal: dst}), ServeOptions{Cluster: cluster, Self: "b"})
	}()
	go func() {
		done <- RunSource(ctx, SourceOptions{
			Cluster: cluster, Self: "a", Target: "b", Life: 1, Epoch: 1, Journal: src, Author: true,
			Addr: func() string { return ln.Addr().String() }, Network: host.Real().Network, Sessions: new(atomic.Uint64),
			OnAck: func(a wire.Ack) { durable(a.Durable) },
		})
	}()
	return func() { cancel(); <-done; <-done }
}

// BenchmarkLiveShipping is what a live target adds to the time that a bundle takes to be durable at the source, in the middle of
// the distribution (goal: at most 1.25 times). The bundles with and without a target take turns, so that both meet the same
// machine. The target of the first case writes to memory, as another machine does not take time from this one's disk.
func BenchmarkLiveShipping(b *testing.B) {
	for name, fs := range map[string]func() (vfs.FS, string){"disk-of-its-own": inMemory, "same-disk": onDisk(b)} {
		b.Run(name, func(b *testing.B) {
			var alone, shipped []time.Duration
			quiet, loud := newSource(b), newSource(b)
			files, dir := fs()
			dst, err := journal.Open(journal.Options{FS: files, Dir: dir, ID: ordersA, Cluster: cluster})
			if err != nil {
				b.Fatal(err)
			}
			defer dst.Close()
			defer shipBetween(b, loud.src, dst, func(ident.Sequence) {})()
			ctx := context.Background()
			for b.Loop() {
				alone = append(alone, quiet.commit(ctx, b))
				shipped = append(shipped, loud.commit(ctx, b))
				if err := dst.WaitDurable(ctx, loud.last); err != nil { // what the target still does is not to slow the other
					b.Fatal(err)
				}
			}
			slices.Sort(alone)
			slices.Sort(shipped)
			middle := len(alone) / 2
			b.ReportMetric(float64(alone[middle].Microseconds()), "alone-µs")
			b.ReportMetric(float64(shipped[middle].Microseconds()), "shipped-µs")
			b.ReportMetric(float64(shipped[middle])/float64(alone[middle]), "ratio")
		})
	}
}

// committing is a journal on disk to which bundles of 4 KiB are committed one after the other.
type committing struct {
	benchPair
	last ident.Sequence
}

func newSource(b *testing.B) *committing {
	j, err := journal.Open(journal.Options{Dir: b.TempDir(), ID: ordersA, Cluster: cluster})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	if err := j.SetState(journal.Active); err != nil {
		b.Fatal(err)
	}
	return &committing{benchPair: benchPair{src: j}}
}

func (c *committing) commit(ctx context.Context, b *testing.B) time.Duration {
	begun := time.Now()
	c.last = c.deposit(b, 4<<10-entry.HeaderSize)
	if err := c.src.WaitDurable(ctx, c.last); err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}
