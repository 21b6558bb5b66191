package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

func TestRefusedByNumber(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	for name, c := range map[string]struct {
		change func(*SourceOptions)
		stage  func(*stage)
		code   wire.Code
	}{
		"cluster": {change: func(o *SourceOptions) { o.Cluster = "c2" }, code: wire.CodeCluster},
		"node":    {change: func(o *SourceOptions) { o.Target = "z" }, code: wire.CodeNode},
		"fenced":  {stage: func(s *stage) { s.promised = 9 }, code: wire.CodeFenced},
		"epoch":   {stage: func(s *stage) { s.refused = &Refusal{wire.CodeEpoch, "not yet"} }, code: wire.CodeEpoch},
		"group":   {stage: func(s *stage) { s.refused = &Refusal{wire.CodeGroup, "what group"} }, code: wire.CodeGroup},
		"source":  {stage: func(s *stage) { s.refused = &Refusal{wire.CodeNotSource, "b is primary"} }, code: wire.CodeNotSource},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(dst)
			if c.stage != nil {
				c.stage(s)
			}
			var change []func(*SourceOptions)
			if c.change != nil {
				change = append(change, c.change)
			}
			r := ship(t, src, s.serve(t), change...)
			got := r.refused(t, c.code)
			if got.Reason == "" || dst.end() != 0 {
				t.Errorf("state %+v, copy ends at %d", got, dst.end())
			}
			eventually(t, "tries again, and says so each time", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				told := 0
				for _, s := range r.states {
					if s.Phase == PhaseRefused {
						told++
					}
				}
				return r.begun > 2 && told > 1
			})
		})
	}
}

// A passing reason, once cleared, costs at most the short pause.
func TestEpochBecomesKnown(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	s := newStage(dst)
	s.refused = &Refusal{wire.CodeEpoch, "not yet"}
	r := ship(t, src, s.serve(t))
	r.refused(t, wire.CodeEpoch)
	s.set(func() { s.refused = nil })
	r.caughtUp(t, src)
	if st := r.state(); st.Phase != PhaseLive || st.Code != "" || st.Reason != "" {
		t.Errorf("state %+v", st)
	}
}

// peer is a hand-made source.
type peer struct {
	t *testing.T
	net.Conn
	r *wire.Reader
	w *wire.Writer
}

func call(t *testing.T, addr string, epoch ident.Epoch) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{t, conn, wire.NewReader(conn, wire.MaxFrame), wire.NewWriter(conn, epoch)}
}

func (p *peer) say(messages ...wire.Message) {
	p.t.Helper()
	for _, m := range messages {
		if err := p.w.Write(m); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.w.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the next message of type M.
func hear[M wire.Message](p *peer) M {
	p.t.Helper()
	for {
		f, err := p.r.Next()
		if err != nil {
			var none M
			p.t.Fatalf("waiting for %s: %v", none.Type(), err)
		}
		if m, ok := f.Message.(M); ok {
			return m
		}
		if no, ok := f.Message.(wire.Refuse); ok {
			p.t.Fatalf("refused: %s %s", no.Code, no.Text)
		}
	}
}

func (p *peer) refusal(code wire.Code) {
	p.t.Helper()
	for {
		f, err := p.r.Next()
		if err != nil {
			p.t.Fatalf("waiting to be refused: %v", err)
		}
		if no, ok := f.Message.(wire.Refuse); ok {
			if no.Code != code {
				p.t.Fatalf("refused with %s (%s), want %s", no.Code, no.Text, code)
			}
			break
		}
	}
	if _, err := p.r.Next(); err == nil {
		p.t.Error("the connection goes on after a refusal")
	}
}

func hello() wire.Hello {
	return wire.Hello{Version: wire.Version, Cluster: cluster, Journal: ordersA, From: "a", To: "b", Epoch: 1, Session: 1, Life: 1}
}

// started brings a hand-made session to where bundles may follow.
func started(t *testing.T, addr string, session uint64) (*peer, wire.Start) {
	t.Helper()
	p := call(t, addr, 1)
	h := hello()
	h.Session = session
	p.say(h)
	offer := hear[wire.Offer](p)
	p.say(wire.Match{Found: true, Point: offer.Points[0]})
	return p, hear[wire.Start](p)
}

func TestHostileSources(t *testing.T) {
	dst := newJournal(t)
	src := newJournal(t)
	src.deposit(3, 1, "v")
	dst.fill(src, src.end())
	s := newStage(dst)
	addr := s.serve(t, func(o *ServeOptions) { o.Window = 64 << 10 })
	raw, err := src.BundleAt(src.end())
	if err != nil {
		t.Fatal(err)
	}
	sound, err := wire.AppendFrame(nil, 1, hello())
	if err != nil {
		t.Fatal(err)
	}
	var session uint64 = 10
	streaming := func(name string, code wire.Code, messages ...wire.Message) {
		t.Run(name, func(t *testing.T) {
			session++
			p, _ := started(t, addr, session)
			p.say(messages...)
			p.refusal(code)
		})
	}
	opening := func(name string, code wire.Code, raw []byte) {
		t.Run(name, func(t *testing.T) {
			p := call(t, addr, 1)
			if _, err := p.Write(raw); err != nil {
				t.Fatal(err)
			}
			p.refusal(code)
		})
	}
	streaming("bundle again", wire.CodeGap, wire.Bundle{Raw: raw.Raw})
	streaming("bundle of noise", wire.CodeCorrupt, wire.Bundle{Raw: bytes.Repeat([]byte{7}, 200)})
	streaming("hello again", wire.CodeMalformed, hello())
	streaming("ack", wire.CodeMalformed, wire.Ack{})
	opening("no hello", wire.CodeMalformed, must(wire.AppendFrame(nil, 1, wire.Heartbeat{})))
	opening("noise", wire.CodeMalformed, bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 4))
	opening("giant before hello", wire.CodeMalformed, must(wire.AppendFrame(nil, 1, wire.Bundle{Raw: make([]byte, 1<<20)}))[:5000])
	opening("hello of one epoch in a frame of another", wire.CodeMalformed, must(wire.AppendFrame(nil, 2, hello())))
	old := hello()
	old.Version = 0
	opening("older version", wire.CodeVersion, must(wire.AppendFrame(nil, 1, old)))
	nameless := hello()
	nameless.From = ""
	opening("nameless", wire.CodeMalformed, must(wire.AppendFrame(nil, 1, nameless)))

	t.Run("another epoch in mid-stream", func(t *testing.T) {
		session++
		p, _ := started(t, addr, session)
		p.w = wire.NewWriter(p.Conn, 2)
		p.say(wire.Heartbeat{})
		p.refusal(wire.CodeMalformed)
	})
	t.Run("match of a point not offered", func(t *testing.T) {
		session++
		p := call(t, addr, 1)
		h := hello()
		h.Session = session
		p.say(h)
		offer := hear[wire.Offer](p)
		p.say(wire.Match{Found: true, Point: wire.Point{Sequence: offer.Points[0].Sequence, Chain: 1}})
		p.refusal(wire.CodeMalformed)
	})
	t.Run("hello byte by byte is late", func(t *testing.T) {
		p := call(t, addr, 1)
		if _, err := p.Write(sound[:9]); err != nil {
			t.Fatal(err)
		}
		if _, err := p.r.Next(); err == nil {
			// the reason came, or the connection was just closed: both are right
			_, err = p.r.Next()
			if err == nil {
				t.Error("the connection goes on")
			}
		}
	})
	if len(s.asked) != 0 || dst.end() != src.end() {
		t.Errorf("hostile sources moved the copy to %d or asked for removal %v", dst.end(), s.asked)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// A source that ignores its credit is turned away before its bytes pile up.
func TestBeyondCredit(t *testing.T) {
	disk := newHungDisk()
	src := newJournal(t)
	src.deposit(300, 1, "v")
	s := newStage(openJournal(t, vfs.NewMem(), disk.host()))
	addr := s.serve(t, func(o *ServeOptions) { o.Window = 16 << 10 })
	p, start := started(t, addr, 1)
	disk.shut()
	defer disk.open()
	r, err := src.Reader(start.From)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		for {
			item, ok, err := r.TryNext()
			if err != nil || !ok {
				break
			}
			if item.ReceiverHeader != nil {
				err = p.w.Write(wire.Receiver{Header: item.ReceiverHeader})
			} else {
				err = p.w.Write(wire.Bundle{Raw: item.Raw})
			}
			if err != nil {
				break
			}
		}
		_ = p.w.Flush()
	}()
	p.refusal(wire.CodeMalformed)
}

func TestTooManySessions(t *testing.T) {
	dst := newJournal(t)
	s := newStage(dst)
	addr := s.serve(t, func(o *ServeOptions) { o.MaxSessions = 2 })
	for n := range uint64(2) {
		started(t, addr, n+1)
	}
	call(t, addr, 1).refusal(wire.CodeBusy)
}

// A source that falls silent is given up; so is a target.
func TestSilentPeers(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	t.Run("source", func(t *testing.T) {
		s := newStage(dst)
		addr := s.serve(t, func(o *ServeOptions) {
			o.Timeouts = Timeouts{Heartbeat: 10 * time.Millisecond, Silent: 100 * time.Millisecond}
		})
		p, _ := started(t, addr, 1)
		p.refusal(wire.CodeSilent)
	})
	t.Run("target", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		r := ship(t, src, ln.Addr().String(), func(o *SourceOptions) { o.Timeout, o.Heartbeat = 100*time.Millisecond, 10*time.Millisecond })
		eventually(t, "the source gives up", func() bool { return r.state().Code == wire.CodeSilent.String() })
	})
	t.Run("target that does not read", func(t *testing.T) {
		big := newJournal(t)
		big.deposit(40000, 1, "v")
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		stuck := make(chan struct{})
		var wrote atomic.Bool
		go func() {
			defer close(stuck)
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			p := &peer{t, conn, wire.NewReader(conn, wire.MaxFrame), wire.NewWriter(conn, 1)}
			if _, err := p.r.Next(); err != nil {
				return
			}
			p.say(wire.Offer{Points: []wire.Point{{}}, Last: true})
			if _, err := p.r.Next(); err != nil {
				return
			}
			p.say(wire.Start{From: 1, Window: 1 << 40})
			for p.w.Write(wire.Heartbeat{}) == nil && p.w.Flush() == nil {
				wrote.Store(true)
				time.Sleep(10 * time.Millisecond)
			}
		}()
		r := ship(t, big, ln.Addr().String(), func(o *SourceOptions) { o.Timeout = 200 * time.Millisecond })
		eventually(t, "the source gives up", func() bool { return r.state().Code == wire.CodeSilent.String() })
		if !wrote.Load() {
			t.Error("the target never spoke")
		}
		r.stop(t)
		_ = ln.Close()
		<-stuck
	})
}

// The reason of a refusal arrives although the target closes with unread bytes of the source in its buffer.
func TestReasonSurvivesUnreadInput(t *testing.T) {
	dst := newJournal(t)
	s := newStage(dst)
	addr := s.serve(t)
	for range 20 {
		p := call(t, addr, 1)
		h := hello()
		h.Cluster = "c2"
		noise := binary.LittleEndian.AppendUint64(nil, 7)
		if _, err := p.Write(append(must(wire.AppendFrame(nil, 1, h)), bytes.Repeat(noise, 20000)...)); err != nil {
			t.Fatal(err)
		}
		p.refusal(wire.CodeCluster)
	}
}

func TestIncompleteOptions(t *testing.T) {
	if err := RunSource(context.Background(), SourceOptions{Target: "b"}); !errors.Is(err, errOptions) {
		t.Error(err)
	}
}

// A copy that an older session of another life still appends to is not cut on the strength of what it was before.
func TestCopyMovesWhileMatched(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	dst.fill(src, src.end()-2)
	s := newStage(dst)
	addr := s.serve(t)
	older, _ := started(t, addr, 1)

	newer := call(t, addr, 1)
	h := hello()
	h.Life, h.End = 2, src.end()
	newer.say(h)
	offer := hear[wire.Offer](newer)
	last, err := src.BundleAt(src.end())
	if err != nil {
		t.Fatal(err)
	}
	older.say(wire.Bundle{Raw: last.Raw})
	eventually(t, "the older session appends", func() bool { return dst.end() == src.end() })
	newer.say(wire.Match{Found: true, Point: offer.Points[1]})
	newer.refusal(wire.CodeGap)
	s.get(func() {
		if len(s.asked) != 0 || dst.end() != src.end() {
			t.Errorf("asked to remove %v, copy ends at %d, want %d", s.asked, dst.end(), src.end())
		}
	})
}
