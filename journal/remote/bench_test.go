package remote

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// benchPair is a source and a target that ship to each other over loopback, with the source's acknowledged durable end.
type benchPair struct {
	src, dst *journal.Journal
	durable  atomic.Uint64
	moved    chan struct{}
}

func newBenchPair(b *testing.B, fs func() (vfs.FS, string)) *benchPair {
	p := &benchPair{moved: make(chan struct{}, 1)}
	open := func() *journal.Journal {
		files, dir := fs()
		j, err := journal.Open(journal.Options{FS: files, Dir: dir, ID: ordersA, Cluster: cluster})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := j.Close(); err != nil {
				b.Error(err)
			}
		})
		return j
	}
	p.src, p.dst = open(), open()
	if err := p.src.SetState(journal.Active); err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	s := newStage(&paper{Journal: p.dst})
	go func() { done <- Serve(ctx, ln, s, ServeOptions{Cluster: cluster, Self: "b"}) }()
	go func() {
		done <- RunSource(ctx, SourceOptions{
			Cluster: cluster, Self: "a", Target: "b", Life: 1, Epoch: 1, Journal: p.src, Author: true,
			Addr: func() string { return ln.Addr().String() }, Network: host.Real().Network, Sessions: new(atomic.Uint64),
			OnAck: func(a wire.Ack) {
				p.durable.Store(uint64(a.Durable))
				offerTo(p.moved, struct{}{})
			},
		})
	}()
	b.Cleanup(func() { cancel(); <-done; <-done })
	return p
}

func (p *benchPair) deposit(b *testing.B, size int) ident.Sequence {
	return p.depositValue(b, make([]byte, size))
}

func (p *benchPair) depositValue(b *testing.B, value []byte) ident.Sequence {
	view, _ := p.src.View()
	h, err := p.src.Deposit(journal.Draft{
		Entries: []entry.Entry{{
			Code: entry.Record, Type: entry.Put, File: "f", Key: []byte("k"), After: &entry.Image{Value: value},
		}},
		Session: 1, Before: view.After, FactEpoch: 1,
	})
	if err != nil {
		b.Fatal(err)
	}
	return h.Last()
}

func (p *benchPair) wait(last ident.Sequence) {
	for p.durable.Load() < uint64(last) {
		<-p.moved
	}
}

func inMemory() (vfs.FS, string) { return vfs.NewMem(), dir }

func onDisk(b *testing.B) func() (vfs.FS, string) {
	return func() (vfs.FS, string) { return vfs.Default, b.TempDir() }
}

// BenchmarkRoundTrip is what a commit waits for: deposit here, sync there, acknowledged here.
func BenchmarkRoundTrip(b *testing.B) {
	for name, fs := range map[string]func() (vfs.FS, string){
		"memory": inMemory,
		"disk":   onDisk(b),
	} {
		b.Run(name, func(b *testing.B) {
			p := newBenchPair(b, fs)
			p.wait(p.deposit(b, 100))
			for b.Loop() {
				p.wait(p.deposit(b, 100))
			}
		})
	}
}

// BenchmarkStream is how fast bundles of 64 KiB travel when nobody waits for one.
func BenchmarkStream(b *testing.B) {
	p := newBenchPair(b, onDisk(b))
	p.wait(p.deposit(b, 100))
	b.SetBytes(64 << 10)
	var last ident.Sequence
	for b.Loop() {
		last = p.deposit(b, 64<<10)
	}
	p.wait(last)
}
