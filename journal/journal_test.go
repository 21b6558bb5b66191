package journal

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-1, RJ-5 and RJ-6 as far as a single journal goes: ascending sequences, a chain of receivers, states.
func TestDepositNumbersEverything(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, options(fs))
	if v, _ := j.View(); v.Attached != 0 || v.First != 0 || v.Last != 0 {
		t.Fatalf("an empty journal: %+v", v)
	}
	if s := j.State(); s != Inactive {
		t.Fatalf("state %s", s)
	}
	d := Draft{Entries: changes(1, 10), Session: 1, FactEpoch: 1}
	if _, err := j.Deposit(d); !errors.Is(err, ErrNotActive) {
		t.Fatal(err)
	}
	must(t, j.SetState(Active))
	h, err := j.Deposit(d)
	must(t, err)
	if h.First != 2 || h.After() != pos(1, 1) { // J PR took 1
		t.Fatalf("%+v", h)
	}
	h = deposit(t, j, 1, 3, 10)
	if h.First != 3 || h.Last() != 5 || h.Before != pos(1, 1) || h.After() != pos(1, 4) {
		t.Fatalf("%+v", h)
	}
	info, err := j.ChangeReceiver(1)
	must(t, err)
	if info.Number != 2 || info.First != 7 || info.Last != 7 || info.Start != pos(1, 4) || !info.Attached {
		t.Fatalf("%+v", info)
	}
	v := flush(t, j)
	if v.First != 1 || v.Last != 7 || v.Durable != 7 || v.Confirmed != 7 || v.DurableAfter != pos(1, 4) || v.Attached != 2 {
		t.Fatalf("%+v", v)
	}
	if want := []Run{{Epoch: 1, From: 1, To: 4, First: 2, Last: 5}}; !reflect.DeepEqual(v.Runs, want) {
		t.Fatalf("runs %+v", v.Runs)
	}

	// In STANDBY only J IN is taken; receivers may be changed in every state.
	must(t, j.SetState(Standby))
	if _, err := j.Deposit(d); !errors.Is(err, ErrNotActive) {
		t.Fatal(err)
	}
	h, err = j.Deposit(Draft{Entries: []entry.Entry{{Code: entry.Journal, Type: entry.IPL}}, Session: 4})
	must(t, err)
	if h.First != 8 || h.Flags != entry.FlagLocal || h.Before != pos(1, 4) {
		t.Fatalf("%+v", h)
	}
	_, err = j.ChangeReceiver(4)
	must(t, err)
	b, err := j.BundleAt(9)
	must(t, err)
	if b.Flags != entry.FlagLocal || !b.Holds(entry.Journal, entry.Next) {
		t.Fatalf("%+v", b.Header)
	}
	flush(t, j)

	j = reopen(t, j, options(fs))
	again, _ := j.View()
	if again.Last != 10 || again.Durable != 10 || again.Attached != 3 || again.Torn || !reflect.DeepEqual(again.Runs, v.Runs) || again.After != v.After {
		t.Fatalf("reopened %+v", again)
	}
	if j.State() != Standby {
		t.Fatalf("state %s", j.State())
	}
	want := []ReceiverInfo{
		{Number: 1, First: 1, Last: 6},
		{Number: 2, First: 7, Last: 9, Start: pos(1, 4)},
		{Number: 3, First: 10, Last: 10, Start: pos(1, 4), Attached: true},
	}
	for i, r := range j.Receivers() {
		if (r.Chain == 0) != (i == 0) {
			t.Errorf("receiver %s begins with chain %s", r.Number, r.Chain)
		}
		r.Bytes, r.Created, r.Chain = 0, want[i].Created, 0
		if r != want[i] {
			t.Errorf("receiver %+v, want %+v", r, want[i])
		}
	}
	must(t, j.Verify(context.Background()))
}

func TestDepositRefuses(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	for name, c := range map[string]struct {
		d    Draft
		want error
	}{
		"nothing":    {Draft{}, entry.ErrInvalid},
		"J NR":       {Draft{Entries: []entry.Entry{{Code: entry.Journal, Type: entry.Next}}}, entry.ErrInvalid},
		"J PR":       {Draft{Entries: []entry.Entry{{Code: entry.Journal, Type: entry.Previous}}}, entry.ErrInvalid},
		"no epoch":   {Draft{Entries: changes(1, 1)}, entry.ErrInvalid},
		"large key":  {Draft{Entries: []entry.Entry{{Code: entry.Record, Type: entry.Delete, Key: make([]byte, 5000)}}, FactEpoch: 1}, entry.ErrTooLarge},
		"large sum":  {Draft{Entries: changes(5, 15<<20), FactEpoch: 1}, entry.ErrTooLarge},
		"wrong code": {Draft{Entries: []entry.Entry{{Code: 'Z'}}, FactEpoch: 1}, entry.ErrInvalid},
	} {
		if _, err := j.Deposit(c.d); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, _ := j.View(); v.Last > 1 || v.Err != nil {
		t.Errorf("%+v", v)
	}
}

// The numbers of a local journal around a takeover: the receiver change takes two sequences, re-journaled bundles keep history
// position, time and content.
func TestReJournal(t *testing.T) {
	a := active(t, options(vfs.NewMem()))
	deposit(t, a, 1, 1, 10) // U SW of epoch 1, say
	tail := deposit(t, a, 1, 2, 10)

	o := options(vfs.NewMem())
	o.ID.Node = "b"
	b := active(t, o)
	info, err := b.ChangeReceiver(2)
	must(t, err)
	if info.First != 1 {
		t.Fatalf("%+v", info)
	}
	bundle, err := a.BundleAt(tail.First)
	must(t, err)
	entries, err := bundle.All()
	must(t, err)
	h, err := b.Deposit(Draft{Entries: entries, Session: 2, Before: bundle.Before, FactEpoch: bundle.Fact.Epoch, Origin: bundle.First, Time: bundle.Time})
	must(t, err)
	if h.Fact != tail.Fact || h.Origin != tail.First || h.Session != 2 || h.Time != tail.Time || h.First != 2 {
		t.Fatalf("%+v", h)
	}
	sw, err := b.Deposit(Draft{Entries: []entry.Entry{{Code: entry.User, Type: entry.Switch, Data: []byte("{}")}}, Session: 2, Before: h.After(), FactEpoch: 2})
	must(t, err)
	if sw.Fact != pos(2, 4) {
		t.Fatalf("%+v", sw)
	}
	v := flush(t, b)
	want := []Run{
		{Epoch: 1, From: 2, To: 3, Before: pos(1, 1), First: 2, Last: 3},
		{Epoch: 2, From: 4, To: 4, Before: pos(1, 3), First: 4, Last: 4},
	}
	if !reflect.DeepEqual(v.Runs, want) {
		t.Fatalf("%+v", v.Runs)
	}
}

func TestReceiversChangeBySize(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs)) // 64 KiB
	for range 50 {
		deposit(t, j, 1, 1, 10_000)
	}
	deposit(t, j, 1, 1, 200_000) // larger than a receiver: gets one of its own
	deposit(t, j, 1, 1, 10)
	v := flush(t, j)
	receivers := j.Receivers()
	if len(receivers) < 8 {
		t.Fatalf("%d receivers", len(receivers))
	}
	var bytes int64
	for _, r := range receivers {
		info, err := fs.Stat(receiverPath(r.Number))
		must(t, err)
		if info.Size() != r.Bytes {
			t.Errorf("receiver %s has %d bytes, says %d", r.Number, info.Size(), r.Bytes)
		}
		bytes += r.Bytes
	}
	if bytes != v.Bytes {
		t.Errorf("receivers have %d bytes, view says %d", bytes, v.Bytes)
	}
	large := receivers[len(receivers)-2]
	if large.Last-large.First != 2 { // J PR, the bundle, J NR
		t.Errorf("%+v", large)
	}
	must(t, j.Verify(context.Background()))
	j = reopen(t, j, options(fs))
	again, _ := j.View()
	if !reflect.DeepEqual(again.Runs, v.Runs) || again.Last != v.Last || again.Bytes != v.Bytes {
		t.Errorf("reopened %+v, was %+v", again, v)
	}
}

func TestDeleteReceivers(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	for range 4 {
		deposit(t, j, 1, 5, 10)
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	r, err := j.Reader(0)
	must(t, err)
	defer r.Close()
	if item, ok, err := r.TryNext(); !ok || err != nil || item.Receiver != 1 {
		t.Fatal(ok, err)
	}
	must(t, j.DeleteReceivers(2))
	v := flush(t, j)
	third := j.Receivers()[0]
	if third.Number != 3 || v.First != third.First {
		t.Fatalf("%+v", v)
	}
	if _, _, err := r.TryNext(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("reader of a deleted receiver: %v", err)
	}
	if _, err := j.BundleAt(third.First - 1); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
	want := []Run{{Epoch: 1, From: 11, To: 20, Before: pos(1, 10), First: third.First, Last: v.Runs[0].Last}}
	if !reflect.DeepEqual(v.Runs, want) {
		t.Errorf("%+v", v.Runs)
	}
	j = reopen(t, j, options(fs))
	if again, _ := j.View(); !reflect.DeepEqual(again.Runs, want) {
		t.Errorf("reopened %+v", again.Runs)
	}
	must(t, j.DeleteReceivers(99)) // never the attached one
	if n := len(j.Receivers()); n != 1 {
		t.Fatalf("%d receivers", n)
	}
	// The run in progress goes on although all its facts are gone.
	h := deposit(t, j, 1, 1, 1)
	v, _ = j.View()
	if len(v.Runs) != 1 || v.Runs[0].From != 21 || v.Runs[0].Before != pos(1, 20) || h.Before != pos(1, 20) {
		t.Errorf("%+v", v.Runs)
	}
	flush(t, j)
	j = reopen(t, j, options(fs))
	if again, _ := j.View(); !reflect.DeepEqual(again.Runs, v.Runs) {
		t.Errorf("reopened %+v, want %+v", again.Runs, v.Runs)
	}
}

func TestEntriesFilter(t *testing.T) {
	fs := vfs.NewMem()
	source := active(t, options(fs))
	_, err := source.ChangeReceiver(1)
	must(t, err)
	v := flush(t, source) // the changes carry the mark that what was before them is on disk
	e := changes(4, 5)
	e[1].Transaction, e[2].Transaction = 1, 1
	e[3].Code, e[3].Type, e[3].After, e[3].Data = entry.User, entry.Mark, nil, []byte("m")
	h, err := source.Deposit(Draft{Entries: e, Session: 1, FactEpoch: 1, Before: v.After})
	must(t, err)
	flush(t, source)
	o := options(vfs.NewMem())
	j := copyOf(t, source, o)
	ctx := context.Background()
	if got, err := j.Entries(ctx, Filter{}); err != nil || len(got) != 1 || got[0].Sequence != v.Last {
		t.Fatalf("only what the mark covers is confirmed: %d entries, %v", len(got), err)
	}
	j.Mark(h.Last()-1, 0)
	for name, c := range map[string]struct {
		f    Filter
		want []ident.Sequence
	}{
		"all confirmed":        {Filter{}, []ident.Sequence{1, 2, 3, 4}},
		"unconfirmed":          {Filter{IncludeUnconfirmed: true}, []ident.Sequence{1, 2, 3, 4, 5}},
		"from, to":             {Filter{From: 2, To: 3}, []ident.Sequence{2, 3}},
		"code":                 {Filter{Codes: []entry.Code{entry.Record}}, []ident.Sequence{2, 3, 4}},
		"type":                 {Filter{Types: []entry.Type{entry.Mark}, IncludeUnconfirmed: true}, []ident.Sequence{5}},
		"file":                 {Filter{Files: []string{"other"}}, nil},
		"key":                  {Filter{Key: []byte("k1")}, []ident.Sequence{3}},
		"transaction":          {Filter{Transaction: 3}, []ident.Sequence{3, 4}},
		"limit":                {Filter{Limit: 2}, []ident.Sequence{1, 2}},
		"since later":          {Filter{Since: fixedClock{}.Now().Add(1)}, nil},
		"since then":           {Filter{Since: fixedClock{}.Now()}, []ident.Sequence{1, 2, 3, 4}},
		"from beyond the last": {Filter{From: 6, IncludeUnconfirmed: true}, nil},
	} {
		got, err := j.Entries(ctx, c.f)
		var sequences []ident.Sequence
		for _, e := range got {
			sequences = append(sequences, e.Sequence)
		}
		if err != nil || !reflect.DeepEqual(sequences, c.want) {
			t.Errorf("%s: %v, %v", name, sequences, err)
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := j.Entries(canceled, Filter{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCloseIsFinalAndIdempotent(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	deposit(t, j, 1, 1, 1)
	must(t, j.Close())
	must(t, j.Close())
	if v, _ := j.View(); v.Durable != v.Last || v.Last != 2 {
		t.Errorf("%+v", v)
	}
	if _, err := j.Deposit(Draft{Entries: changes(1, 1), FactEpoch: 1}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := j.WaitDurable(context.Background(), 99); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"state": j.SetState(Standby), "rewind": j.Rewind(1), "delete": j.DeleteReceivers(1), "begin": j.BeginReceiver(nil),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever calls what at the same time, every entry gets one number, in order, and all goes to disk.
func TestManyCallers(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 100 {
				h, err := j.Deposit(Draft{Entries: changes(1+i%3, 200), FactEpoch: 1})
				if err == nil && i%10 == 0 {
					err = j.WaitDurable(ctx, h.Last())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Go(func() {
		for i := range 40 {
			if _, err := j.ChangeReceiver(1); err != nil {
				t.Error(err)
			}
			j.Mark(0, ident.Sequence(i))
			if err := j.SetState(Active); err != nil {
				t.Error(err)
			}
			if err := j.DeleteReceivers(ident.ReceiverNumber(i / 2)); err != nil {
				t.Error(err)
			}
			j.Receivers()
			v, _ := j.View()
			if _, err := j.EndsBelow(v.Last, 50); err != nil {
				t.Error(err)
			}
			if _, _, err := j.ChainAt(v.Last / 2); err != nil {
				t.Error(err)
			}
			if _, err := j.Entries(ctx, Filter{Limit: 5}); err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for range 200 {
			v, _ := j.View()
			if _, err := j.EndsBelow(v.Last, 50); err != nil {
				t.Error(err)
			}
			if n := len(v.Runs); n > 0 {
				if _, _, err := j.FindHistory(v.Runs[0].End()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	group.Wait()
	v := flush(t, j)
	if v.Last < 400 || v.Committed != 39 {
		t.Errorf("%+v", v)
	}
	must(t, j.Verify(ctx))
	j = reopen(t, j, options(fs))
	if again, _ := j.View(); again.Last != v.Last || again.Chain != v.Chain || !reflect.DeepEqual(again.Runs, v.Runs) {
		t.Errorf("reopened %+v, was %+v", again, v)
	}
}

func TestViewChangesAreSeen(t *testing.T) {
	j := active(t, options(vfs.NewMem()))
	_, changed := j.View()
	select {
	case <-changed:
		t.Fatal("nothing has changed")
	default:
	}
	j.Mark(0, 0) // raises nothing
	select {
	case <-changed:
		t.Fatal("nothing has changed")
	default:
	}
	deposit(t, j, 1, 1, 1)
	<-changed
	flush(t, j)
	if n := testing.AllocsPerRun(100, func() { j.View() }); n != 0 {
		t.Errorf("%v allocations for a view", n)
	}
}

func TestAnotherJournalsFilesAreRefused(t *testing.T) {
	fs := vfs.NewMem()
	j := active(t, options(fs))
	deposit(t, j, 1, 1, 1)
	must(t, j.Close())
	o := options(fs)
	o.ID.Node = "b"
	if _, err := Open(o); err == nil {
		t.Error("another node's journal was opened")
	}
	o = options(fs)
	o.Cluster = "c2"
	if _, err := Open(o); err == nil {
		t.Error("another cluster's journal was opened")
	}
}
