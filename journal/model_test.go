package journal

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// model is a journal as a list of bundles: what every look-up must agree with.
type model struct {
	bundles []entry.Bundle   // held
	starts  []ident.Sequence // first sequences of the receivers held
	base    End              // before the first bundle
	start   ident.Position   // history there
}

func (m *model) last() ident.Sequence {
	if len(m.bundles) == 0 {
		return m.base.Sequence
	}
	return m.bundles[len(m.bundles)-1].Last()
}

func (m *model) after() ident.Position {
	if len(m.bundles) == 0 {
		return m.start
	}
	return m.bundles[len(m.bundles)-1].After()
}

// runs by definition: neighbouring facts of one epoch, each continuing the one before.
func (m *model) runs() []Run {
	var runs []Run
	after := m.start
	for _, b := range m.bundles {
		if b.Facts == 0 {
			continue
		}
		if n := len(runs); n > 0 && b.Before == after && b.Fact.Epoch == after.Epoch {
			runs[n-1].To, runs[n-1].Last = b.After().History, b.Last()
		} else {
			first := b.First
			if n == 0 && b.Before == m.start && b.Fact.Epoch == m.start.Epoch { // its beginning is gone
				i, _ := slices.BinarySearch(m.starts, b.First+1)
				first = m.starts[i-1]
			}
			runs = append(runs, Run{Epoch: b.Fact.Epoch, From: b.Fact.History, To: b.After().History, Before: b.Before, First: first, Last: b.Last()})
		}
		after = b.After()
	}
	return runs
}

func (m *model) ends() []End {
	ends := []End{m.base}
	for _, b := range m.bundles {
		ends = append(ends, End{Sequence: b.Last(), Chain: entry.NextChain(b.Chain, b.Raw)})
	}
	return ends
}

// learn reads what was appended since.
func (m *model) learn(t *rapid.T, j *Journal) {
	v, _ := j.View()
	for m.last() < v.Last {
		b, err := j.BundleAt(m.last() + 1)
		if err != nil {
			t.Fatal(err)
		}
		if b.Holds(entry.Journal, entry.Previous) {
			m.starts = append(m.starts, b.First)
		}
		m.bundles = append(m.bundles, b)
	}
}

func (m *model) check(t *rapid.T, j *Journal) {
	v, _ := j.View()
	ends := m.ends()
	top := ends[len(ends)-1]
	if v.Last != top.Sequence || v.Chain != top.Chain || v.After != m.after() || len(m.starts) > 0 && v.First != m.starts[0] {
		t.Fatalf("view %+v, want end %+v at %s", v, top, m.after())
	}
	if want := m.runs(); !reflect.DeepEqual(v.Runs, want) {
		t.Fatalf("runs\n%+v, want\n%+v", v.Runs, want)
	}
	slices.Reverse(ends)
	n := rapid.IntRange(1, len(ends)+2).Draw(t, "n")
	from := rapid.Uint64Range(0, uint64(v.Last)+2).Draw(t, "from")
	var want []End
	for _, e := range ends {
		if e.Sequence <= ident.Sequence(from) && len(want) < n {
			want = append(want, e)
		}
	}
	if got, err := j.EndsBelow(ident.Sequence(from), n); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%d ends below %d:\n%v, want\n%v (%v)", n, from, got, want, err)
	}
	at := ident.Sequence(rapid.Uint64Range(0, uint64(v.Last)+2).Draw(t, "at"))
	chain, ok, err := j.ChainAt(at)
	i := slices.IndexFunc(ends, func(e End) bool { return e.Sequence == at })
	if err != nil || ok != (i >= 0) || ok && chain != ends[i].Chain {
		t.Fatalf("chain at %s: %s %v %v", at, chain, ok, err)
	}
	i = slices.IndexFunc(m.bundles, func(b entry.Bundle) bool { return b.First <= at && at <= b.Last() })
	switch b, err := j.BundleAt(at); {
	case i < 0 && !errors.Is(err, ErrNotHeld):
		t.Fatalf("bundle at %s: %v", at, err)
	case i >= 0 && (err != nil || !reflect.DeepEqual(b, m.bundles[i])):
		t.Fatalf("bundle at %s: %+v %v", at, b.Header, err)
	}
	m.find(t, j)
}

func (m *model) find(t *rapid.T, j *Journal) {
	p := ident.Position{
		Epoch:   ident.Epoch(rapid.Uint64Range(0, 6).Draw(t, "epoch")),
		History: ident.History(rapid.Uint64Range(0, uint64(m.after().History)+3).Draw(t, "h")),
	}
	if len(m.bundles) > 0 && rapid.Bool().Draw(t, "real") {
		p = rapid.SampledFrom(m.bundles).Draw(t, "bundle").After()
	}
	var contains, continues ident.Sequence
	live := func(p ident.Position) bool { return p.Epoch != 3 }
	for _, b := range m.bundles {
		if b.Facts > 0 && b.Fact.Epoch == p.Epoch && b.Fact.History <= p.History && p.History <= b.After().History {
			contains = b.First
		}
		if b.Facts > 0 && b.Before == p && live(b.Fact) {
			continues = b.First
		}
	}
	if got, ok, err := j.FindHistory(p); err != nil || got != contains || ok != (contains != 0) {
		t.Fatalf("fact %s: %s %v %v, want %s", p, got, ok, err, contains)
	}
	if got, ok, err := j.FindAfter(p, live); err != nil || got != continues || ok != (continues != 0) {
		t.Fatalf("after %s: %s %v %v, want %s", p, got, ok, err, continues)
	}
}

// Every look-up agrees with a plain list of bundles, after any sequence of deposits on any branch, changes of receivers,
// removals, deletions and restarts. Most receivers are not read at a restart, so what is known of them comes from the headers.
func TestAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := options(vfs.NewMem())
		o.ReceiverBytes = int64(rapid.SampledFrom([]int{1 << 12, 1 << 15, 1 << 20}).Draw(t, "receiver"))
		o.SpareBytes = o.ReceiverBytes * int64(rapid.IntRange(-1, 2).Draw(t, "spares"))
		o.RingBytes = int64(rapid.SampledFrom([]int{1, 4 << 10, 1 << 20}).Draw(t, "ring"))
		reopenJournal := func(j *Journal) *Journal {
			if j != nil {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			j, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		j := reopenJournal(nil)
		defer func() { j.Close() }()
		if err := j.SetState(Active); err != nil {
			t.Fatal(err)
		}
		m := &model{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"deposit", "deposit", "deposit", "jump", "ipl", "change", "rewind", "delete", "reopen", "flush", "limits"}).Draw(t, "step") {
			case "deposit":
				m.deposit(t, j, m.after(), m.after().Epoch)
			case "jump":
				before := m.after()
				if len(m.bundles) > 0 {
					before = rapid.SampledFrom(m.bundles).Draw(t, "fork").After()
				}
				m.deposit(t, j, before, max(before.Epoch, m.after().Epoch)+ident.Epoch(rapid.IntRange(0, 1).Draw(t, "more")))
			case "ipl":
				if _, err := j.Deposit(Draft{Entries: []entry.Entry{{Code: entry.Journal, Type: entry.IPL}}}); err != nil {
					t.Fatal(err)
				}
			case "change":
				if _, err := j.ChangeReceiver(1); err != nil {
					t.Fatal(err)
				}
			case "rewind":
				m.learn(t, j)
				last := rapid.SampledFrom(m.ends()).Draw(t, "last").Sequence
				if err := j.Rewind(last); err != nil {
					t.Fatal(err)
				}
				m.rewind(last)
			case "delete":
				m.learn(t, j)
				if r := j.Receivers(); len(r) > 1 {
					n := rapid.IntRange(0, len(r)-1).Draw(t, "receivers")
					if err := j.DeleteReceivers(r[n].Number - 1); err != nil {
						t.Fatal(err)
					}
					m.delete(r[n].First)
				}
			case "reopen":
				j = reopenJournal(j)
			case "limits":
				j.SetLimits(Limits{ReceiverBytes: o.ReceiverBytes, SpareBytes: o.ReceiverBytes * int64(rapid.IntRange(-1, 2).Draw(t, "spares"))})
			case "flush":
				v, _ := j.View()
				if err := j.WaitDurable(context.Background(), v.Last); err != nil {
					t.Fatal(err)
				}
			}
			m.learn(t, j)
			m.check(t, j)
		}
		if err := j.Verify(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

func (m *model) deposit(t *rapid.T, j *Journal, before ident.Position, epoch ident.Epoch) {
	for range rapid.IntRange(1, 5).Draw(t, "bundles") {
		epoch = max(1, epoch)
		e := changes(rapid.IntRange(1, 3).Draw(t, "facts"), rapid.SampledFrom([]int{0, 100, 3000, 70_000}).Draw(t, "size"))
		h, err := j.Deposit(Draft{Entries: e, Session: epoch, Before: before, FactEpoch: epoch})
		if err != nil {
			t.Fatal(err)
		}
		before = h.After()
	}
}

func (m *model) rewind(last ident.Sequence) {
	m.bundles = slices.DeleteFunc(m.bundles, func(b entry.Bundle) bool { return b.First > last })
	// The oldest receiver stays, with its header alone if need be.
	m.starts = slices.DeleteFunc(m.starts, func(s ident.Sequence) bool { return s > last && s != m.starts[0] })
	if len(m.bundles) == 0 {
		m.starts = nil // its J PR will be read again
	}
}

func (m *model) delete(first ident.Sequence) {
	i := slices.IndexFunc(m.bundles, func(b entry.Bundle) bool { return b.First == first })
	if i < 0 { // the attached receiver holds nothing
		i = len(m.bundles)
	}
	if i > 0 {
		b := m.bundles[i-1]
		m.base, m.start = End{Sequence: b.Last(), Chain: entry.NextChain(b.Chain, b.Raw)}, b.After()
	}
	m.bundles = m.bundles[i:]
	m.starts = slices.DeleteFunc(m.starts, func(s ident.Sequence) bool { return s < first })
}
