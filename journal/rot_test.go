package journal

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// pair is a journal with a copy that is open elsewhere.
type pair struct {
	fs   *vfs.MemFS
	o    Options
	j    *Journal
	twin journalTwin
	want truth
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{fs: vfs.NewMem()}
	p.o = options(p.fs)
	p.o.ReceiverBytes, p.o.RingBytes = 8<<10, 1
	p.j = active(t, p.o)
	manyReceivers(t, p.j, rand.New(rand.NewPCG(7, 7)))
	p.want = remember(t, p.j)
	there := p.o
	there.Dir = "twin/journals/orders/a"
	p.twin = journalTwin{copyOf(t, p.j, there)}
	flush(t, p.twin.j)
	return p
}

// offset returns where the bundle stands that contains seq, and in which receiver.
func (p *pair) offset(t *testing.T, seq ident.Sequence) (ident.ReceiverNumber, int64) {
	t.Helper()
	for _, r := range p.j.Receivers() {
		if seq < r.First || seq > r.Last {
			continue
		}
		at := int64(HeaderSize)
		for s := r.First; ; {
			raw := p.want[s]
			h, err := entry.DecodeHeader(raw)
			must(t, err)
			if h.Last() >= seq {
				return r.Number, at
			}
			at, s = at+int64(len(raw)), h.Last()+1
		}
	}
	t.Fatalf("sequence %s is not held", seq)
	return 0, 0
}

func (p *pair) sound(t *testing.T) {
	t.Helper()
	if rot := inspected(t, p.j); len(rot) > 0 {
		t.Fatalf("still rotten: %v", rot)
	}
	if n, met := p.want.served(t, p.j); met || n < len(p.want) {
		t.Fatalf("%d of %d bundles are read", n, len(p.want))
	}
}

// Proves BX-8, I9: whatever happens to the files of an open journal, the check says what it is and what cannot be read, and the
// repair brings back the same bytes, the attached receiver included; the rotten file stays beside it. Writing goes on afterwards.
func TestRotOfAnOpenJournal(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	last := v.Attached
	n, at := p.offset(t, v.Last/2)
	raw := p.want[p.first(t, v.Last/2)]
	lastAt := int64(HeaderSize + len(p.want[p.receiver(t, last).First]))
	cases := []struct {
		name   string
		kind   RotKind
		damage func()
	}{
		{"a flipped bit in a body", RotFlipped, func() {
			overwrite(t, p.fs, receiverPath(n), at+entry.HeaderSize+9, []byte{raw[entry.HeaderSize+9] ^ 4})
		}},
		{"a bundle of zeros", RotTorn, func() { overwrite(t, p.fs, receiverPath(n), at, make([]byte, len(raw))) }},
		{"another header", RotHeader, func() { overwrite(t, p.fs, receiverPath(n), 0, readFile(t, p.fs, receiverPath(n-1))[:HeaderSize]) }},
		{"a file of other length", RotTruncated, func() {
			b := readFile(t, p.fs, receiverPath(n))[:at+8]
			p.replace(t, n, b)
		}},
		{"zeros cut off", RotTruncated, func() { b := readFile(t, p.fs, receiverPath(n)); p.replace(t, n, b[:len(b)-100]) }},
		{"a bit in the zeros", RotBehind, func() {
			overwrite(t, p.fs, receiverPath(n), int64(len(readFile(t, p.fs, receiverPath(n))))-5, []byte{1})
		}},
		{"no file", RotMissing, func() { must(t, p.fs.Remove(receiverPath(n))) }},
		{"another receiver's bundles", RotForeign, func() {
			b := readFile(t, p.fs, receiverPath(n-1))
			p.replace(t, n, append(slices.Clone(readFile(t, p.fs, receiverPath(n))[:HeaderSize]), b[HeaderSize:]...))
		}},
		{"the attached receiver", RotFlipped, func() { overwrite(t, p.fs, receiverPath(last), lastAt+20, []byte{1, 2, 3, 4}) }},
		{"the header of the attached receiver", RotHeader, func() { overwrite(t, p.fs, receiverPath(last), 100, []byte{1}) }},
		{"the file of the attached receiver", RotMissing, func() { must(t, p.fs.Remove(receiverPath(last))) }},
		{"the zeros of the attached receiver", RotBehind, func() {
			overwrite(t, p.fs, receiverPath(last), int64(len(readFile(t, p.fs, receiverPath(last))))-5, []byte{1})
		}},
		{"the state file", RotState, func() { overwrite(t, p.fs, testDir+"/"+stateName, 17, []byte{1}) }},
		{"no state file", RotState, func() { must(t, p.fs.Remove(testDir+"/"+stateName)) }},
	}
	for _, c := range cases {
		whole := files(t, p.fs, testDir)
		c.damage()
		rot := inspected(t, p.j)
		if len(rot) != 1 || rot[0].Kind != c.kind {
			t.Fatalf("%s: found %v", c.name, rot)
		}
		p.want.served(t, p.j)
		done, err := p.j.Repair(t.Context(), rot[0], []Twin{p.twin}, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if missing := rot[0].First != 0; missing != (done.Bytes > 0) || missing && (done.From[0] != "twin" || rot[0].Last < rot[0].First) {
			t.Errorf("%s: %+v, %+v", c.name, rot[0], done)
		}
		p.sound(t)
		for name, b := range files(t, p.fs, testDir) {
			if name != stateName && !strings.Contains(name, badInfix) && !equalButZeros(b, whole[name]) {
				t.Fatalf("%s: %s is not what it was", c.name, name)
			}
		}
	}
	var kept int
	for name := range files(t, p.fs, testDir) {
		if strings.Contains(name, badInfix) {
			kept++
		}
	}
	if kept == 0 || kept > keptBad {
		t.Errorf("%d rotten files are kept", kept)
	}
	// The new file of the attached receiver is the one that is written.
	h := deposit(t, p.j, 4, 1, 50)
	flush(t, p.j)
	p.want = remember(t, p.j)
	must(t, p.j.Close())
	p.j = open(t, p.o)
	if v, _ := p.j.View(); v.Last != h.Last() || v.Torn {
		t.Errorf("after a restart the journal ends at %s, want %s", v.Last, h.Last())
	}
	p.sound(t)
}

func (p *pair) receiver(t *testing.T, n ident.ReceiverNumber) ReceiverInfo {
	t.Helper()
	for _, r := range p.j.Receivers() {
		if r.Number == n {
			return r
		}
	}
	t.Fatalf("no receiver %s", n)
	return ReceiverInfo{}
}

// first returns the first sequence of the bundle that contains seq.
func (p *pair) first(t *testing.T, seq ident.Sequence) ident.Sequence {
	t.Helper()
	for f, raw := range p.want {
		if h, err := entry.DecodeHeader(raw); err == nil && f <= seq && seq <= h.Last() {
			return f
		}
	}
	t.Fatalf("sequence %s is not held", seq)
	return 0
}

func (p *pair) replace(t *testing.T, n ident.ReceiverNumber, b []byte) {
	t.Helper()
	f, err := p.fs.Create(receiverPath(n), category)
	must(t, err)
	_, err = f.Write(bytes.Clone(b)) // built for the race detector, the file system spoils what it was given
	must(t, err)
	must(t, f.Close())
}

// Proves BX-8: what a twin offers is taken only when it is what stood here. A twin that is rotten itself, that ends too early or
// that stands on another branch changes nothing; two that are rotten in different places complete each other.
func TestATwinIsNotBelieved(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	n, at := p.offset(t, v.Last/2)
	overwrite(t, p.fs, receiverPath(n), at+30, []byte{1, 2, 3})
	damaged := files(t, p.fs, testDir)
	rot := inspected(t, p.j)
	if len(rot) != 1 {
		t.Fatal(rot)
	}
	short := open(t, p.at("short"))
	r, err := p.twin.j.Reader(0)
	must(t, err)
	defer r.Close()
	for item, ok, err := r.TryNext(); ok; item, ok, err = r.TryNext() {
		must(t, err)
		if item.Receiver == n && item.Raw != nil {
			break
		}
		ship(t, short, []Item{item})
	}
	flush(t, short)
	other := active(t, p.at("other")) // the same name, another history
	for range 60 {
		deposit(t, other, 9, 2, 700)
	}
	flush(t, other)
	empty := open(t, p.at("empty"))
	for name, twins := range map[string][]Twin{
		"a shorter copy":     {journalTwin{short}},
		"another branch":     {journalTwin{other}},
		"an empty copy":      {journalTwin{empty}},
		"all of those":       {journalTwin{short}, journalTwin{other}, journalTwin{empty}},
		"a rotten copy":      {bent{p.twin, at}},
		"nobody":             nil,
		"one that is silent": {silent{}},
	} {
		if done, err := p.j.Repair(t.Context(), rot[0], twins, nil); err == nil {
			t.Errorf("%s: %+v", name, done)
		}
		if have := files(t, p.fs, testDir); !maps.EqualFunc(have, damaged, bytes.Equal) {
			t.Fatalf("%s changed something", name)
		}
	}
	_, next := p.offset(t, v.Last/2+8)
	overwrite(t, p.fs, receiverPath(n), next+30, []byte{1, 2, 3})
	if _, err := p.j.Repair(t.Context(), rot[0], []Twin{silent{}, journalTwin{other}, bent{p.twin, at}, bent{p.twin, next}}, nil); err != nil {
		t.Errorf("two copies that complete each other: %v", err)
	}
	p.sound(t)
}

func (p *pair) at(dir string) Options {
	o := p.o
	o.Dir = dir + "/journals/orders/a"
	return o
}

// bent is a twin that is rotten at an offset of every receiver.
type bent struct {
	journalTwin
	at int64
}

func (b bent) Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	c, err := b.journalTwin.Receiver(ctx, n)
	return bentContent{c, b.at}, err
}

type bentContent struct {
	TwinContent
	at int64
}

func (b bentContent) ReadAt(p []byte, at int64) (int, error) {
	n, err := b.TwinContent.ReadAt(p, at)
	if i := b.at + 40 - at; i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	return n, err
}

// silent is a twin that cannot be asked.
type silent struct{}

var errSilent = errors.New("no answer")

func (silent) Name() string                                            { return "silent" }
func (silent) Numbers(context.Context) ([]ident.ReceiverNumber, error) { return nil, errSilent }
func (silent) Receiver(context.Context, ident.ReceiverNumber) (TwinContent, error) {
	return nil, errSilent
}

// Proves BX-8, I9: an attached receiver is repaired while it is written and read, and nothing of what is written meanwhile is lost.
func TestRepairOfTheAttachedReceiverUnderLoad(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.ReceiverBytes, o.RingBytes = 16<<20, 1
	j := active(t, o)
	there := o
	there.Dir = "twin/journals/orders/a"
	twin := open(t, there)
	for range 50 {
		deposit(t, j, 1, 2, 300)
	}
	flush(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			deposit(t, j, 1, 2, 300)
			if v, _ := j.View(); v.Last > 1500 {
				return
			}
		}
	})
	follow := func(each func(Item)) func() {
		return func() {
			r, err := j.Reader(0)
			must(t, err)
			defer r.Close()
			for want := ident.Sequence(1); ; {
				item, err := r.Next(ctx)
				var broken *CorruptionError
				if errors.As(err, &broken) { // where the rot is; begin again behind it
					r.Close()
					if r, err = j.Reader(want); err != nil {
						time.Sleep(time.Millisecond)
						r, err = j.Reader(want)
						for ; err != nil && ctx.Err() == nil; r, err = j.Reader(want) {
							time.Sleep(time.Millisecond)
						}
					}
					if ctx.Err() != nil {
						return
					}
					continue
				}
				if ctx.Err() != nil {
					return
				}
				must(t, err)
				if item.Raw != nil && item.Header.First != want {
					t.Errorf("read %s, want %s", item.Header.First, want)
					return
				}
				if item.Raw != nil {
					want = item.Header.Last() + 1
				}
				if each != nil {
					each(item)
				}
			}
		}
	}
	work.Go(follow(nil))
	work.Go(follow(func(i Item) {
		if v, _ := twin.View(); i.Raw == nil || i.Header.First == v.Last+1 {
			ship(t, twin, []Item{i})
		}
	}))
	waiting, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for { // what nobody else has cannot be repaired
		v, changed := twin.View()
		if v.Durable > 100 {
			break
		}
		select {
		case <-changed:
		case <-waiting.Done():
			t.Fatal("nothing was shipped")
		}
	}
	repaired := 0
	for round := range 8 {
		overwrite(t, fs, receiverPath(1), HeaderSize+1000+int64(round)*500, []byte{1, 2, 3, 4, 5, 6, 7, byte(round)})
		rot, err := j.Inspect(t.Context(), 1, nil)
		must(t, err)
		if rot == nil {
			t.Fatal("the rot was not found")
		}
		deadline := time.Now().Add(10 * time.Second)
		for {
			if _, err = j.Repair(t.Context(), rot, []Twin{journalTwin{twin}}, nil); err == nil {
				repaired++
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if rot, err := j.Inspect(t.Context(), 1, nil); err != nil || rot != nil {
			t.Fatalf("after the repair: %v, %v", rot, err)
		}
	}
	cancel()
	work.Wait()
	end := flush(t, j)
	j = reopen(t, j, o)
	if v, _ := j.View(); v.Last != end.Last || v.Torn {
		t.Errorf("after a restart the journal ends at %s, want %s; torn %t", v.Last, end.Last, v.Torn)
	}
	must(t, j.Verify(t.Context()))
	if repaired != 8 {
		t.Errorf("%d repairs", repaired)
	}
}

// Proves BX-8: a reader that has the attached receiver open lets go of the old file when it is repaired, and misses nothing of what
// is written to the new one.
func TestReadersFollowTheRepairedFile(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	r, err := p.j.Reader(p.receiver(t, v.Attached).First)
	must(t, err)
	defer r.Close()
	read := drain(t, r)
	last := read[len(read)-1].Header.Last()
	overwrite(t, p.fs, receiverPath(v.Attached), HeaderSize+20, []byte{1, 2, 3, 4})
	rot := inspected(t, p.j)
	if len(rot) != 1 || last != v.Last {
		t.Fatal(rot, last)
	}
	if _, err := p.j.Repair(t.Context(), rot[0], []Twin{p.twin}, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		deposit(t, p.j, 3, 1, 100)
		flush(t, p.j)
	}
	for range 2 {
		deposit(t, p.j, 3, 1, 100) // what went before leaves the ring
		flush(t, p.j)
	}
	for _, item := range drain(t, r) {
		if item.Raw == nil {
			continue
		}
		if item.Header.First != last+1 {
			t.Errorf("read %s after %s", item.Header.First, last)
		}
		last = item.Header.Last()
	}
	if v, _ := p.j.View(); last != v.Last {
		t.Errorf("read up to %s of %s", last, v.Last)
	}
}
