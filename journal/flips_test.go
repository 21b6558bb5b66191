package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

var flips = flag.Int("rot.flips", flipsPerRun, "single bits to flip")

// journalTwin is a copy of the journal that is open elsewhere.
type journalTwin struct{ j *Journal }

func (journalTwin) Name() string { return "twin" }

func (t journalTwin) Numbers(context.Context) ([]ident.ReceiverNumber, error) {
	var out []ident.ReceiverNumber
	for _, r := range t.j.Receivers() {
		out = append(out, r.Number)
	}
	return out, nil
}

func (t journalTwin) Receiver(_ context.Context, n ident.ReceiverNumber) (TwinContent, error) {
	c, err := t.j.Content(n)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// files returns the content of every file in the journal's directory.
func files(t testing.TB, fs vfs.FS, dir string) map[string][]byte {
	t.Helper()
	names, err := fs.List(dir)
	must(t, err)
	out := map[string][]byte{}
	for _, name := range names {
		if name == stateName+tempSuffix || strings.Contains(name, spareSuffix) { // space set aside, which comes and goes: nothing is read from it
			continue
		}
		out[name] = readFile(t, fs, fs.PathJoin(dir, name))
	}
	return out
}

// equalButZeros tells whether two files differ in the zeros at their ends at most: how many there are depends on who made them.
func equalButZeros(a, b []byte) bool {
	return bytes.Equal(bytes.TrimRight(a, "\x00"), bytes.TrimRight(b, "\x00"))
}

// restore makes the directory hold exactly these files.
func restore(t testing.TB, fs vfs.FS, dir string, want map[string][]byte) {
	t.Helper()
	must(t, fs.RemoveAll(dir))
	must(t, fs.MkdirAll(dir, 0o755))
	for name, b := range want {
		f, err := fs.Create(fs.PathJoin(dir, name), category)
		must(t, err)
		_, err = f.Write(bytes.Clone(b)) // built for the race detector, the file system spoils what it was given
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
	}
}

// manyReceivers fills a journal in several epochs, so that some receivers are read at Open and others are not.
func manyReceivers(t testing.TB, j *Journal, chance *rand.Rand) {
	t.Helper()
	for e := uint64(1); e <= 3; e++ {
		for range 24 {
			entries := changes(1+chance.IntN(3), 0)
			for i := range entries {
				v := make([]byte, chance.IntN(900))
				for k := range v {
					v[k] = byte(chance.Uint32())
				}
				entries[i].After = &entry.Image{Value: v}
			}
			v, _ := j.View()
			_, err := j.Deposit(Draft{Entries: entries, Session: ident.Epoch(e), FactEpoch: ident.Epoch(e), Before: v.After})
			must(t, err)
		}
		flush(t, j)
	}
}

// truth is what the journal holds, by first sequence.
type truth map[ident.Sequence][]byte

func remember(t testing.TB, j *Journal) truth {
	t.Helper()
	r, err := j.Reader(0)
	must(t, err)
	defer r.Close()
	out := truth{}
	for _, i := range drain(t, r) {
		if i.Raw != nil {
			out[i.Header.First] = i.Raw
		}
	}
	return out
}

// served reads everything there is and fails the test for any bundle that is not the truth. It tells how many were read, and
// whether rot was met.
func (w truth) served(t testing.TB, j *Journal) (n int, met bool) {
	t.Helper()
	var broken *CorruptionError
	r, err := j.Reader(0)
	if errors.As(err, &broken) {
		return 0, true
	}
	must(t, err)
	defer r.Close()
	for {
		item, ok, err := r.TryNext()
		switch {
		case errors.As(err, &broken):
			return n, true
		case err != nil:
			t.Fatalf("read: %v", err)
		case !ok:
			return n, false
		case item.Raw == nil:
			continue
		case !bytes.Equal(item.Raw, w[item.Header.First]):
			t.Fatalf("sequence %s was served with other bytes than were written", item.Header.First)
		}
		n++
	}
}

// inspected returns all rot that a check of the whole journal finds.
func inspected(t testing.TB, j *Journal) []*Rot {
	t.Helper()
	var out []*Rot
	for _, r := range j.Receivers() {
		rot, err := j.Inspect(context.Background(), r.Number, nil)
		must(t, err)
		if rot != nil {
			out = append(out, rot)
		}
	}
	rot, err := j.InspectState()
	must(t, err)
	if rot != nil {
		out = append(out, rot)
	}
	return out
}

// Proves BX-7, BX-8, I9: of ten thousand single bits that flip anywhere in the directory of a journal, headers, bundles, the zeros
// behind them and the state file, each is noticed by the start, a reader or a check; none of them is ever served; each is repaired
// to byte equality when a twin can be asked; and without one nothing is changed that is not known in memory. What a bit means:
// in a header the journal does not open; in a bundle of the newest receiver, or of one in which a run begins, neither; in another
// bundle a reader meets it; in the zeros behind a detached receiver only a check does, and it is harmless; in the zeros behind the
// newest one the start takes it for a torn tail; in the first sector of the state file the journal does not open; in a mark the
// older one counts; in the rest of a mark's sector only a check sees it.
func TestEveryFlippedBitIsFoundAndRepaired(t *testing.T) {
	if testing.Short() {
		*flips = min(*flips, 1000)
	}
	seed := uint64(20)
	chance := rand.New(rand.NewPCG(seed, 1))
	fs := vfs.NewMem()
	o := options(fs)
	o.ReceiverBytes, o.SpareBytes = 8<<10, -1 // a spare with a bit in it is not taken: see TestSparesAreMadeAhead
	j := active(t, o)
	manyReceivers(t, j, chance)
	want := remember(t, j)
	there := o
	there.Dir = "twin/journals/orders/a"
	twin := journalTwin{copyOf(t, j, there)}
	flush(t, twin.j)
	must(t, j.Close())

	whole := files(t, fs, testDir)
	names := slices.Sorted(maps.Keys(whole))
	total := 0
	for _, b := range whole {
		total += len(b)
	}
	newest := names[len(names)-2] // "state" is the last
	t.Logf("%d files with %d bytes, %d bundles, seed %d", len(names), total, len(want), seed)
	if len(names) < 12 {
		t.Fatalf("only %d files", len(names))
	}
	how := map[string]int{}
	for round := range *flips {
		at := chance.IntN(total)
		if round%8 == 0 { // one file of a few hundred bytes would hardly ever be hit
			at = total - 1 - chance.IntN(stateSize)
		}
		name := ""
		for _, name = range names {
			if at < len(whole[name]) {
				break
			}
			at -= len(whole[name])
		}
		bit := byte(1) << chance.IntN(8)
		overwrite(t, fs, testDir+"/"+name, int64(at), []byte{whole[name][at] ^ bit})
		where := fmt.Sprintf("round %d, bit %d of byte %d of %s", round, bit, at, name)
		flipped := maps.Clone(whole)
		flipped[name] = bytes.Clone(whole[name])
		flipped[name][at] ^= bit
		unchanged := func(after string) {
			t.Helper()
			if have := files(t, fs, testDir); !maps.EqualFunc(have, flipped, bytes.Equal) {
				t.Fatalf("%s: changed by %s", where, after)
			}
		}

		found := ""
		j, err := Open(o)
		if err != nil {
			found = "open"
			if !Damaged(err) {
				t.Fatalf("%s: %v", where, err)
			}
			unchanged("a start that failed")
			if _, err := Mend(t.Context(), o, true, nil, nil); !errors.Is(err, ErrNoTwin) {
				t.Fatalf("%s: repaired without a twin: %v", where, err)
			}
			unchanged("a repair without a twin")
			done, err := Mend(t.Context(), o, true, []Twin{twin}, nil)
			if err != nil || len(done) != 1 {
				t.Fatalf("%s: %v, %+v", where, err, done)
			}
			j = open(t, o)
		} else {
			v, _ := j.View()
			if v.Torn {
				found = "open, as a torn tail"
				if name != newest || len(bytes.Trim(whole[name][at:], "\x00")) > 0 {
					t.Fatalf("%s: taken for a torn tail", where)
				}
			}
			n, met := want.served(t, j)
			if !met && n != len(want) {
				t.Fatalf("%s: %d bundles read", where, n)
			}
			rot := inspected(t, j)
			switch {
			case found != "":
			case len(rot) != 1:
				t.Fatalf("%s: found %v", where, rot)
			case met:
				found = "read"
			default:
				found = "check, " + string(rot[0].Kind)
			}
			for _, r := range rot {
				if r.First != 0 {
					if _, err := j.Repair(t.Context(), r, nil, nil); !errors.Is(err, ErrNoTwin) {
						t.Fatalf("%s: repaired without a twin: %v", where, err)
					}
					unchanged("a repair without a twin")
				}
				if _, err := j.Repair(t.Context(), r, []Twin{twin}, nil); err != nil {
					t.Fatalf("%s: %v: %v", where, r, err)
				}
			}
		}
		how[found]++
		if n, met := want.served(t, j); met || n != len(want) {
			t.Fatalf("%s: after the repair %d of %d bundles are read", where, n, len(want))
		}
		if rot := inspected(t, j); len(rot) > 0 {
			t.Fatalf("%s: after the repair: %v", where, rot)
		}
		must(t, j.Close())
		for file, b := range files(t, fs, testDir) {
			if file == stateName || strings.Contains(file, badInfix) {
				continue
			}
			if !equalButZeros(b, whole[file]) {
				t.Fatalf("%s: %s is not what it was", where, file)
			}
		}
		restore(t, fs, testDir, whole)
	}
	for _, k := range slices.Sorted(maps.Keys(how)) {
		t.Logf("%6d found by %s", how[k], k)
	}
}

var _ io.ReaderAt = (*Content)(nil)
