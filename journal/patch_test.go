package journal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// heldUp is a disk that is whole until it is armed.
type heldUp struct {
	cutOff
	armed bool
}

func (h *heldUp) arm(after int) { h.left, h.armed = after, true }

func newHeldUp(fs vfs.FS) *heldUp {
	h := &heldUp{}
	h.cutOff = cutOff{FS: fs, left: 1 << 60}
	return h
}

// Proves BX-8, RJ-9: a machine that dies at any moment of the repair of a detached receiver of an open journal leaves the rotten file or the repaired
// one, whole, under its name; once the repair has said that it is done, it is the repaired one, and the rotten one stands beside it.
func TestRepairSurvivesCrashes(t *testing.T) {
	chance := rand.New(rand.NewPCG(5, 5))
	for _, missing := range []bool{false, true} {
		for step, done := 0, false; !done; step++ {
			if step > 100 {
				t.Fatal("the repair never ends")
			}
			mem := vfs.NewCrashableMem()
			disk := newHeldUp(mem)
			o := options(disk)
			o.ReceiverBytes, o.SpareBytes = 8<<10, -1
			j := active(t, o)
			manyReceivers(t, j, rand.New(rand.NewPCG(7, 7)))
			there := options(vfs.NewMem())
			there.ReceiverBytes = o.ReceiverBytes
			twin := journalTwin{copyOf(t, j, there)}
			flush(t, twin.j)
			const n = 4
			whole := readFile(t, mem, receiverPath(n))
			if missing {
				must(t, mem.Remove(receiverPath(n)))
			} else {
				overwrite(t, mem, receiverPath(n), HeaderSize+600, []byte{1, 2, 3})
			}
			must(t, syncDir(mem, testDir))
			rot, err := j.Inspect(t.Context(), n, nil)
			if err != nil || rot == nil {
				t.Fatal(rot, err)
			}
			var rotten []byte
			if !missing {
				rotten = readFile(t, mem, receiverPath(n))
			}
			disk.arm(step)
			repaired, err := j.Repair(t.Context(), rot, []Twin{twin}, nil)
			done = err == nil
			for _, percent := range []int{0, chance.IntN(101), 100} {
				after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(step), 1))})
				var have []byte
				if _, err := after.Stat(receiverPath(n)); err == nil {
					have = readFile(t, after, receiverPath(n))
				} else if !missing || done {
					t.Fatalf("moment %d, %d percent: the receiver is gone: %v", step, percent, err)
				}
				if isWhole := equalButZeros(have, whole); !isWhole && (done || !bytes.Equal(have, rotten)) {
					t.Fatalf("moment %d, %d percent, done %v: %d bytes that are neither the rotten file nor the repaired one", step, percent, done, len(have))
				}
				if done && !missing {
					if kept := readFile(t, after, testDir+"/"+repaired.Kept); !bytes.Equal(kept, rotten) {
						t.Fatalf("the rotten file was not kept as it was")
					}
				}
			}
			if !done && j.glance().Err == nil && !errors.Is(err, errCutOff) {
				t.Fatalf("moment %d: %v", step, err)
			}
			for _, name := range list(t, mem, ".patch"+tempSuffix) {
				if disk.cut {
					break // nothing can be removed any more: the next start does
				}
				t.Errorf("left over: %s", name)
			}
			j.Close()
			must(t, twin.j.Close())
		}
	}
}

// Of the rotten originals the newest stay, whatever receivers they are of.
func TestNewestRottenFilesAreKept(t *testing.T) {
	fs := vfs.NewMem()
	must(t, fs.MkdirAll(testDir, 0o755))
	name := func(n ident.ReceiverNumber, day string) string {
		return n.String() + badInfix + "202301" + day + "T000000.000000000Z"
	}
	old := []string{name(9, "01"), name(2, "02"), name(5, "03")}
	newest := []string{name(1, "05"), name(3, "04"), name(7, "05")}
	for _, n := range append(append(slices.Clone(old), newest...), fileName(4), stateName) {
		overwrite(t, fs, testDir+"/"+n, 0, []byte{1})
	}
	disk{fs: fs, dir: testDir}.pruneBad()
	names, err := fs.List(testDir)
	must(t, err)
	slices.Sort(names)
	want := append(slices.Clone(newest), fileName(4), stateName)
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("%v\nwant %v", names, want)
	}
}

// meddling is a twin that does something to the journal while it is asked.
type meddling struct {
	journalTwin
	do func()
}

func (m *meddling) Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.journalTwin.Receiver(ctx, n)
}

// Proves BX-8: a receiver that is deleted, or whose end is removed, while it is repaired does not come back.
func TestRepairOfWhatGoesMeanwhile(t *testing.T) {
	p := newPair(t)
	v, _ := p.j.View()
	n, at := p.offset(t, v.Last/2)
	overwrite(t, p.fs, receiverPath(n), at+30, []byte{1, 2, 3})
	rot := inspected(t, p.j)
	if len(rot) != 1 {
		t.Fatal(rot)
	}
	deletes := &meddling{p.twin, func() { must(t, p.j.DeleteReceivers(n)) }}
	if done, err := p.j.Repair(t.Context(), rot[0], []Twin{deletes}, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("deleted meanwhile: %+v, %v", done, err)
	}
	for _, name := range list(t, p.fs, "") {
		if strings.HasPrefix(name, n.String()+".rcv") {
			t.Errorf("%s is there", name)
		}
	}
	last := p.receiver(t, v.Attached)
	_, at = p.offset(t, v.Last)
	overwrite(t, p.fs, receiverPath(v.Attached), at+20, []byte{1, 2, 3})
	if rot = inspected(t, p.j); len(rot) != 1 {
		t.Fatal(rot)
	}
	rewinds := &meddling{p.twin, func() { must(t, p.j.Rewind(last.First)) }} // J PR stays
	if _, err := p.j.Repair(t.Context(), rot[0], []Twin{rewinds}, nil); err != nil {
		t.Errorf("its end was removed meanwhile: %v", err)
	}
	deposit(t, p.j, 9, 1, 10)
	end := flush(t, p.j)
	p.j = reopen(t, p.j, p.o)
	if again, _ := p.j.View(); again.Last != end.Last || again.Chain != end.Chain {
		t.Errorf("after a restart the journal ends at %s, want %s", again.Last, end.Last)
	}
	must(t, p.j.Verify(t.Context()))
}

// A file that goes while it is repaired is not kept, and the repaired one takes its name.
func TestRottenFileThatIsGone(t *testing.T) {
	p := newPair(t)
	k, err := p.j.know(4)
	must(t, err)
	made, err := p.j.disk.newPatch(t.Context(), nil, k.header, k.raw, nil)
	must(t, err)
	must(t, made.fill(k.want.last, nil))
	must(t, made.finish(made.r.end, k.size))
	must(t, p.fs.Remove(receiverPath(4)))
	if kept, changed, err := made.install(fixedClock{}.Now()); kept != "" || !changed || err != nil {
		t.Errorf("kept %q, changed %v, %v", kept, changed, err)
	}
	made.discard()
	p.sound(t)
}

// shelfPart holds bundles by their offset.
type shelfPart struct {
	bundles map[int64]entry.Bundle
	asked   int
}

func (s *shelfPart) at(offset int64) (entry.Bundle, error) {
	s.asked++
	if b, ok := s.bundles[offset]; ok {
		return b, nil
	}
	return entry.Bundle{}, io.EOF
}

// Proves BX-8, I9: a bundle that fits the chain and gives itself another sequence is not taken; who has enough is not followed by another.
func TestSpliceTakesTheNextSequenceOnly(t *testing.T) {
	forge := func(first ident.Sequence, entries []entry.Entry, before ident.Position, chain ident.Chain) entry.Bundle {
		raw, _, err := entry.Seal(nil, entry.Header{First: first, Session: 1, Before: before, Fact: ident.Position{Epoch: 1}, Chain: chain}, entries)
		must(t, err)
		b, err := entry.Decode(raw)
		must(t, err)
		return b
	}
	previous := []entry.Entry{{Code: entry.Journal, Type: entry.Previous}}
	h := ReceiverHeader{Number: 1, First: 1}
	begin := func() *receiver { return newReceiver(h, nil) }
	keep := func(entry.Bundle, int) error { return nil }
	for first, want := range map[ident.Sequence]bool{1: true, 2: false, 7: false} {
		r := begin()
		one := &shelfPart{bundles: map[int64]entry.Bundle{HeaderSize: forge(first, previous, r.after, r.chain)}}
		if err := splice(r, first, []part{one}, nil, keep); (err == nil) != want || !want && !r.empty() {
			t.Errorf("a bundle with sequence %s as the first one: %v", first, err)
		}
	}
	b := forge(1, previous, ident.Position{}, begin().chain)
	other := &shelfPart{bundles: map[int64]entry.Bundle{HeaderSize: forge(1, previous, ident.Position{}, begin().chain+1)}}
	if r := begin(); !errors.Is(splice(r, 1, []part{other}, nil, keep), errChain) || !r.empty() {
		t.Errorf("a bundle of another chain was taken: the receiver ends at %s", r.last)
	}
	r, full := begin(), errors.New("no space")
	if err := splice(r, 1, []part{&shelfPart{bundles: map[int64]entry.Bundle{HeaderSize: b}}}, nil, func(entry.Bundle, int) error { return full }); !errors.Is(err, full) || !r.empty() {
		t.Errorf("a bundle that could not be written: %v; the receiver ends at %s", err, r.last)
	}
	for _, enough := range []bool{true, false} {
		r, first, second := begin(), &shelfPart{}, &shelfPart{bundles: map[int64]entry.Bundle{HeaderSize: b}}
		err := splice(r, 1, []part{first, second}, func(why error) bool {
			if why != io.EOF {
				t.Errorf("the first part ends with %v", why)
			}
			return enough
		}, keep)
		if err != nil || r.empty() != enough || (second.asked == 0) != enough {
			t.Errorf("enough %v: %v; the second part was asked %d times, and the receiver ends at %s", enough, err, second.asked, r.last)
		}
	}
}

// A twin that did not answer is not asked again for every bundle; one whose content ends right behind the header has one.
func TestATwinIsAskedOnce(t *testing.T) {
	asked := 0
	p := &twinPart{ctx: t.Context(), number: 3, twin: countedTwin{silent{}, &asked}}
	for range 3 {
		if _, err := p.at(HeaderSize); !errors.Is(err, errSilent) {
			t.Error(err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	raw := bytes.Repeat([]byte{7}, HeaderSize)
	p = &twinPart{ctx: t.Context(), number: 3, twin: atEnd{silent{}, raw}}
	if have, err := p.header(); err != nil || !bytes.Equal(have, raw) {
		t.Errorf("a header and nothing else: %v", err)
	}
	p.close()
	p = &twinPart{ctx: t.Context(), number: 3, twin: atEnd{silent{}, raw[1:]}}
	if _, err := p.header(); err == nil {
		t.Error("less than a header was taken for one")
	}
	p.close()
}

type countedTwin struct {
	silent
	asked *int
}

func (c countedTwin) Receiver(ctx context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	*c.asked++
	return c.silent.Receiver(ctx, n)
}

// atEnd is a twin whose content says that it ends together with the last bytes.
type atEnd struct {
	silent
	b []byte
}

func (a atEnd) Receiver(context.Context, ident.ReceiverNumber) (TwinContent, error) {
	return endContent{a.b}, nil
}

type endContent struct{ b []byte }

func (endContent) Close() error  { return nil }
func (c endContent) Size() int64 { return int64(len(c.b)) }
func (c endContent) ReadAt(p []byte, at int64) (int, error) {
	n := copy(p, c.b[min(at, int64(len(c.b))):])
	if int(at)+n == len(c.b) {
		return n, io.EOF
	}
	return n, nil
}
