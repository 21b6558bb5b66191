package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// tape is a connection that plays what a peer said, then ends, and keeps what it hears.
type tape struct {
	mu    sync.Mutex
	plays *bytes.Reader
	heard bytes.Buffer
	holds bool          // at its end it is silent until it is closed
	over  chan struct{} // closed by Close
	once  sync.Once
}

func play(b []byte) *tape { return &tape{plays: bytes.NewReader(b), over: make(chan struct{})} }

func (c *tape) Read(b []byte) (int, error) {
	c.mu.Lock()
	n, err := c.plays.Read(b)
	c.mu.Unlock()
	if err == io.EOF && c.holds {
		<-c.over
	}
	return n, err
}

func (c *tape) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard.Write(b)
}

func (c *tape) Close() error                     { c.once.Do(func() { close(c.over) }); return nil }
func (c *tape) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "tape"} }
func (c *tape) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "tape"} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// messages returns what was heard.
func (c *tape) messages(t testing.TB) (all []wire.Message) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := wire.NewReader(bytes.NewReader(c.heard.Bytes()), wire.MaxFrame)
	for {
		f, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("what a peer heard is no frame: %v", err)
		}
		if m, ok := f.Message.(wire.Range); ok {
			if err := r.Raw(make([]byte, m.Length)); err != nil {
				t.Fatalf("a range is cut: %v", err)
			}
		}
		all = append(all, f.Message)
	}
}

// story is a session as a source tells it to an empty target, frame by frame; a range counts as one frame with its bytes.
type story struct {
	frames [][]byte
	raw    int // which frame is the range
	src    *journal.Journal
	files  map[string][]byte
	chains map[ident.Sequence]ident.Chain // after every bundle
}

// fixedClock makes a story the same in every process.
type fixedClock struct{}

func (fixedClock) Now() time.Time      { return time.Unix(1_700_000_000, 1) }
func (fixedClock) Boot() time.Duration { return 0 }

func tell(t testing.TB) story {
	t.Helper()
	real := host.Real()
	real.Clock = fixedClock{}
	j, err := journal.Open(journal.Options{FS: vfs.NewMem(), Dir: dir, ID: ordersA, Cluster: cluster, Host: real})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	if err := j.SetState(journal.Active); err != nil {
		t.Fatal(err)
	}
	s := story{src: j, chains: map[ident.Sequence]ident.Chain{0: 0}}
	deposit := func(n int) {
		view, _ := j.View()
		d := journal.Draft{Session: 1, Before: view.After, FactEpoch: 1}
		for i := range n {
			d.Entries = append(d.Entries, entry.Entry{
				Code: entry.Record, Type: entry.Put, File: "f", Key: []byte{byte(i)}, After: &entry.Image{Value: []byte("v")},
			})
		}
		h, err := j.Deposit(d)
		if err == nil { // what a bundle says of the durable end is the same in every process, too
			err = j.WaitDurable(context.Background(), h.Last())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		deposit(1)
		deposit(2)
		deposit(1)
		if _, err := j.ChangeReceiver(1); err != nil {
			t.Fatal(err)
		}
		end, _ := j.View()
		if err := j.WaitDurable(context.Background(), end.Last); err != nil {
			t.Fatal(err)
		}
	}
	say := func(m wire.Message) { s.frames = append(s.frames, must(wire.AppendFrame(nil, 1, m))) }
	view, _ := j.View()
	if err := j.WaitDurable(context.Background(), view.Last); err != nil {
		t.Fatal(err)
	}
	h := hello()
	h.Version, h.End = wire.Newest, view.Last
	say(h)
	say(wire.Match{Found: true, End: view.Last})
	r, err := j.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	offset := map[ident.ReceiverNumber]uint64{}
	var row []byte
	ranged := wire.Range{}
	end := func() {
		if row != nil {
			ranged.Length = uint32(len(row))
			say(ranged)
			s.raw = len(s.frames) - 1
			s.frames[s.raw] = append(s.frames[s.raw], row...)
			row = nil
		}
	}
	for {
		item, ok, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if item.ReceiverHeader != nil {
			end()
			offset[item.Receiver] = journal.HeaderSize
			say(wire.Receiver{Header: item.ReceiverHeader})
			continue
		}
		last := item.Header.Last()
		s.chains[last] = entry.NextChain(item.Header.Chain, item.Raw)
		if item.Receiver == 2 && offset[2] > journal.HeaderSize { // all of the second receiver but its J PR
			if row == nil {
				ranged = wire.Range{Receiver: item.Receiver, Offset: offset[item.Receiver], First: item.Header.First}
			}
			row = append(row, item.Raw...)
		} else {
			say(wire.Bundle{Raw: item.Raw})
			say(wire.Progress{Durable: last, Committed: last, Position: item.Header.After()})
		}
		offset[item.Receiver] += uint64(len(item.Raw))
	}
	end()
	say(wire.Heartbeat{})
	say(wire.Level{Position: view.After, Heard: 2})
	say(wire.End{Code: wire.CodeStopping})
	s.files = content(t, j)
	return s
}

// content returns what the receivers hold.
func content(t testing.TB, j *journal.Journal) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, r := range j.Receivers() {
		c, err := j.Content(r.Number)
		if errors.Is(err, journal.ErrNotHeld) {
			continue // its file is not made yet
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c.Section())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		out[r.Number.String()] = b
	}
	return out
}

func (s story) bytes() []byte { return bytes.Join(s.frames, nil) }

// verdict is what became of one session at a target.
type verdict struct {
	code wire.Code // 0: the source ended it, or the connection
	end  ident.Sequence
}

// hearOut plays b to an empty target and checks what must hold whatever b is: the session ends, the copy is a beginning of the
// source's journal, byte for byte, and nothing beyond it was acknowledged.
func (s story) hearOut(t testing.TB, what string, b []byte) verdict {
	t.Helper()
	j, err := journal.Open(journal.Options{FS: vfs.NewMem(), Dir: dir, ID: ordersA, Cluster: cluster, ReceiverBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	stage := newStage(&paper{Journal: j})
	o := ServeOptions{Cluster: cluster, Self: "b"}.withDefaults()
	conn := play(b)
	(&server{host: stage, o: o, removal: host.NewTurn()}).session(context.Background(), conn)

	view, _ := j.View()
	if err := j.WaitDurable(context.Background(), view.Last); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if chain, known := s.chains[view.Last]; !known || chain != view.Chain {
		t.Fatalf("%s: the copy ends at sequence %d with chain %s, which the source does not have", what, view.Last, view.Chain)
	}
	if view.Last > 0 {
		for name, have := range content(t, j) {
			if !bytes.HasPrefix(s.files[name], have) {
				t.Fatalf("%s: receiver %s holds wrong bytes", what, name)
			}
		}
	}
	v := verdict{end: view.Last}
	for _, m := range conn.messages(t) {
		switch m := m.(type) {
		case wire.Refuse:
			v.code = m.Code
			if m.Text == "" {
				t.Fatalf("%s: refused with %s and no reason", what, m.Code)
			}
		case wire.Ack:
			if m.Durable > view.Last || m.Received > view.Last {
				t.Fatalf("%s: acknowledged %+v, the copy ends at %d", what, m, view.Last)
			}
		}
	}
	stage.get(func() {
		if stage.open != 0 || len(stage.asked) != 0 {
			t.Fatalf("%s: %d admissions open, asked to remove %v", what, stage.open, stage.asked)
		}
	})
	return v
}

// Proves CL-2 for every byte that a source sends: cut, flipped or missing anywhere, it ends the session, and nothing but the
// source's own bytes is taken.
func TestEveryByteOfASession(t *testing.T) {
	s := tell(t)
	whole := s.bytes()
	if v := s.hearOut(t, "as it is", whole); v.code != 0 || int(v.end) == 0 || s.chains[v.end] == 0 {
		t.Fatalf("the session as it is: %+v", v)
	}
	last, _ := s.src.View()
	zeros := func(at int) bool { // within the long rows of zeros in receiver headers every byte is as the next one
		return at > 16 && at+16 < len(whole) && len(bytes.Trim(whole[at-16:at+16], "\x00")) == 0 && at%64 != 0
	}
	for at := 0; at < len(whole); at += everyByte {
		if zeros(at) {
			continue
		}
		s.hearOut(t, "cut", whole[:at])
		for _, mask := range []byte{1 << (at % 8), 0xff} {
			b := bytes.Clone(whole)
			b[at] ^= mask
			if v := s.hearOut(t, "flipped", b); v.code == 0 || v.end == last.Last && at < len(whole)-200 {
				t.Fatalf("byte %d of %d flipped by %02x: %+v", at, len(whole), mask, v)
			}
		}
		s.hearOut(t, "left out", append(bytes.Clone(whole[:at]), whole[at+1:]...))
		s.hearOut(t, "doubled", append(bytes.Clone(whole[:at+1]), whole[at:]...))
	}
}

// Every bit of a range, which no frame's checksum covers.
func TestEveryBitOfARange(t *testing.T) {
	s := tell(t)
	before := len(bytes.Join(s.frames[:s.raw], nil)) + wire.HeaderSize + 24
	whole := s.bytes()
	for at := before; at < before+len(s.frames[s.raw])-wire.HeaderSize-24; at++ {
		for bit := range 8 {
			if (at+bit)%everyByte != 0 {
				continue
			}
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			if v := s.hearOut(t, "flipped", b); v.code != wire.CodeCorrupt && v.code != wire.CodeMalformed && v.code != wire.CodeGap {
				t.Fatalf("bit %d of byte %d of the range: %+v", bit, at-before, v)
			}
		}
	}
}

// Frames left out, said twice, moved to any other place, and replaced by others.
func TestEveryOrderOfFrames(t *testing.T) {
	s := tell(t)
	without := func(n int) [][]byte { return append(append([][]byte(nil), s.frames[:n]...), s.frames[n+1:]...) }
	insert := func(frames [][]byte, at int, f []byte) []byte {
		out := append(append([][]byte(nil), frames[:at]...), f)
		return bytes.Join(append(out, frames[at:]...), nil)
	}
	refused := 0
	count := func(v verdict) {
		if v.code != 0 {
			refused++
		}
	}
	for n, f := range s.frames {
		count(s.hearOut(t, "left out", bytes.Join(without(n), nil)))
		for to := range s.frames {
			count(s.hearOut(t, "moved", insert(without(n), min(to, len(s.frames)-1), f)))
			count(s.hearOut(t, "again", insert(s.frames, to, f)))
			replaced := append([][]byte(nil), s.frames...)
			replaced[to] = f
			count(s.hearOut(t, "replaced", bytes.Join(replaced, nil)))
		}
	}
	if refused < len(s.frames) {
		t.Errorf("only %d sessions were refused", refused)
	}
}

// answers is what a target says to the source of a story.
func (s story) answers(t testing.TB) []wire.Message {
	t.Helper()
	view, _ := s.src.View()
	return []wire.Message{
		wire.Heartbeat{}, wire.Offer{Points: []wire.Point{{}}, Last: true}, wire.Start{From: 1, Window: 1 << 20, Ranges: true},
		wire.Ack{Received: 2, Durable: 1, Held: ident.Position{Epoch: 1, History: 1}}, wire.Credit{Bytes: 4096},
		wire.Ack{Received: view.Last, Durable: view.Last, Held: view.After, Applied: view.After}, wire.Heartbeat{}, wire.Credit{Bytes: 500},
		wire.Refuse{Code: wire.CodeStopping, Text: "stopping"},
	}
}

// tapes is a network whose only peer plays a tape.
type tapes struct{ conn *tape }

func (n tapes) Listen(string) (net.Listener, error)            { return nil, net.ErrClosed }
func (n tapes) Dial(context.Context, string) (net.Conn, error) { return n.conn, nil }

// askedBy runs one session of a source against a target that says b, and checks that the session ends with a reason and that the
// source believed only acknowledgements that the target made.
func (s story) askedBy(t testing.TB, what string, b []byte, real map[wire.Ack]bool) error {
	t.Helper()
	conn := play(b)
	src := &source{o: SourceOptions{
		Cluster: cluster, Self: "a", Target: "b", Life: 1, Epoch: 1, Journal: s.src, Author: true, Addr: func() string { return "tape" },
		Network: tapes{conn}, Sessions: new(atomic.Uint64),
		OnAck: func(a wire.Ack) {
			if !real[a] {
				t.Errorf("%s: the source believes %+v", what, a)
			}
		},
	}}
	o, err := src.o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	src.o, src.log = o, o.Logger
	_, err = src.session(context.Background())
	if err == nil {
		t.Fatalf("%s: the session ended without a reason", what)
	}
	conn.messages(t) // what the source said is whole frames
	return err
}

// The same from the side of the source: whatever a target says, the session ends with a reason, and nothing is believed that the
// target did not say.
func TestEveryByteOfATarget(t *testing.T) {
	s := tell(t)
	real := map[wire.Ack]bool{}
	var frames [][]byte
	for _, m := range s.answers(t) {
		if a, ok := m.(wire.Ack); ok {
			real[a] = true
		}
		frames = append(frames, must(wire.AppendFrame(nil, 1, m)))
	}
	whole := bytes.Join(frames, nil)
	var refusal *Refusal
	if err := s.askedBy(t, "as it is", whole, real); !errors.As(err, &refusal) || refusal.Code != wire.CodeStopping {
		t.Fatal(err)
	}
	for at := range whole {
		s.askedBy(t, "cut", whole[:at], real)
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			err := s.askedBy(t, "flipped", b, real)
			if errors.As(err, &refusal) && refusal.Text == "stopping" {
				t.Fatalf("bit %d of byte %d: the session went on to its end", bit, at)
			}
		}
		s.askedBy(t, "left out", append(bytes.Clone(whole[:at]), whole[at+1:]...), real)
		s.askedBy(t, "doubled", append(bytes.Clone(whole[:at+1]), whole[at:]...), real)
	}
	for n, f := range frames {
		for to := range frames {
			moved := append(append([][]byte(nil), frames[:to]...), f)
			s.askedBy(t, "again", bytes.Join(append(moved, frames[to:]...), nil), real)
			replaced := append([][]byte(nil), frames...)
			replaced[to] = frames[n]
			s.askedBy(t, "replaced", bytes.Join(replaced, nil), real)
		}
	}
}

// FuzzTarget plays anything to a target. The seed is a session as it should be; checksums are made to fit, so that the fuzzer
// gets behind them.
func FuzzTarget(f *testing.F) {
	s := tell(f)
	f.Add(s.bytes())
	f.Add(bytes.Join(s.frames[:4], nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s.hearOut(t, "as it came", b)
		s.hearOut(t, "with sound frames", sound(b))
	})
}

// FuzzSource plays anything to a source. What it believes cannot be checked against anything but the frames themselves.
func FuzzSource(f *testing.F) {
	s := tell(f)
	var all []byte
	for _, m := range s.answers(f) {
		all = append(all, must(wire.AppendFrame(nil, 1, m))...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = sound(b)
		said := map[wire.Ack]bool{}
		r := wire.NewReader(bytes.NewReader(b), wire.MaxFrame)
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			if a, ok := frame.Message.(wire.Ack); ok {
				said[a] = true
			}
		}
		s.askedBy(t, "fuzz", b, said)
	})
}
