package remote

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// backlog is how much a target lacks in BenchmarkCatchUp: four receivers, so that changing them counts, too.
const backlog = 256 << 20

// BenchmarkCatchUp has an empty target catch up with a source whose receivers are not in the page cache, and measures in turns with
// it what the machine could do: read those files cold, append as many bytes and sync them every 4 MiB, send them over loopback. The
// ratio to the least of the three is what counts (RJ-3: at least 0.7). Each figure is the middle one of the rounds, since a disk has
// moments; best-ratio is that of the best rounds of each, which others on the machine disturb least. Plain is a program that does all
// three at once and checks nothing.
func BenchmarkCatchUp(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"bundles-of-64KiB", 64 << 10}, {"bundles-of-2KiB", 2 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			src, dir := backlogged(b, c.size)
			m := &machine{b: b, names: receiversIn(b, dir), value: noise(1 << 20)}
			kinds := []func() time.Duration{m.read, m.write, m.send, m.all, func() time.Duration {
				m.forget()
				return catchUp(b, src)
			}}
			took := make([][]time.Duration, len(kinds))
			for b.Loop() {
				b.StopTimer()
				for i, f := range kinds {
					took[i] = append(took[i], f())
					m.settle()
				}
				b.StartTimer()
			}
			for _, t := range took {
				slices.Sort(t)
			}
			rate := func(i int) float64 { return backlog / took[i][len(took[i])/2].Seconds() / 1e6 }
			best := func(i int) float64 { return backlog / took[i][0].Seconds() / 1e6 }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(rate(0), "read-MB/s")
			b.ReportMetric(rate(1), "write-MB/s")
			b.ReportMetric(rate(2), "loopback-MB/s")
			b.ReportMetric(rate(3), "plain-MB/s")
			b.ReportMetric(rate(4), "catchup-MB/s")
			b.ReportMetric(rate(4)/min(rate(0), rate(1), rate(2)), "ratio")
			b.ReportMetric(best(4)/min(best(0), best(1), best(2)), "best-ratio")
		})
	}
}

// noise returns bytes that no disk can make less of.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// backlogged returns a journal with so many bytes in bundles of that size, and its directory.
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
	values := noise(1 << 20)
	around := entry.Size([]entry.Entry{{File: "f", Key: []byte("k"), After: &entry.Image{}}})
	var last ident.Sequence
	for n := 0; n < backlog; n += size {
		from := n / 64 % (len(values) - size)
		last = p.depositValue(b, values[from:from+size-around])
	}
	if err := j.WaitDurable(context.Background(), last); err != nil {
		b.Fatal(err)
	}
	return j, dir
}

func receiversIn(b *testing.B, dir string) []string {
	names, err := filepath.Glob(filepath.Join(dir, "*.rcv"))
	if err != nil || len(names) == 0 {
		b.Fatal(names, err)
	}
	return names
}

// machine measures what the machine can do with the files of a backlog.
type machine struct {
	b     *testing.B
	names []string
	value []byte // 1 MiB that is written and sent
}

func (m *machine) must(err error) {
	if err != nil {
		m.b.Helper()
		m.b.Fatal(err)
	}
}

// settle lets the disk come to rest, so that no round pays for the one before.
func (m *machine) settle() {
	d, err := os.Open(filepath.Dir(m.names[0]))
	m.must(err)
	m.must(unix.Syncfs(int(d.Fd())))
	m.must(d.Close())
}

// forget drops the files from the page cache, and makes sure that they are gone. The kernel may keep a page for a while that it is
// busy with: a fiftieth may stay.
func (m *machine) forget() {
	all, stayed := 0, 0
	for _, name := range m.names {
		f, err := os.Open(name)
		m.must(err)
		held, of := 0, 0
		for range 3 {
			m.must(unix.Fsync(int(f.Fd())))
			m.must(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
			if held, of = m.held(f); held == 0 {
				break
			}
		}
		all, stayed = all+of, stayed+held
		m.must(f.Close())
	}
	if stayed > all/50 {
		m.b.Fatalf("%d of %d pages are still in memory", stayed, all)
	}
}

// held returns how many pages of f are in memory, of how many.
func (m *machine) held(f *os.File) (held, of int) {
	info, err := f.Stat()
	m.must(err)
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	m.must(err)
	pages := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, no := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&pages[0])))
	if no != 0 {
		m.must(no)
	}
	m.must(unix.Munmap(mapped))
	for _, p := range pages {
		held += int(p & 1)
	}
	return held, len(pages)
}

func (m *machine) read() time.Duration {
	m.forget()
	room := make([]byte, 1<<20)
	begun := time.Now()
	for _, name := range m.names {
		f, err := os.Open(name)
		m.must(err)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, room)
		m.must(err)
		m.must(f.Close())
	}
	return time.Since(begun)
}

// syncEvery is how much the plain program may lose: what the journal syncs at once, at most.
const syncEvery = 4 << 20

func (m *machine) write() time.Duration {
	f, err := os.Create(filepath.Join(m.b.TempDir(), "raw"))
	m.must(err)
	defer os.Remove(f.Name())
	defer f.Close()
	begun := time.Now()
	for n := len(m.value); n <= backlog; n += len(m.value) {
		_, err := f.Write(m.value)
		m.must(err)
		if n%syncEvery == 0 {
			m.must(unix.Fdatasync(int(f.Fd())))
		}
	}
	return time.Since(begun)
}

// pipe returns both ends of a connection over loopback.
func (m *machine) pipe() (from, to *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	m.must(err)
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	m.must(err)
	other, err := ln.Accept()
	m.must(err)
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

func (m *machine) send() time.Duration {
	from, to := m.pipe()
	defer to.Close()
	begun := time.Now()
	go func() {
		defer from.Close()
		for n := 0; n < backlog; n += len(m.value) {
			if _, err := from.Write(m.value); err != nil {
				return // the reader finds out
			}
		}
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, 1<<20))
	if err != nil || n != backlog {
		m.b.Fatal(n, err)
	}
	return time.Since(begun)
}

// all sends the cold files by the kernel, receives 4 MiB while the 4 MiB before are written and synced, and checks nothing.
func (m *machine) all() time.Duration {
	m.forget()
	from, to := m.pipe()
	defer to.Close()
	f, err := os.Create(filepath.Join(m.b.TempDir(), "plain"))
	m.must(err)
	defer os.Remove(f.Name())
	defer f.Close()
	begun := time.Now()
	go func() {
		defer from.Close()
		for _, name := range m.names {
			in, err := os.Open(name)
			if err != nil {
				return // the reader finds out
			}
			_, err = from.ReadFrom(in)
			_ = in.Close() // only read from
			if err != nil {
				return
			}
		}
	}()
	free, full, written := make(chan []byte, 4), make(chan []byte, 4), make(chan error, 1)
	for range cap(free) {
		free <- make([]byte, syncEvery)
	}
	go func() {
		var err error
		for piece := range full {
			if err == nil {
				_, err = f.Write(piece)
			}
			if err == nil {
				err = unix.Fdatasync(int(f.Fd()))
			}
			free <- piece[:cap(piece)]
		}
		written <- err
	}()
	total := 0
	for {
		piece := <-free
		n, err := io.ReadFull(to, piece)
		total += n
		full <- piece[:n]
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		m.must(err)
	}
	close(full)
	m.must(<-written)
	if total < backlog {
		m.b.Fatalf("%d bytes arrived", total)
	}
	return time.Since(begun)
}

// catchUp ships everything to a new target on disk, until it has said that all is durable there.
func catchUp(b *testing.B, src *journal.Journal) time.Duration {
	dir := b.TempDir()
	dst, err := journal.Open(journal.Options{Dir: dir, ID: ordersA, Cluster: cluster})
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
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
