package remote

import (
	"testing"

	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Each piece of a range passes the gate: a target that promises in the middle of one takes nothing more of it. Proves RJ-3.
func TestPromiseWithinARange(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.bulk(3000, 1, "old")
	src.durable()
	s := newStage(dst)
	addr := s.serve(t, func(*ServeOptions) {})
	reader, err := src.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	first, err := src.BundleAt(1)
	if err != nil {
		t.Fatal(err)
	}
	dst.fill(src, first.Last())
	for {
		item, ok, err := reader.TryNext()
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if item.Raw != nil && item.Header.Last() >= dst.end() {
			break
		}
	}
	stretch, ok, err := reader.TryStretch(2 * takePiece)
	if err != nil || !ok || stretch.Length < takePiece+takePiece/4 {
		t.Fatalf("%+v %t %v", stretch, ok, err)
	}
	raw := make([]byte, stretch.Length)
	if _, err := stretch.File.ReadAt(raw, stretch.Offset); err != nil {
		t.Fatal(err)
	}
	p := call(t, addr, 1)
	h := hello()
	h.Version, h.Session, h.End = wire.Newest, 1, src.end()
	p.say(h)
	offer := hear[wire.Offer](p)
	p.say(wire.Match{Found: true, Point: offer.Points[0]})
	hear[wire.Start](p)
	before := dst.end()
	p.say(wire.Range{Receiver: stretch.Receiver, Length: uint32(stretch.Length), Offset: uint64(stretch.Offset), First: stretch.First})
	if _, err := p.Write(raw[:takePiece]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first piece is appended", func() bool { return dst.end() > before })
	s.mu.Lock()
	s.promised = 2
	end := dst.end()
	s.mu.Unlock()
	_, _ = p.Write(raw[takePiece:]) // it may be turned away before it has said all
	p.refusal(wire.CodeFenced)
	if dst.end() != end {
		t.Errorf("the copy has moved from %d to %d after the promise", end, dst.end())
	}
}
