package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// bulk deposits bundles of about 8 KiB, n KiB in all, which is soon more than stays in memory.
func (p *paper) bulk(n int, epoch ident.Epoch, value string) {
	p.t.Helper()
	p.deposit(n/8, epoch, strings.Repeat(value, 3900/len(value)))
}

// far returns a source whose copies have much to catch up with: three receivers, almost all of them on disk only.
func far(p *paper) *paper {
	for range 2 {
		p.bulk(1200, 1, "old")
		p.change(1)
	}
	p.bulk(1200, 1, "newer")
	p.durable()
	return p
}

// tap is a network that sees, and may change, what sources send.
type tap struct {
	files  bool                                 // connections take files as TCP does
	change func(written int64, b []byte) []byte // of what is written next; nil: nothing

	mu     sync.Mutex
	said   map[wire.Type]int // frames
	ranged int64             // bytes announced in ranges
	direct atomic.Int64      // bytes of files handed to the kernel
}

func (n *tap) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (n *tap) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := host.Real().Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &tapped{Conn: conn, n: n}
	var from *io.PipeReader
	from, c.copy = io.Pipe()
	go n.parse(from)
	if n.files {
		return fileTapped{c}, nil
	}
	return c, nil
}

// parse reads along.
func (n *tap) parse(from *io.PipeReader) {
	defer from.Close()
	r := wire.NewReader(from, wire.MaxFrame)
	for {
		f, err := r.Next()
		if err != nil {
			_, _ = io.Copy(io.Discard, from) // whatever follows on a broken stream
			return
		}
		n.mu.Lock()
		if n.said == nil {
			n.said = map[wire.Type]int{}
		}
		n.said[f.Message.Type()]++
		n.mu.Unlock()
		if m, ok := f.Message.(wire.Range); ok {
			n.mu.Lock()
			n.ranged += int64(m.Length)
			n.mu.Unlock()
			if r.Raw(make([]byte, m.Length)) != nil {
				return
			}
		}
	}
}

func (n *tap) count(t wire.Type) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said[t]
}

func (n *tap) bytes() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ranged
}

type tapped struct {
	net.Conn
	n       *tap
	copy    *io.PipeWriter
	written int64
}

func (c *tapped) Write(b []byte) (int, error) {
	out := b
	if c.n.change != nil {
		out = c.n.change(c.written, b)
	}
	c.written += int64(len(b))
	_, _ = c.copy.Write(b) // nobody reads on when the stream is broken
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *tapped) Close() error { _ = c.copy.Close(); return c.Conn.Close() }

// fileTapped is a connection that takes files. It hands them to the TCP connection below, as the source would without a tap.
type fileTapped struct{ *tapped }

func (c fileTapped) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	if !ok {
		return 0, errors.New("what is to be sent is no file")
	}
	_, _ = c.copy.Write(make([]byte, limited.N)) // for parse, which does not look at them
	n, err := c.Conn.(*net.TCPConn).ReadFrom(r)
	c.n.direct.Add(n)
	return n, err
}

// Proves RJ-3: a copy that is far behind gets ranges of receiver files, by the kernel where file and connection are its own, then
// what is appended, in one session and without a gap.
func TestCatchUpByRanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		source func(*testing.T) *paper
		files  bool
	}{
		{"file to TCP", onMachine, true},
		{"file to another connection", onMachine, false},
		{"memory to TCP", newJournal, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := far(c.source(t)), c.source(t)
			network := &tap{files: c.files}
			s := newStage(dst)
			r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Network = network })
			src.bulk(400, 1, "meanwhile")
			eventually(t, "live", func() bool { return r.state().Phase == PhaseLive })
			src.deposit(30, 1, "live")
			r.caughtUp(t, src)
			sameFiles(t, src, dst)
			if n := network.bytes(); n < 3<<20 {
				t.Errorf("%d bytes in ranges, %d bundles one by one", n, network.count(wire.TypeBundle))
			}
			if direct := network.direct.Load(); (direct == network.bytes()) != (c.name == "file to TCP") {
				t.Errorf("%d of %d bytes were handed to the kernel", direct, network.bytes())
			}
			if network.count(wire.TypeHello) != 1 {
				t.Errorf("%d sessions", network.count(wire.TypeHello))
			}
			view, _ := src.View()
			src.Mark(0, src.end())
			eventually(t, "committed follows", func() bool { v, _ := dst.View(); return v.Committed == src.end() && v.After == view.After })
		})
	}
}

// A committed end within a range is told as it is.
func TestProgressWithinARange(t *testing.T) {
	src, dst := far(newJournal(t)), newJournal(t)
	middle, err := src.BundleAt(src.end() / 2)
	if err != nil {
		t.Fatal(err)
	}
	src.Mark(0, middle.Last())
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	eventually(t, "committed up to the middle", func() bool { v, _ := dst.View(); return v.Committed == middle.Last() })
	s.get(func() {
		if p := s.progress[len(s.progress)-1]; p.Position != middle.After() {
			t.Errorf("position %s, want %s", p.Position, middle.After())
		}
	})
}

// A small window takes ranges that fit, or bundles.
func TestRangesWithinTheWindow(t *testing.T) {
	for _, window := range []int64{1, 64 << 10, 200 << 10, 1 << 20} {
		src, dst := far(newJournal(t)), newJournal(t)
		r := ship(t, src, newStage(dst).serve(t, func(o *ServeOptions) { o.Window = window }))
		r.caughtUp(t, src)
		sameFiles(t, src, dst)
		if r.begun != 1 {
			t.Errorf("window %d: %d sessions", window, r.begun)
		}
		r.stop(t)
	}
}

// olderHello returns a change that turns the Hello that begins a connection into one of an older version.
func olderHello(t *testing.T) func(int64, []byte) []byte {
	return func(written int64, b []byte) []byte {
		if written > 0 {
			return b
		}
		f, err := wire.NewReader(bytes.NewReader(b), wire.MaxFrame).Next()
		if err != nil {
			t.Error(err)
			return b
		}
		h := f.Message.(wire.Hello)
		h.Version = wire.Version
		return must(wire.AppendFrame(nil, f.Epoch, h))
	}
}

// A target that a source of version 1 has called, which is one that does not say that it takes ranges, gets bundles.
func TestOldPeersGetBundles(t *testing.T) {
	src, dst := far(newJournal(t)), newJournal(t)
	network := &tap{change: olderHello(t)}
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Network = network })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	if network.count(wire.TypeRange) != 0 || s.hellos[0].Version != wire.Version {
		t.Errorf("%d ranges to a peer of version %d", network.count(wire.TypeRange), s.hellos[0].Version)
	}
}

// Whatever happens to the source's journal while a range is under way, at whatever place: the session ends, the next one matches
// anew, and the copy becomes what the journal is now.
func TestJournalChangesWithinARange(t *testing.T) {
	half := func(src *paper) ident.Sequence {
		b, err := src.BundleAt(src.end() / 2)
		if err != nil {
			t.Fatal(err)
		}
		return b.Last()
	}
	for name, act := range map[string]func(src *paper) error{
		"end removed": func(src *paper) error { return src.Rewind(half(src)) },
		"end written anew": func(src *paper) error {
			if err := src.Rewind(half(src)); err != nil {
				return err
			}
			src.bulk(800, 2, "other")
			src.durable()
			return nil
		},
		"almost all removed": func(src *paper) error { return src.Rewind(1) },
		"receivers deleted": func(src *paper) error {
			return src.DeleteReceivers(1)
		},
		"receiver changed": func(src *paper) error { _, err := src.ChangeReceiver(1); return err },
	} {
		t.Run(name, func(t *testing.T) {
			for at := int64(8 << 10); at < 2<<20; at += 300 << 10 {
				src, dst := far(newJournal(t)), newJournal(t)
				var once sync.Once
				network := &tap{}
				network.change = func(written int64, b []byte) []byte {
					if written+int64(len(b)) > at {
						once.Do(func() {
							if err := act(src); err != nil {
								t.Errorf("%s: %v", name, err)
							}
						})
					}
					return b
				}
				s := newStage(dst)
				r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Network = network })
				if name == "receivers deleted" {
					eventually(t, "caught up, or nothing in common any more", func() bool {
						return r.ack().Durable == src.end() || r.state().Code == wire.CodePriming.String() && dst.end() > 0
					})
				} else {
					r.caughtUp(t, src)
					sameFiles(t, src, dst)
				}
				r.stop(t)
				for _, st := range r.states {
					if st.Code != "" && st.Code != "rematch" && st.Code != "gap" && st.Code != "needs_priming" && st.Code != "corrupt" && st.Code != "malformed" {
						t.Errorf("at %d: a session ended with %s: %s", at, st.Code, st.Reason)
					}
				}
			}
		})
	}
}

// Compressed bundles go as they stand, one by one and in ranges; a target that does not know them is told so, and gets none.
func TestCompressedBundlesAreShipped(t *testing.T) {
	compressed := func(p *paper, n int) {
		for range n {
			view, _ := p.View()
			d := journal.Draft{Session: 1, Before: view.After, FactEpoch: 1, Flags: entry.FlagCompressed}
			for i := range 50 {
				value := fmt.Appendf(nil, "%d %d %s", view.Last, i, strings.Repeat("as before ", 20))
				d.Entries = append(d.Entries, entry.Entry{Code: entry.Record, Type: entry.Put, File: "f", Key: []byte("k"), After: &entry.Image{Value: value}})
			}
			if h, err := p.Deposit(d); err != nil || h.Flags != entry.FlagCompressed {
				t.Fatalf("%+v, %v", h, err)
			}
		}
	}
	src, dst, old := newJournal(t), newJournal(t), newJournal(t)
	src.deposit(4, 1, "plain")
	plain := src.end()
	compressed(src, 2000)
	src.durable()
	network := &tap{}
	r := ship(t, src, newStage(dst).serve(t), func(o *SourceOptions) { o.Network = network })
	r.caughtUp(t, src)
	compressed(src, 3)
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	if network.bytes() < 512<<10 || network.count(wire.TypeBundle) == 0 {
		t.Errorf("%d bytes in ranges, %d bundles", network.bytes(), network.count(wire.TypeBundle))
	}
	outdated := ship(t, src, newStage(old).serve(t), func(o *SourceOptions) { o.Network = &tap{change: olderHello(t)} })
	eventually(t, "the source says what is wrong", func() bool {
		st := outdated.state()
		return st.Code == wire.CodeVersion.String() && strings.Contains(st.Reason, "compressed")
	})
	eventually(t, "all before it was shipped", func() bool { return old.end() == plain })
}

// A source that sends a rotten file does not know. When the target says so it sends bundle by bundle, and finds the place.
func TestRotIsFoundAfterARange(t *testing.T) {
	src, dst := far(onMachine(t)), newJournal(t)
	name := src.fs.PathJoin(src.dir, "000002.rcv")
	f, err := src.fs.OpenReadWrite(name, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 600<<10); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], 600<<10); err != nil {
		t.Fatal(err)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	eventually(t, "the source finds the place", func() bool { return strings.Contains(r.state().Reason, "receiver 000002") })
	r.stop(t)
	dst.durable()
	copied, whole := dst.files(), src.files()
	for name, b := range copied {
		if !bytes.HasPrefix(whole[name], b) {
			t.Errorf("receiver %s: wrong bytes were taken", name)
		}
	}
	if len(copied) != 2 {
		t.Errorf("%d receivers were copied before the rotten place, want 2", len(copied))
	}
}

// Ranges that a target must not take.
func TestHostileRanges(t *testing.T) {
	src, dst := far(newJournal(t)), newJournal(t)
	dst.fill(src, 40)
	s := newStage(dst)
	addr := s.serve(t, func(o *ServeOptions) { o.Window = 1 << 20 })
	end := dst.end()
	next, err := src.BundleAt(end + 1)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := src.Reader(end + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	stretch, ok, err := reader.TryStretch(200 << 10)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	raw := make([]byte, stretch.Length)
	if _, err := stretch.File.ReadAt(raw, stretch.Offset); err != nil {
		t.Fatal(err)
	}
	good := wire.Range{Receiver: stretch.Receiver, Length: uint32(stretch.Length), Offset: uint64(stretch.Offset), First: stretch.First}
	with := func(change func(*wire.Range)) wire.Range { m := good; change(&m); return m }
	flipped := slices.Clone(raw)
	flipped[len(next.Raw)/2] ^= 1
	for i, c := range []struct {
		name  string
		say   wire.Range
		bytes []byte
		code  wire.Code
	}{
		{"sequence of elsewhere", with(func(m *wire.Range) { m.First++ }), raw, wire.CodeGap},
		{"bundles of elsewhere", with(func(m *wire.Range) { m.Length -= uint32(len(next.Raw)) }), raw[len(next.Raw):], wire.CodeGap},
		{"another receiver", with(func(m *wire.Range) { m.Receiver++ }), raw, wire.CodeCorrupt},
		{"another offset", with(func(m *wire.Range) { m.Offset += 8 }), raw, wire.CodeCorrupt},
		{"beyond the credit", with(func(m *wire.Range) { m.Length = 2 << 20 }), nil, wire.CodeMalformed},
		{"a flipped bit", good, flipped, wire.CodeCorrupt},
		{"zeros", good, make([]byte, len(raw)), wire.CodeCorrupt},
		{"a bundle beyond its end", with(func(m *wire.Range) { m.Length = uint32(len(next.Raw)) - 8 }), raw[:len(next.Raw)-8], wire.CodeMalformed},
		{"the start of a header", with(func(m *wire.Range) { m.Length = 8 }), raw[:8], wire.CodeMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := call(t, addr, 1)
			h := hello()
			h.Version, h.Session, h.End = wire.Newest, uint64(i+1), src.end()
			p.say(h)
			offer := hear[wire.Offer](p)
			p.say(wire.Match{Found: true, Point: offer.Points[0]})
			if start := hear[wire.Start](p); !start.Ranges {
				t.Fatal("the target takes no ranges")
			}
			p.say(c.say)
			_, _ = p.Write(c.bytes) // it may be turned away before it has said all
			p.refusal(c.code)
			if dst.end() != end {
				t.Errorf("the copy has moved from %d to %d", end, dst.end())
			}
		})
	}
	t.Run("from a source of version 1", func(t *testing.T) {
		p, start := started(t, addr, 100)
		if start.Ranges {
			t.Error("the target offers ranges")
		}
		p.say(good)
		p.refusal(wire.CodeMalformed)
	})
	t.Run("as it should be", func(t *testing.T) {
		p := call(t, addr, 1)
		h := hello()
		h.Version, h.Session, h.End = wire.Newest, 200, src.end()
		p.say(h)
		offer := hear[wire.Offer](p)
		p.say(wire.Match{Found: true, Point: offer.Points[0]})
		hear[wire.Start](p)
		p.say(good)
		if _, err := p.Write(raw); err != nil {
			t.Fatal(err)
		}
		eventually(t, "appended", func() bool { return dst.end() == stretch.Last })
	})
	if len(s.asked) != 0 {
		t.Errorf("removal was asked for: %v", s.asked)
	}
}

// stumbling is a network whose connections fail one write in the middle of a range, and would take the next.
type stumbling struct {
	mu     sync.Mutex
	failed int // writes
	after  int // writes
}

func (n *stumbling) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (n *stumbling) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := host.Real().Network.Dial(ctx, addr)
	return &stumblingConn{Conn: conn, n: n}, err
}

type stumblingConn struct {
	net.Conn
	n      *stumbling
	failed bool
}

func (c *stumblingConn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	switch {
	case c.failed:
		c.n.after++
	case len(b) == writePiece && c.n.failed == 0:
		c.failed = true
		c.n.failed++
		return 0, errors.New("stumbled")
	}
	return c.Conn.Write(b)
}

// When a range breaks off nothing is said any more: it would be taken for bytes of the range.
func TestNothingIsSaidWithinARange(t *testing.T) {
	src, dst := far(newJournal(t)), newJournal(t)
	network := &stumbling{}
	r := ship(t, src, newStage(dst).serve(t), func(o *SourceOptions) { o.Network = network })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	network.mu.Lock()
	defer network.mu.Unlock()
	if network.failed != 1 || network.after != 0 {
		t.Errorf("%d writes failed, %d followed on the same connection", network.failed, network.after)
	}
}
