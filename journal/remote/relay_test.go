package remote

import (
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// A frame counts as read before a moment only if it was.
func TestHearings(t *testing.T) {
	t0 := time.Unix(1000, 0)
	var h hearings
	if n := h.before(t0.Add(time.Hour)); n != 0 {
		t.Errorf("%d frames before anything was read", n)
	}
	const frames = 3 * sayingsKept
	at := func(n uint64) time.Time { return t0.Add(time.Duration(n) * sayingStep / 2) }
	for n := uint64(1); n <= frames; n++ {
		h.note(n, at(n))
	}
	for _, n := range []uint64{frames - 500, frames - 100, frames - 1, frames} {
		if got := h.before(at(n)); got > n || n-got > 2 {
			t.Errorf("%d frames were read when the %d-th was", got, n)
		}
		if got := h.before(at(n).Add(-time.Nanosecond)); got >= n {
			t.Errorf("%d frames were read just before the %d-th was", got, n)
		}
	}
}

// lazyFS is a file system whose syncs take as long as they are held.
type lazyFS struct {
	vfs.FS
	mu   sync.Mutex
	gate chan struct{} // nil: syncs pass
}

func (f *lazyFS) hold(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on {
		f.gate = make(chan struct{})
	} else if f.gate != nil {
		close(f.gate)
		f.gate = nil
	}
}

func (f *lazyFS) pass() {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (f *lazyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return &lazyFile{file, f}, err
}

func (f *lazyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	return &lazyFile{file, f}, nil
}

type lazyFile struct {
	vfs.File
	fs *lazyFS
}

func (f *lazyFile) Sync() error                  { f.fs.pass(); return f.File.Sync() }
func (f *lazyFile) SyncData() error              { f.fs.pass(); return f.File.SyncData() }
func (f *lazyFile) SyncTo(n int64) (bool, error) { f.fs.pass(); return f.File.SyncTo(n) }

// Proves RJ-3: a relay sends what is durable here, and no more. The primary itself does not wait for its disk.
func TestRelaySendsWhatIsDurable(t *testing.T) {
	fs := &lazyFS{FS: vfs.NewMem()}
	src, fed, direct := openJournal(t, fs, host.Real()), newJournal(t), newJournal(t)
	defer fs.hold(false)
	src.deposit(10, 1, "v")
	src.durable()
	end := src.end()
	relay := func(o *SourceOptions) { o.Author, o.Relay = false, &Relay{} }
	r, d := ship(t, src, newStage(fed).serve(t), relay), ship(t, src, newStage(direct).serve(t))
	r.caughtUp(t, src)
	d.caughtUp(t, src)
	fs.hold(true)
	src.deposit(5, 1, "w")
	eventually(t, "the primary has sent what is on its way to the disk", func() bool { return direct.end() == src.end() })
	if fed.end() != end {
		t.Fatalf("the relay has sent up to %s, durable is %s", fed.end(), end)
	}
	fs.hold(false)
	r.caughtUp(t, src)
	sameFiles(t, src, fed)
}

// Proves I5: a relay says nothing to be committed that its node does not know, and says it once it does.
func TestRelayVouches(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	src.durable()
	src.Mark(0, src.end())
	var mu sync.Mutex
	var asked []ident.Position
	knows := false
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) {
		o.Author, o.Relay = false, &Relay{Vouches: func(p ident.Position) bool {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, p)
			return knows
		}}
	})
	r.caughtUp(t, src)
	eventually(t, "it was asked, and the confirmed end was said", func() bool {
		mu.Lock()
		defer mu.Unlock()
		v, _ := dst.View()
		return len(asked) > 3 && v.Confirmed == src.end()
	})
	s.get(func() {
		for _, p := range s.progress {
			if p.Committed != 0 || !p.Position.IsZero() {
				t.Errorf("said %+v, which nobody vouches for", p)
			}
		}
	})
	mu.Lock()
	knows = true
	mu.Unlock()
	view, _ := src.View()
	eventually(t, "the committed end is said", func() bool {
		var last wire.Progress
		s.get(func() { last = s.progress[len(s.progress)-1] })
		return last.Committed == src.end() && last.Position == view.After
	})
}

// Proves the age of copies: a moment of which the relay was told goes on to the target by the target's own clock, never as a later
// one, and not before the relay has read anything that the target wrote before that moment.
func TestRelayPassesTheAgeOn(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	src.durable()
	src.Mark(0, src.end())
	view, _ := src.View()
	var mu sync.Mutex
	told, asked := time.Now(), 0
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) {
		o.Author = false
		o.Relay = &Relay{Level: func() (ident.Position, time.Time, bool) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return view.After, told, true
		}}
	})
	r.caughtUp(t, src)
	heard := func() (asOf time.Time) {
		s.get(func() { asOf = s.asOf })
		return asOf
	}
	eventually(t, "it was asked again and again", func() bool { mu.Lock(); defer mu.Unlock(); return asked > 5 })
	if asOf := heard(); !asOf.IsZero() {
		t.Fatalf("level as of %s, which is before anything was read", asOf)
	}
	mu.Lock()
	told = time.Now()
	limit := told
	mu.Unlock()
	eventually(t, "level", func() bool { return !heard().IsZero() })
	if asOf := heard(); asOf.After(limit) {
		t.Errorf("level as of %s, the relay was told as of %s", asOf, limit)
	}
}

// Proves RJ-3: a relay is nobody's author and frees nobody: a copy that is longer than what it has stays as it is.
func TestRelayIsNobodysAuthor(t *testing.T) {
	src, dst := newJournal(t), newJournal(t)
	src.deposit(10, 1, "v")
	src.durable()
	dst.fill(src, src.end())
	middle, err := src.BundleAt(src.end() / 2)
	if err != nil {
		t.Fatal(err)
	}
	end := dst.end()
	if err := src.Rewind(middle.Last()); err != nil {
		t.Fatal(err)
	}
	s := newStage(dst)
	r := ship(t, src, s.serve(t), func(o *SourceOptions) { o.Free, o.Relay = func() bool { return true }, &Relay{} })
	eventually(t, "the session is idle", func() bool { return r.state().Phase == PhaseLive })
	s.get(func() {
		if len(s.asked) != 0 || s.hellos[0].Free || dst.end() != end {
			t.Errorf("asked for a removal at %v, free %t, the copy ends at %s", s.asked, s.hellos[0].Free, dst.end())
		}
	})
}
