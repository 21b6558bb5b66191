package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

const (
	patchSuffix = ".rcv.patch" + tempSuffix // of a receiver in the making; Open removes it
	badInfix    = ".rcv.bad-"               // between number and time: a rotten original, kept for inspection
	keptBad     = 3                         // the newest ones stay
)

// patch is a receiver in the making, in a temporary file: what is sound of the local one, and the rest from twins.
type patch struct {
	disk   disk
	name   string // of the temporary file
	file   vfs.File
	out    paced
	r      *receiver // as far as it was made
	parts  []part
	local  vfs.File // nil: there is none
	size   int64    // of local
	twins  []*twinPart
	origin int   // index of the part that the newest bundle came from
	first  int64 // offset of the first bundle that came from a twin; 0: none did

	reserved int64 // up to here the file has its space, beyond its end; 0: no farther than that
}

// newPatch begins to make a receiver with the given header. It must be discarded.
func (d disk) newPatch(ctx context.Context, pace Pace, h ReceiverHeader, raw []byte, twins []Twin) (*patch, error) {
	p := &patch{disk: d, name: d.path(h.Number.String() + patchSuffix), r: newReceiver(h, raw)}
	local, err := d.fs.Open(d.path(fileName(h.Number)))
	switch {
	case isNotExist(err):
		p.parts = []part{gonePart{}}
	case err != nil:
		return nil, fmt.Errorf("open receiver %s: %w", h.Number, err)
	default:
		p.local = local
		info, err := local.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("look at receiver %s: %w", h.Number, err), local.Close())
		}
		p.size = info.Size()
		p.parts = []part{newBytesPart(ctx, pace, local, p.size)}
	}
	for _, t := range twins {
		tp := &twinPart{ctx: ctx, pace: pace, twin: t, number: h.Number}
		p.twins, p.parts = append(p.twins, tp), append(p.parts, tp)
	}
	if p.file, err = d.fs.Create(p.name, category); err != nil {
		p.discard()
		return nil, fmt.Errorf("create %s: %w", p.name, err)
	}
	p.out.file = p.file
	if _, err := p.out.WriteAt(raw, 0); err != nil {
		p.discard()
		return nil, fmt.Errorf("write %s: %w", p.name, err)
	}
	return p, nil
}

// gonePart is a file that is missing.
type gonePart struct{}

func (gonePart) at(int64) (entry.Bundle, error) { return entry.Bundle{}, errGone }

// fill goes on up to until.
func (p *patch) fill(until ident.Sequence, enough func(error) bool) error {
	return splice(p.r, until, p.parts, enough, func(b entry.Bundle, from int) error {
		if p.origin = from; from > 0 {
			if p.twins[from-1].taken += int64(len(b.Raw)); p.first == 0 {
				p.first = p.r.end
			}
		}
		if _, err := p.out.WriteAt(b.Raw, p.r.end); err != nil {
			return fmt.Errorf("write %s: %w", p.name, err)
		}
		return nil
	})
}

// finish fills the rest with zeros up to size and makes everything durable.
func (p *patch) finish(from, size int64) error {
	if err := writeZeros(p.file, from, size); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", p.name, err)
	}
	return nil
}

// reserve sets space aside for what is still to come, as the rotten file had it. On a full disk there is none, and what is needed
// will be looked for before it is written.
func (p *patch) reserve(to int64) {
	if ok, err := reserve(p.file, 0, to); ok && err == nil {
		p.reserved = to
	}
}

// discard closes everything and removes the temporary file, unless it was installed.
func (p *patch) discard() {
	for _, t := range p.twins {
		t.close()
	}
	if p.local != nil {
		p.local.Close() // only read from
	}
	if p.file != nil {
		p.file.Close() // what counts was synced
		if p.name != "" {
			_ = p.disk.fs.Remove(p.name) // else the next start does
		}
	}
}

// install puts the finished file in the place of the rotten one, which stays beside it under another name. changed says that the
// name may lead to the new file: then an error of what follows leaves open which of the two a crash leaves. Both are what they were.
func (p *patch) install(now time.Time) (kept string, changed bool, err error) {
	d, n := p.disk, p.r.header.Number
	final := d.path(fileName(n))
	if p.local != nil {
		kept = n.String() + badInfix + now.UTC().Format("20060102T150405.000000000Z")
		if err := d.fs.Remove(d.path(kept)); err != nil && !isNotExist(err) {
			return "", false, fmt.Errorf("make room for %s: %w", kept, err)
		}
		if err := d.fs.Link(final, d.path(kept)); isNotExist(err) {
			kept = "" // it went meanwhile
		} else if err != nil {
			return "", false, fmt.Errorf("keep the rotten receiver as %s: %w", kept, err)
		}
	}
	if err := d.fs.Rename(p.name, final); err != nil {
		return kept, false, fmt.Errorf("install receiver %s: %w", n, err)
	}
	p.name = ""
	return kept, true, syncDir(d.fs, d.dir)
}

// pruneBad deletes all rotten originals but the newest. That it fails is no harm but for the space.
func (d disk) pruneBad() {
	names, err := d.fs.List(d.dir)
	if err != nil {
		return
	}
	var bad []string
	for _, name := range names {
		if strings.Contains(name, badInfix) {
			bad = append(bad, name)
		}
	}
	slices.SortFunc(bad, func(a, b string) int {
		return strings.Compare(a[strings.Index(a, badInfix):]+a, b[strings.Index(b, badInfix):]+b)
	})
	for _, name := range bad[:max(0, len(bad)-keptBad)] {
		_ = d.fs.Remove(d.path(name))
	}
}

// Repaired says what a repair did.
type Repaired struct {
	Journal  ident.JournalID
	Receiver ident.ReceiverNumber // 0: the state file
	Bytes    int64                // that came from twins
	From     []string             // those twins
	Kept     string               // name of the file with the rotten original; "" when there was none
	Torn     bool                 // the end may have been lost: the journal counts as one whose tail was torn
}

func (p *patch) repaired(kept string, torn bool) Repaired {
	out := Repaired{Journal: p.disk.id, Receiver: p.r.header.Number, Kept: kept, Torn: torn}
	for _, t := range p.twins {
		if t.taken > 0 {
			out.Bytes, out.From = out.Bytes+t.taken, append(out.From, t.twin.Name())
		}
	}
	return out
}

// ErrNoTwin: nobody who could be asked has what is missing here.
var ErrNoTwin = errors.New("no other node that can be asked holds what is missing; start the other data nodes")

// errMoved: the journal changed under a repair; begin it again.
var errMoved = errors.New("the journal changed meanwhile")

// Repair makes whole again what Inspect or InspectState found, and keeps the rotten file aside. What is known in memory is
// written anew; bundles come from what is sound here and from the twins, and take the place only when they are what this
// journal knows to have been there: equal to the byte. Without that nothing is changed, and the error says what is missing.
// Deposits and readers go on; the writer is held up for the last step only.
func (j *Journal) Repair(ctx context.Context, rot *Rot, twins []Twin, pace Pace) (Repaired, error) {
	done, err := j.repair(ctx, rot, twins, pace)
	if err != nil {
		return Repaired{}, fmt.Errorf("repair receiver %s of journal %s: %w", rot.Receiver, j.disk.id, err)
	}
	return done, nil
}

func (j *Journal) repair(ctx context.Context, rot *Rot, twins []Twin, pace Pace) (Repaired, error) {
	if rot.Kind == RotState {
		var short error
		err := j.do(func(w *writer) (err error) {
			short, err = w.saveRecord()
			return err
		})
		return Repaired{Journal: j.disk.id}, errors.Join(short, err)
	}
	for {
		k, err := j.know(rot.Receiver)
		if err != nil {
			return Repaired{}, err
		}
		if rot.Kind == RotBehind && k.attached {
			_, err := j.strayByte(k.receiver, true)
			return Repaired{Journal: j.disk.id, Receiver: rot.Receiver}, err
		}
		choices := menu(len(twins))
		if rot.First == 0 {
			choices = slices.Insert(choices, 0, []int{}) // nothing is missing here
		}
		if len(choices) == 0 {
			return Repaired{}, ErrNoTwin
		}
		var why []error
		for _, choice := range choices {
			var asked []Twin
			for _, i := range choice {
				asked = append(asked, twins[i])
			}
			done, err := j.patch(ctx, k, asked, pace)
			if err == nil {
				return done, nil
			}
			if why = append(why, err); ctx.Err() != nil || errors.Is(err, errMoved) {
				break
			}
		}
		if err := errors.Join(why...); !errors.Is(err, errMoved) || ctx.Err() != nil {
			return Repaired{}, err
		}
	}
}

// aside is how much the writer may have to copy for the last step.
const aside = 1 << 20

// patch makes receiver k anew and installs it.
func (j *Journal) patch(ctx context.Context, k known, twins []Twin, pace Pace) (Repaired, error) {
	p, err := j.disk.newPatch(ctx, pace, k.header, k.raw, twins)
	if err != nil {
		return Repaired{}, err
	}
	defer p.discard()
	for {
		if err := p.fill(k.want.last, nil); err != nil {
			return Repaired{}, err
		}
		if p.r.last != k.want.last || p.r.chain != k.want.chain || k.whole && p.r.tail != k.want {
			return Repaired{}, fmt.Errorf("%w: what the copies hold is not what stood here", errChain)
		}
		if k.whole && !k.attached {
			break
		}
		end := k.written
		now, err := j.know(k.header.Number)
		if err != nil || now.receiver != k.receiver || now.generation != k.generation {
			return Repaired{}, errors.Join(errMoved, err)
		}
		if k = now; k.written-end < aside {
			break // the writer does the rest
		}
	}
	if err := p.finish(p.r.end, k.size); err != nil {
		return Repaired{}, err
	}
	return j.install(p, k)
}

// install takes the patch over. The writer does it, after everything that was appended is on disk.
func (j *Journal) install(p *patch, k known) (Repaired, error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return Repaired{}, err
	}
	if !j.still(k) {
		return Repaired{}, errMoved
	}
	var kept string
	var declined error // nothing was changed, and the journal goes on
	err := j.do(func(w *writer) error {
		if declined = w.complete(p, k.receiver, k.size); declined != nil {
			return nil
		}
		if w.current == k.receiver {
			if err := w.closeReceiver(); err != nil {
				return err
			}
		}
		var changed bool
		var err error
		if kept, changed, err = p.install(j.clock.Now()); !changed {
			declined = err
			return nil
		}
		j.mu.Lock()
		k.receiver.allotted = max(k.receiver.size, p.reserved) // what was set aside in the old file does not count
		// Nothing was removed, but whoever has the old file open must let go of it: it does not grow any more.
		j.cutLocked(j.view.Last, j.view.Attached)
		j.publishLocked()
		j.mu.Unlock()
		return err
	})
	if err := errors.Join(err, declined); err != nil {
		return Repaired{}, err
	}
	j.disk.pruneBad()
	return p.repaired(kept, false), nil
}

// complete adds to the patch, which has zeros up to padded, what was written to the receiver since. The file that the writer has
// open counts even when its name is gone.
func (w *writer) complete(p *patch, r *receiver, padded int64) error {
	w.j.mu.RLock()
	want, end, size, allotted, indexed := r.tail, r.end, r.size, r.allotted, r.indexed
	w.j.mu.RUnlock()
	if p.r.tail != want {
		file := w.file
		if file == nil || w.current != r {
			if file = p.local; file == nil {
				return errMoved
			}
		}
		p.parts = []part{&bytesPart{scanner{file: file, limit: end}}}
		if err := p.fill(want.last, nil); err != nil {
			return err
		}
	}
	if p.r.tail != want || indexed && p.r.end != end {
		return fmt.Errorf("%w: what was written last does not continue the repaired part", errChain)
	}
	if err := p.finish(max(p.r.end, padded), size); err != nil {
		return err
	}
	if allotted > size {
		p.reserve(allotted)
	}
	return nil
}
