package remote

import (
	"slices"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Proves RJ-2 and the catch-up of RJ-3: a copy that starts from nothing gets several receivers, then what is appended
// meanwhile and afterwards, and is identical to the byte, receiver by receiver.
func TestCatchUpThenLive(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	for range 4 {
		src.deposit(60, 1, "old")
		src.change(1)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	for range 3 { // while catching up, and across receivers
		src.deposit(50, 1, "new")
		src.change(1)
	}
	eventually(t, "live", func() bool { return r.state().Phase == PhaseLive })
	src.deposit(100, 1, "live")
	src.change(1)
	src.deposit(1, 1, "last")
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	if got, want := r.phases(), []string{PhaseConnecting, PhaseMatching, PhaseCatchup, PhaseLive}; !slices.Equal(got, want) {
		t.Errorf("phases %v, want %v", got, want)
	}
	if a := r.ack(); a.Received != src.end() {
		t.Errorf("received %d, want %d", a.Received, src.end())
	}
	if n := len(src.files()); n != 9 {
		t.Errorf("%d receivers in the test, want 9", n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun != 1 {
		t.Errorf("%d sessions, want 1", r.begun)
	}
	for i := 1; i < len(r.acks); i++ {
		if a, b := r.acks[i-1], r.acks[i]; b.Received < a.Received || b.Durable < a.Durable || b.Durable > b.Received {
			t.Fatalf("ack %+v follows %+v", b, a)
		}
	}
	if len(s.asked) != 0 {
		t.Errorf("removal was asked for: %v", s.asked)
	}
}

// Proves RJ-4: what a copy calls confirmed and committed is what the source said, never beyond what was sent.
func TestProgress(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	src.durable()
	committed := src.end()
	at, _ := src.View()
	src.Mark(0, committed)
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	last := func() (p wire.Progress) {
		s.get(func() {
			if n := len(s.progress); n > 0 {
				p = s.progress[n-1]
			}
		})
		return p
	}
	want := wire.Progress{Durable: committed, Committed: committed, Position: at.After}
	eventually(t, "progress of the first ten", func() bool { return last() == want })

	src.deposit(3, 1, "w")
	src.durable()
	eventually(t, "confirmed without a new committed end", func() bool { return last().Durable == src.end() })
	if p := last(); p.Committed != committed || p.Position != at.After {
		t.Errorf("progress %+v, want committed %d at %s", p, committed, at.After)
	}
	src.Mark(0, src.end())
	after, _ := src.View()
	eventually(t, "committed follows", func() bool { return last().Committed == src.end() && last().Position == after.After })
	view, _ := dst.View()
	if view.Confirmed != src.end() || view.Committed != src.end() {
		t.Errorf("copy has confirmed %d, committed %d, want %d", view.Confirmed, view.Committed, src.end())
	}
}

func TestHeldIsAcknowledgedWhenItChanges(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(1, 1, "v")
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	want := ident.Position{Epoch: 1, History: 2}
	s.set(func() { s.held = want })
	eventually(t, "held", func() bool { a := r.ack(); return a.Held == want && a.Applied == want })
}

// diverged returns a source and a copy that agree on the first part and then differ, the copy by n bundles.
func diverged(t *testing.T, common, n int) (src, dst *paper, at ident.Sequence) {
	t.Helper()
	old := newJournal(t)
	src, dst = newJournal(t), newJournal(t)
	old.deposit(common, 1, "v")
	at = old.end()
	src.fill(old, at)
	old.deposit(n/2, 1, "gone")
	old.change(1)
	old.deposit(n-n/2, 1, "gone")
	dst.fill(old, old.end())
	return src, dst, at
}

// Proves RJ-2 after a divergence: nothing is removed until the host allows it, then exactly what lies beyond the common
// prefix.
func TestDivergedChains(t *testing.T) {
	src, dst, at := diverged(t, 20, 8)
	src.deposit(5, 2, "lives")
	before := dst.files()
	s := newStage(dst)
	s.removable = &Refusal{wire.CodeDiverged, "wait for Open"}
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Author, o.Epoch = false, 2 })
	if got := r.refused(t, wire.CodeDiverged); got.Reason != "wait for Open" {
		t.Errorf("reason %q", got.Reason)
	}
	eventually(t, "a second attempt", func() bool { var n int; s.get(func() { n = len(s.asked) }); return n > 2 })
	for name, b := range dst.files() {
		if string(b) != string(before[name]) {
			t.Fatalf("receiver %s changed although removal was refused", name)
		}
	}
	if r.ack() != (wire.Ack{}) {
		t.Error("a refused session acknowledged something")
	}
	s.set(func() { s.removable = nil })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	s.get(func() {
		for _, a := range s.asked {
			if a != at {
				t.Errorf("asked to remove after %d, want %d", a, at)
			}
		}
	})
}

// More bundle ends than one Offer holds, and a copy that is longer than the source.
func TestLongDivergence(t *testing.T) {
	for name, lives := range map[string]int{"shorter source": 3, "longer source": 1800} {
		t.Run(name, func(t *testing.T) {
			src, dst, at := diverged(t, 7, 1300)
			src.deposit(lives, 2, "lives")
			s := newStage(dst)
			r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Epoch = 2 })
			r.caughtUp(t, src)
			sameFiles(t, src, dst)
			if len(s.asked) != 1 || s.asked[0] != at {
				t.Errorf("asked %v, want %d once", s.asked, at)
			}
		})
	}
}

// A removal that reaches down to the base: nothing in common but sequence 0.
func TestNothingInCommon(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(9, 2, "lives")
	other := newJournal(t)
	other.deposit(12, 1, "gone")
	dst.fill(other, other.end())
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Epoch = 2 })
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// The author's own word counts: a copy longer than the author's journal is asked to remove the rest.
func TestShorterAuthor(t *testing.T) {
	src, dst, at := diverged(t, 6, 4)
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	eventually(t, "cut to the author's end", func() bool { return r.ack().Durable == at && dst.end() == at })
	src.deposit(2, 2, "more")
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
}

// A merely shorter copy at a node that did not write the journal removes nothing, and says nothing about what it lacks.
func TestShorterCopyIdles(t *testing.T) {
	author := newJournal(t)
	author.deposit(30, 1, "v")
	dst := newJournal(t)
	dst.fill(author, author.end())
	src := newJournal(t)
	src.fill(author, 40)
	at := src.end()
	src.Mark(at, at)
	marked, _ := dst.View() // by what the author knew to be durable when it made the bundles
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Author = false })
	eventually(t, "idle and acknowledged", func() bool {
		return r.state().Phase == PhaseLive && r.ack().Durable == author.end()
	})
	eventually(t, "marks up to the common end", func() bool { v, _ := dst.View(); return v.Committed == at })
	if v, _ := dst.View(); v.Confirmed != max(at, marked.Confirmed) || v.Last != author.end() || len(s.asked) != 0 {
		t.Errorf("copy confirmed %d last %d, removal asked %v; want %d, %d, none", v.Confirmed, v.Last, s.asked, at, author.end())
	}
	reader, err := author.Reader(at + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for { // the source's copy is brought level from elsewhere
		item, ok, err := reader.TryNext()
		if err != nil || !ok {
			break
		}
		if _, err := src.AppendRaw(item.Raw); err != nil {
			t.Fatal(err)
		}
	}
	author.deposit(2, 1, "more")
	for {
		item, ok, err := reader.TryNext()
		if err != nil || !ok {
			break
		}
		if _, err := src.AppendRaw(item.Raw); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "matched anew", func() bool { return r.ack().Durable == author.end() })
	sameFiles(t, author, dst)
}

// An empty copy begins where the source's journal begins when the older receivers are gone.
func TestEmptyCopyOfTrimmedJournal(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	for range 3 {
		src.deposit(5, 1, "v")
		src.change(1)
	}
	src.durable()
	if err := src.DeleteReceivers(2); err != nil {
		t.Fatal(err)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.caughtUp(t, src)
	sameFiles(t, src, dst)
	if from := r.state().From; from <= 1 {
		t.Errorf("sent from %d", from)
	}
}

// A copy that ends before the oldest receiver of the source cannot be continued.
func TestNeedsPriming(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(5, 1, "v")
	dst.fill(src, src.end()-4)
	for range 2 {
		src.change(1)
		src.deposit(5, 1, "v")
	}
	src.durable()
	if err := src.DeleteReceivers(1); err != nil {
		t.Fatal(err)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t))
	r.refused(t, wire.CodePriming)
	if len(s.asked) != 0 {
		t.Error("removal was asked for")
	}
}

// A copy that begins beyond the end of the source has nothing in common with it, and is told that rather than that it is malformed.
func TestCopyBeginsBeyondTheSource(t *testing.T) {
	author, src, dst := newJournal(t), newJournal(t), newJournal(t)
	author.deposit(5, 1, "v")
	src.fill(author, author.end())
	for range 2 {
		author.change(1)
		author.deposit(5, 1, "v")
	}
	dst.fill(author, author.end())
	if err := dst.DeleteReceivers(2); err != nil {
		t.Fatal(err)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Author = false })
	r.refused(t, wire.CodePriming)
	if len(s.asked) != 0 {
		t.Error("removal was asked for")
	}
}

// A copy whose own oldest receivers are gone is continued as any other, and matched down to its base.
func TestTrimmedCopy(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(5, 1, "v")
	src.change(1)
	src.deposit(5, 1, "v")
	dst.fill(src, src.end())
	if err := dst.DeleteReceivers(1); err != nil {
		t.Fatal(err)
	}
	view, _ := dst.View()
	if err := src.Rewind(view.First - 1); err != nil { // the author lost everything that the copy still holds
		t.Fatal(err)
	}
	src.change(2)
	src.deposit(3, 2, "w")
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Epoch = 2 })
	r.caughtUp(t, src)
	if len(s.asked) != 1 || s.asked[0] != view.First-1 {
		t.Errorf("asked %v, want %d once", s.asked, view.First-1)
	}
	for name, b := range dst.files() {
		if string(b) != string(src.files()[name]) {
			t.Errorf("receiver %s differs", name)
		}
	}
}

// The journal's end and the source's appends meet: no bundle is lost where catch-up turns into live.
func TestNoGapUnderLoad(t *testing.T) {
	src := newJournal(t)
	src.deposit(200, 1, "v")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				src.deposit(2, 1, "load")
			}
		}
	}()
	defer func() { <-done }()
	for range 3 {
		dst := newJournal(t)
		s := newStage(dst)
		r := ship(t, src, s.serve(t))
		eventually(t, "live under load", func() bool { return r.state().Phase == PhaseLive && r.ack().Durable > 600 })
		r.stop(t)
		if r.begun != 1 {
			t.Errorf("%d sessions, want 1", r.begun)
		}
		sequence := ident.Sequence(1)
		reader, err := dst.Reader(1)
		if err != nil {
			t.Fatal(err)
		}
		for {
			item, ok, err := reader.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if item.ReceiverHeader == nil {
				if item.Header.First != sequence {
					t.Fatalf("bundle at %d where %d was due", item.Header.First, sequence)
				}
				sequence = item.Header.Last() + 1
			}
		}
		_ = reader.Close()
	}
	close(stop)
}

// Hello says what the source is, counts sessions upwards, and asks Free only after acknowledgements were voided.
func TestHello(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(4, 1, "v")
	s := newStage(dst)
	s.refused = &Refusal{wire.CodeEpoch, "not yet"}
	var order []string
	r := ship(t, src, s.serve(t), func(o *SourceOptions) {
		o.OnSession = func() { order = append(order, "session") }
		o.Free = func() bool { order = append(order, "free"); return true }
	})
	eventually(t, "three hellos", func() bool { var n int; s.get(func() { n = len(s.hellos) }); return n >= 3 })
	r.stop(t)
	for i, h := range s.hellos {
		want := wire.Hello{
			Version: wire.Newest, Cluster: cluster, Journal: ordersA, From: "a", To: "b", Epoch: 1,
			Session: uint64(i + 1), Life: 1, End: src.end(), Free: true,
		}
		if h != want {
			t.Errorf("hello %+v, want %+v", h, want)
		}
		if order[2*i] != "session" || order[2*i+1] != "free" {
			t.Errorf("order %v", order)
		}
	}
}

// Proves RJ-13: a copy that holds the header of one receiver and nothing else goes on where the source's journal begins, once the source has
// deleted that receiver. With bundles in it, it needs priming.
func TestEmptyReceiverThatTheSourceDeleted(t *testing.T) {
	for _, begun := range []int{1, 2} {
		src, dst := newJournal(t), newJournal(t)
		for range 4 {
			src.deposit(5, 1, "v")
			src.change(1)
		}
		src.durable()
		for _, r := range src.Receivers() {
			if reader, err := src.Reader(r.First); err != nil {
				t.Fatal(err)
			} else if item, _, err := reader.TryNext(); err != nil || int(r.Number) == begun && dst.BeginReceiver(item.ReceiverHeader) != nil {
				t.Fatal(err)
			} else {
				reader.Close()
			}
		}
		if err := src.DeleteReceivers(3); err != nil {
			t.Fatal(err)
		}
		r := ship(t, src, newStage(dst).serve(t))
		r.caughtUp(t, src)
		sameFiles(t, src, dst)
		r.stop(t)
	}
}
