package remote

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// heap returns the bytes that are in use, garbage not counted.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers released
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Proves CL-2: sources that say Hello byte by byte hold their places for no longer than Hello may take, and are told why.
func TestSlowLoris(t *testing.T) {
	const places = 4
	src, dst := newJournal(t), newJournal(t)
	src.deposit(3, 1, "v")
	s := newStage(dst)
	addr := s.serve(t, func(o *ServeOptions) { o.MaxSessions, o.Timeouts.Hello = places, 300*time.Millisecond })
	sound := must(wire.AppendFrame(nil, 1, hello()))
	var loris sync.WaitGroup
	defer loris.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for range places {
		p := call(t, addr, 1)
		loris.Go(func() {
			for _, b := range sound[:len(sound)-1] { // within the time that a read may take, but not the time of a Hello
				if _, err := p.Write([]byte{b}); err != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
		loris.Go(func() {
			for {
				f, err := p.r.Next()
				if err != nil {
					return // the reason may be lost when the last byte crosses it
				}
				if no, ok := f.Message.(wire.Refuse); ok && no.Code != wire.CodeSilent {
					t.Errorf("refused with %s: %s", no.Code, no.Text)
				}
			}
		})
	}
	r := ship(t, src, addr)
	r.caughtUp(t, src) // there is a place again
	sameFiles(t, src, dst)
}

// A source that takes nothing of what the target says is given up; what the target would have said is not kept.
func TestSourceThatDoesNotRead(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(500, 1, "v")
	s := newStage(dst)
	network := &pipes{conns: make(chan net.Conn)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, network, s, ServeOptions{Cluster: cluster, Self: "b", Timeouts: Timeouts{Heartbeat: 10 * time.Millisecond, Silent: 200 * time.Millisecond}})
	}()
	conn, err := network.Dial(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, conn, wire.NewReader(conn, wire.MaxFrame), wire.NewWriter(conn, 1)}
	p.say(hello())
	offer := hear[wire.Offer](p)
	p.say(wire.Match{Found: true, Point: offer.Points[0]})
	hear[wire.Start](p)
	reader, err := src.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for err == nil { // sends on and never reads again
		item, ok, readErr := reader.TryNext()
		switch {
		case readErr != nil:
			t.Fatal(readErr)
		case !ok:
			err = p.w.Write(wire.Heartbeat{})
		case item.ReceiverHeader != nil:
			err = p.w.Write(wire.Receiver{Header: item.ReceiverHeader})
		default:
			err = p.w.Write(wire.Bundle{Raw: item.Raw})
		}
		if err == nil {
			err = p.w.Flush()
		}
	}
	eventually(t, "the target gives it up", func() bool { var n int; s.get(func() { n = s.open }); return n == 0 })
	_ = conn.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// actor is a hand-made target: it hears one Hello and goes on as act says, with what the source says afterwards.
func actor(t *testing.T, act func(p *peer, h wire.Hello)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p := &peer{t, conn, wire.NewReader(conn, wire.MaxFrame), wire.NewWriter(conn, 1)}
			if f, err := p.r.Next(); err == nil {
				if h, ok := f.Message.(wire.Hello); ok {
					act(p, h)
				}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// A target whose offers would never end is told so by number.
func TestOffersComeToAnEnd(t *testing.T) {
	src := newJournal(t)
	src.deposit(600, 1, "v")
	full := func(from ident.Sequence) (o wire.Offer) {
		for n := range ident.Sequence(wire.MaxOffer) {
			o.Points = append(o.Points, wire.Point{Sequence: from - n, Chain: 1})
		}
		return o
	}
	for name, offers := range map[string]func(n int) wire.Offer{
		"the same again": func(int) wire.Offer { return full(1000) },
		"upwards":        func(n int) wire.Offer { return full(1000 + ident.Sequence(n)) },
		"nothing":        func(int) wire.Offer { return wire.Offer{} },
		"one by one": func(n int) wire.Offer {
			return wire.Offer{Points: []wire.Point{{Sequence: 1000 - ident.Sequence(n), Chain: 1}}}
		},
		"from far above":     func(n int) wire.Offer { return full(1<<60 - ident.Sequence(n*wire.MaxOffer)) },
		"down, then nothing": func(n int) wire.Offer { return full(1200 - ident.Sequence(min(n, 1)*wire.MaxOffer)) },
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan wire.Code, 100)
			addr := actor(t, func(p *peer, _ wire.Hello) {
				for n := 0; ; n++ {
					if p.w.Write(offers(n)) != nil || p.w.Flush() != nil {
						return
					}
					f, err := p.r.Next()
					if err != nil {
						return
					}
					if end, ok := f.Message.(wire.End); ok {
						select {
						case ended <- end.Code:
						default:
						}
						return
					}
				}
			})
			r := ship(t, src, addr)
			if code := <-ended; code != wire.CodeMalformed {
				t.Errorf("ended with %s", code)
			}
			r.stop(t)
		})
	}
}

// Lengths that are only claimed cost little, also after a good Hello, whatever is claimed.
func TestClaimsCostNothing(t *testing.T) {
	const sessions = 48
	bundle := must(wire.AppendFrame(nil, 1, wire.Bundle{Raw: make([]byte, wire.MaxBundle)}))[:wire.HeaderSize+100]
	ranged := append(must(wire.AppendFrame(nil, 1, wire.Range{Receiver: 1, Length: wire.MaxRange, Offset: 4096, First: 1})), make([]byte, 100)...)
	for name, claim := range map[string][]byte{"bundle": bundle, "range": ranged} {
		t.Run(name, func(t *testing.T) {
			s := newStage(newJournal(t))
			addr := s.serve(t)
			before := heap()
			for n := range sessions {
				p := call(t, addr, 1)
				h := hello()
				h.Version, h.Life = wire.Newest, ident.Incarnation(n+1)
				p.say(h)
				offer := hear[wire.Offer](p)
				p.say(wire.Match{Found: true, Point: offer.Points[0]})
				hear[wire.Start](p)
				if _, err := p.Write(claim); err != nil {
					t.Fatal(err)
				}
			}
			most := int64(0)
			for range 5 {
				most = max(most, heap()-before)
			}
			if per := most / sessions; per > 3<<19 {
				t.Errorf("a claim of up to 64 MiB costs %d bytes", per)
			}
		})
	}
}

// A stopped target costs bounded memory at the source, whatever the backlog, and slows no other target.
func TestStoppedTargetCostsBoundedMemory(t *testing.T) {
	src, quick := onMachine(t), onMachine(t)
	src.deposit(1, 1, "v")
	stopped := make(chan struct{})
	release := make(chan struct{})
	defer close(release)
	var once sync.Once
	addr := actor(t, func(p *peer, h wire.Hello) {
		p.say(wire.Offer{Points: []wire.Point{{}}, Last: true})
		if _, err := p.r.Next(); err != nil {
			return
		}
		p.say(wire.Start{From: 1, Window: 1 << 40, Ranges: true})
		once.Do(func() { close(stopped) })
		<-release // takes nothing any more
	})
	patient := func(o *SourceOptions) { o.Timeout = time.Minute } // so that it stays in the middle of what it sends
	one := ship(t, src, addr, patient)
	<-stopped
	other := ship(t, src, newStage(quick).serve(t), patient)
	other.caughtUp(t, src)
	grow := func() int64 {
		src.bulk(8<<10, 1, "backlog")
		src.durable()
		other.caughtUp(t, src)
		return heap()
	}
	empty := heap()
	first := grow()
	var last int64
	for range 5 {
		last = grow()
	}
	// Two rings of 64 KiB; frames, pieces of files and of ranges; 4 MiB that each of the two disk writers gathers for one sync.
	if bound := int64(20 << 20); last-empty > bound {
		t.Errorf("a backlog of 48 MiB costs %d bytes, want up to %d", last-empty, bound)
	}
	if bound := int64(12 << 20); last-first > bound { // both writers may first gather so much later on
		t.Errorf("a backlog of 48 MiB costs %d bytes more than one of 8 MiB, want up to %d", last-first, bound)
	}
	if st := one.state(); st.Sent >= src.end() {
		t.Errorf("the stopped target was sent everything: %+v", st)
	}
	t.Logf("a backlog of 8 MiB costs %d KiB, one of 48 MiB %d KiB", (first-empty)>>10, (last-empty)>>10)
}

// What a target whose disk hangs holds in memory is its window, whatever the backlog, also when it gets ranges.
func TestHungTargetHoldsItsWindow(t *testing.T) {
	const window = 4 << 20
	disk := newHungDisk()
	src := onMachine(t)
	dst := onMachineOf(t, disk.host())
	src.bulk(32<<10, 1, "backlog")
	src.durable()
	disk.shut()
	defer disk.open()
	before := heap()
	r := ship(t, src, newStage(dst).serve(t, func(o *ServeOptions) { o.Window = window }))
	eventually(t, "the window is full", func() bool { v, _ := dst.View(); return int64(v.Last)/2*8000 > window*3/4 })
	// What waits for the disk; what its writer gathers for one sync, up to 4 MiB and room to grow; pieces of a range. The rest of the
	// backlog, far more than that, stays where it is: what was in motion settles, and no more than this is held.
	const bound = window + 10<<20
	eventually(t, "what is held comes within the bound", func() bool { return heap()-before <= bound })
	if v, _ := dst.View(); v.Last >= src.end() {
		t.Error("the hung target took everything")
	}
	disk.open()
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// Hellos that are well formed and wrong.
func TestWrongHellos(t *testing.T) {
	s := newStage(newJournal(t))
	s.promised = 5
	addr := s.serve(t)
	for name, c := range map[string]struct {
		change func(*wire.Hello)
		code   wire.Code
	}{
		"cluster":       {func(h *wire.Hello) { h.Cluster = "c2" }, wire.CodeCluster},
		"no cluster":    {func(h *wire.Hello) { h.Cluster = "" }, wire.CodeCluster},
		"node":          {func(h *wire.Hello) { h.To = "c" }, wire.CodeNode},
		"journal":       {func(h *wire.Hello) { h.Journal.Node = "z" }, wire.CodeGroup},
		"group":         {func(h *wire.Hello) { h.Journal.Group = "other" }, wire.CodeGroup},
		"path as group": {func(h *wire.Hello) { h.Journal.Group = "../../etc" }, wire.CodeGroup},
		"old epoch":     {func(h *wire.Hello) { h.Epoch = 4 }, wire.CodeFenced},
		"epoch zero":    {func(h *wire.Hello) { h.Epoch = 0 }, wire.CodeMalformed},
		"session zero":  {func(h *wire.Hello) { h.Session = 0 }, wire.CodeMalformed},
		"no journal":    {func(h *wire.Hello) { h.Journal = ident.JournalID{} }, wire.CodeMalformed},
		"version zero":  {func(h *wire.Hello) { h.Version = 0 }, wire.CodeVersion},
	} {
		t.Run(name, func(t *testing.T) {
			h := hello()
			h.Epoch = 5
			c.change(&h)
			p := call(t, addr, h.Epoch)
			p.say(h)
			p.refusal(c.code)
		})
	}
	if s.open != 0 {
		t.Errorf("%d sessions were admitted", s.open)
	}
}
