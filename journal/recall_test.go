package journal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// contentOf returns the bytes of a receiver as Content gives them.
func contentOf(t testing.TB, j *Journal, n ident.ReceiverNumber) []byte {
	t.Helper()
	c, err := j.Content(n)
	must(t, err)
	defer c.Close()
	b, err := io.ReadAll(c.Section())
	must(t, err)
	return b
}

// five returns a journal with five receivers, runs of three epochs in them, and the content of all but the last.
func five(t testing.TB, o Options) (*Journal, map[ident.ReceiverNumber][]byte) {
	t.Helper()
	j := active(t, o)
	for n := uint64(1); n <= 5; n++ {
		deposit(t, j, 1+n/2, 2, 900)
		deposit(t, j, 1+n/2, 1, 100)
		if n < 5 {
			_, err := j.ChangeReceiver(ident.Epoch(n))
			must(t, err)
		}
	}
	flush(t, j)
	contents := map[ident.ReceiverNumber][]byte{}
	for n := ident.ReceiverNumber(1); n <= 4; n++ {
		contents[n] = contentOf(t, j, n)
	}
	return j, contents
}

// Proves HB-6: a receiver that left the disk is put back in front of the journal, one after the other, and everything reads as
// before, also after a restart; deposits go on.
func TestRecall(t *testing.T) {
	o := options(vfs.NewMem())
	j, contents := five(t, o)
	before, _ := j.View()
	r, err := j.Reader(0)
	must(t, err)
	all := drain(t, r)
	must(t, r.Close())
	must(t, j.DeleteReceivers(3))
	follower, err := j.Reader(0)
	must(t, err)
	defer follower.Close()
	for n := ident.ReceiverNumber(3); n >= 1; n-- {
		info, err := j.Recall(bytes.NewReader(contents[n]))
		must(t, err)
		if info.Number != n || j.Receivers()[0] != info {
			t.Fatalf("recalled %+v, held %+v", info, j.Receivers()[0])
		}
	}
	deposit(t, j, 3, 1, 10)
	flush(t, j)
	for round := range 2 {
		v, _ := j.View()
		if v.First != before.First || len(v.Runs) != len(before.Runs) || v.Runs[0] != before.Runs[0] {
			t.Fatalf("round %d: %+v, was %+v", round, v, before)
		}
		must(t, j.Verify(t.Context()))
		r, err := j.Reader(0)
		must(t, err)
		again := drain(t, r)
		must(t, r.Close())
		for i := range all {
			if !bytes.Equal(all[i].Raw, again[i].Raw) || !bytes.Equal(all[i].ReceiverHeader, again[i].ReceiverHeader) {
				t.Fatalf("round %d: item %d differs", round, i)
			}
		}
		for _, run := range v.Runs {
			if _, ok, err := j.FindHistory(ident.Position{Epoch: run.Epoch, History: run.From}); err != nil || !ok {
				t.Fatalf("fact %s.%s: %v %v", run.Epoch, run.From, ok, err)
			}
		}
		j = reopen(t, j, o)
	}
	must(t, j.DeleteReceivers(2)) // what was recalled goes like anything else
	if v, _ := j.View(); v.First == before.First {
		t.Error("recalled receivers stay")
	}
}

// Proves HB-6: only the receiver that ends where the journal begins is taken, whole and to the letter; anything else changes nothing.
func TestRecallTakesOnlyWhatContinues(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	j, contents := five(t, o)
	must(t, j.DeleteReceivers(3))
	held := j.Receivers()

	other := options(vfs.NewMem())
	other.ReceiverBytes++
	k := active(t, other)
	for n := range 4 { // the same numbers and sequences, other bytes
		deposit(t, k, 1+(uint64(n)+1)/2, 2, 901)
		deposit(t, k, 1+(uint64(n)+1)/2, 1, 100)
		_, err := k.ChangeReceiver(ident.Epoch(n + 1))
		must(t, err)
	}
	flush(t, k)
	foreign := options(vfs.NewMem())
	foreign.ID.Node = "b"
	stranger, strange := five(t, foreign)
	must(t, stranger.Close())

	flip := func(b []byte, at int) []byte {
		c := bytes.Clone(b)
		c[at] ^= 1
		return c
	}
	third := contents[3]
	var corrupt *CorruptionError
	for name, c := range map[string]struct {
		content []byte
		want    func(error) bool
	}{
		"an earlier one":         {contents[2], func(err error) bool { return errors.Is(err, ErrNotBefore) }},
		"one that is held":       {contents[4], func(err error) bool { return errors.Is(err, ErrNotBefore) }},
		"another chain":          {contentOf(t, k, 3), func(err error) bool { return errors.Is(err, ErrNotBefore) }},
		"another journal's":      {strange[3], func(err error) bool { return err != nil }},
		"without its end":        {third[:len(third)-144], func(err error) bool { return errors.Is(err, ErrNotBefore) || errors.As(err, &corrupt) }},
		"cut in a bundle":        {third[:len(third)-8], func(err error) bool { return errors.As(err, &corrupt) }},
		"cut in the header":      {third[:100], func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"a rotten header":        {flip(third, 20), func(err error) bool { return err != nil }},
		"a rotten bundle":        {flip(third, HeaderSize+400), func(err error) bool { return errors.As(err, &corrupt) }},
		"something behind":       {append(bytes.Clone(third), 1, 2, 3), func(err error) bool { return errors.As(err, &corrupt) }},
		"nothing":                {nil, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"the end of the one own": {append(bytes.Clone(third), contents[4][HeaderSize:]...), func(err error) bool { return err != nil }},
	} {
		if _, err := j.Recall(bytes.NewReader(c.content)); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if now := j.Receivers(); len(now) != len(held) || now[0] != held[0] {
			t.Fatalf("%s: receivers %+v", name, now)
		}
		names, err := fs.List(testDir)
		must(t, err)
		for _, n := range names {
			if n == fileName(3) || n == fileName(3)+tempSuffix {
				t.Errorf("%s: left %s", name, n)
			}
		}
	}
	_, err := j.Recall(bytes.NewReader(append(bytes.Clone(third), make([]byte, 5000)...))) // as the file of a journal is
	must(t, err)
	if v, _ := j.View(); v.Err != nil {
		t.Error(v.Err)
	}
}

// A disk that takes no new file fails the recall, not the journal.
func TestRecallWithoutRoom(t *testing.T) {
	mem := vfs.NewMem()
	full := errors.New("no space left")
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWriteAt && bytes.HasSuffix([]byte(op.Path), []byte(tempSuffix)) && bytes.Contains([]byte(op.Path), []byte(fileName(3))) {
			return full
		}
		return nil
	})
	o := options(mem)
	first, contents := five(t, o)
	must(t, first.Close())
	o.FS = errorfs.Wrap(mem, inject)
	j := open(t, o)
	must(t, j.DeleteReceivers(3))
	if _, err := j.Recall(bytes.NewReader(contents[3])); !errors.Is(err, full) {
		t.Fatal(err)
	}
	deposit(t, j, 3, 1, 10)
	if v := flush(t, j); v.Err != nil {
		t.Fatal(v.Err)
	}
}

// Proves HB-6: a crash at any moment of a recall leaves the journal with the receiver or without it, and nothing else changed.
func TestRecallCrash(t *testing.T) {
	for seed := uint64(1); seed <= *crashRounds; seed++ {
		mem := vfs.NewCrashableMem()
		o := options(mem)
		first, contents := five(t, o)
		must(t, first.DeleteReceivers(3))
		want := flush(t, first)
		must(t, first.Close())

		c := &crasher{fs: mem, rng: rand.New(rand.NewPCG(seed, 7)), percents: []int{0, 50, 100}, branches: []branch{{}}}
		o.FS = errorfs.Wrap(mem, c)
		j := open(t, o)
		_, err := j.Recall(bytes.NewReader(contents[3]))
		must(t, err)
		_, err = j.Recall(bytes.NewReader(contents[2]))
		must(t, err)
		must(t, j.DeleteReceivers(3))
		must(t, j.Close())
		firsts := map[ident.Sequence]bool{}
		for _, i := range c.images {
			o := options(i.fs)
			k, err := Open(o)
			if err != nil {
				t.Errorf("%s: %v", i.name, err)
				continue
			}
			v, _ := k.View()
			firsts[v.First] = true
			if v.Last != want.Last || v.Chain != want.Chain || v.Durable != want.Durable || v.Torn {
				t.Errorf("%s: %+v, want %+v", i.name, v, want)
			}
			if err := k.Verify(t.Context()); err != nil {
				t.Errorf("%s: %v", i.name, err)
			}
			must(t, k.Close())
		}
		if len(c.images) < 20 || len(firsts) < 3 {
			t.Errorf("%d images with %d beginnings", len(c.images), len(firsts))
		}
	}
}
