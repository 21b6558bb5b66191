package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves RJ-1: what a filter selects of one entry, without a journal.
func TestFilterSelects(t *testing.T) {
	at := time.Unix(1000, 0)
	e := entry.Entry{Sequence: 7, Position: pos(3, 42), Time: at.UnixNano(), Code: entry.Record, Type: entry.Put, Transaction: 5, File: "orders.eu", Key: []byte("k\xff1")}
	event := entry.Entry{Sequence: 8, Time: at.UnixNano(), Code: entry.Journal, Type: entry.Next, Transaction: 8}
	for name, c := range map[string]struct {
		f             Filter
		record, event bool
	}{
		"everything":       {Filter{}, true, true},
		"from":             {Filter{From: 8}, false, true},
		"to":               {Filter{To: 7}, true, false},
		"positions":        {Filter{PositionFrom: pos(3, 42), PositionTo: pos(3, 42)}, true, false},
		"below positions":  {Filter{PositionFrom: pos(3, 43)}, false, false},
		"beyond positions": {Filter{PositionTo: pos(2, 99)}, false, false},
		"since":            {Filter{Since: at}, true, true},
		"since later":      {Filter{Since: at.Add(1)}, false, false},
		"until":            {Filter{Until: at}, true, true},
		"until earlier":    {Filter{Until: at.Add(-1)}, false, false},
		"codes":            {Filter{Codes: []entry.Code{entry.User, entry.Record}}, true, false},
		"types":            {Filter{Types: []entry.Type{entry.Update, entry.Next}}, false, true},
		"name":             {Filter{Files: []string{"orders.eu"}}, true, false},
		"pattern":          {Filter{Files: []string{"x", "orders*"}}, true, false},
		"any file":         {Filter{Files: []string{"*"}}, true, false},
		"another pattern":  {Filter{Files: []string{"orders"}}, false, false},
		"key":              {Filter{Key: []byte("k\xff1")}, true, false},
		"prefix":           {Filter{KeyPrefix: []byte("k\xff")}, true, false},
		"any key":          {Filter{KeyPrefix: []byte{}}, true, false},
		"another prefix":   {Filter{KeyPrefix: []byte("k1")}, false, false},
		"transaction":      {Filter{Transaction: 5}, true, false},
	} {
		if got := c.f.Selects(&e); got != c.record {
			t.Errorf("%s: the record: %t", name, got)
		}
		if got := c.f.Selects(&event); got != c.event {
			t.Errorf("%s: the event: %t", name, got)
		}
	}
	for name, f := range map[string]Filter{
		"sequences": {From: 2, To: 1}, "positions": {PositionFrom: pos(2, 2), PositionTo: pos(2, 1)}, "times": {Since: at, Until: at.Add(-1)},
		"receivers": {Receivers: Receivers{First: 2, Last: 1}}, "key and prefix": {Key: []byte("a"), KeyPrefix: []byte("a")}, "pattern": {Files: []string{"a["}},
	} {
		if err := f.Validate(); !errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// steppedClock is moved by the test.
type steppedClock struct{ now atomic.Int64 }

func (c *steppedClock) Now() time.Time      { return time.Unix(0, c.now.Load()) }
func (c *steppedClock) Boot() time.Duration { return 0 }

// longJournal has many receivers, two epochs, and a tail of another node's in the middle that keeps its older times. It was
// opened anew, so that most receivers are known by their headers only.
func longJournal(t testing.TB, bundles int) *Journal {
	clock := &steppedClock{}
	clock.now.Store(int64(time.Hour))
	o := options(vfs.NewMem())
	o.ReceiverBytes, o.RingBytes, o.Host.Clock = 1<<15, 1, clock
	j := active(t, o)
	for i := range bundles {
		clock.now.Add(int64(time.Minute))
		v, _ := j.View()
		d := Draft{Entries: changes(3, 300), Session: 1, FactEpoch: 1, Before: v.After, Time: clock.now.Load()}
		d.Entries[1].File = fmt.Sprintf("file%d", i%7)
		switch {
		case i > bundles/2:
			d.FactEpoch, d.Session = 3, 3
		case i > bundles/2-5: // re-journaled, from a clock that is half an hour behind
			d.FactEpoch, d.Session, d.Origin = 2, 3, 1
			d.Time -= int64(30 * time.Minute)
		}
		_, err := j.Deposit(d)
		must(t, err)
	}
	flush(t, j)
	return reopen(t, j, o)
}

// Proves RJ-1: whatever is selected, in either order and page by page, is what a look at every entry selects.
func TestPagesSelectWhatAScanSelects(t *testing.T) {
	j := longJournal(t, 150)
	all, err := j.Entries(context.Background(), Filter{IncludeUnconfirmed: true})
	must(t, err)
	last := all[len(all)-1].Sequence
	rapid.Check(t, func(t *rapid.T) {
		f := Filter{IncludeUnconfirmed: true}
		some := func(name string) entry.Entry { return rapid.SampledFrom(all).Draw(t, name) }
		flip := func(name string) bool { return rapid.IntRange(0, 2).Draw(t, name) == 0 }
		if flip("by sequence") {
			f.From = some("from").Sequence
			f.To = max(f.From, some("to").Sequence)
		}
		if flip("since") {
			f.Since = time.Unix(0, some("since at").Time+rapid.Int64Range(-2, 2).Draw(t, "a little"))
		}
		if flip("until") {
			f.Until = time.Unix(0, max(f.Since.UnixNano(), some("until at").Time))
		}
		if flip("by position") {
			f.PositionFrom = some("position").Position
			if p := some("to position").Position; p.Compare(f.PositionFrom) >= 0 {
				f.PositionTo = p
			}
		}
		if flip("by file") {
			f.Files = []string{"file[1-3]"}
		}
		if flip("transaction") {
			f.Transaction = some("transaction of").Transaction
		}
		f.Descending = rapid.Bool().Draw(t, "descending")
		var want []ident.Sequence
		for i := range all {
			if f.Selects(&all[i]) {
				want = append(want, all[i].Sequence)
			}
		}
		if f.Descending {
			slices.Reverse(want)
		}
		f.Limit = rapid.SampledFrom([]int{0, 1, 7, 1000}).Draw(t, "limit")
		f.Bytes = rapid.SampledFrom([]int64{0, 1, 5000}).Draw(t, "bytes")
		f.Scan = rapid.SampledFrom([]int64{0, 1 << 14}).Draw(t, "scan")
		if f.Limit == 1 || f.Bytes == 1 {
			want = want[:min(len(want), 20)]
		}
		var got []ident.Sequence
		for pages := 0; len(got) < len(want) || pages == 0; pages++ {
			p, err := j.Page(context.Background(), f)
			if err != nil || pages > 2*int(last) {
				t.Fatalf("%+v: %d pages, %v", f, pages, err)
			}
			for _, e := range p.Entries {
				got = append(got, e.Sequence)
			}
			if p.Next == 0 {
				break
			}
			if f.Descending {
				f.To = p.Next
			} else {
				f.From = p.Next
			}
		}
		if got = got[:min(len(got), len(want))]; !slices.Equal(got, want) {
			t.Fatalf("%+v:\ngot  %v\nwant %v", f, got, want)
		}
	})
}

// A search by time, position or receiver reads its surroundings, not the journal.
func TestBoundsFindTheirPlace(t *testing.T) {
	j := longJournal(t, 400)
	receivers := j.Receivers()
	if len(receivers) < 10 {
		t.Fatalf("only %d receivers: the test proves nothing", len(receivers))
	}
	all, err := j.Entries(context.Background(), Filter{})
	must(t, err)
	e := all[len(all)/4]
	for name, f := range map[string]Filter{
		"time":        {Since: time.Unix(0, e.Time), Until: time.Unix(0, e.Time)},
		"position":    {PositionFrom: e.Position, PositionTo: e.Position},
		"receiver":    {Receivers: Receivers{First: 4, Last: 4}},
		"attached":    {Receivers: Receivers{Attached: true}},
		"transaction": {Transaction: e.Transaction},
	} {
		p := &page{ctx: context.Background(), f: &f}
		s, err := j.find(&f)
		must(t, err)
		must(t, p.ascend(j, s))
		if len(p.entries) == 0 || p.scanned > 1<<17 {
			t.Errorf("%s: %d entries found by looking at %d bytes", name, len(p.entries), p.scanned)
		}
	}
	for name, r := range map[string]Receivers{"older": {First: 1, Last: 2}, "newer": {First: 9999}} {
		must(t, j.DeleteReceivers(3))
		if _, err := j.Page(context.Background(), Filter{Receivers: r}); !errors.Is(err, ErrNotHeld) {
			t.Errorf("%s receivers than are held: %v", name, err)
		}
	}
}

// Proves RJ-4 and RJ-14: a follower gives each entry once, in order, confirmed ones only unless asked for all, and tells what it has given and
// was removed.
func TestFollower(t *testing.T) {
	o := options(vfs.NewMem())
	deposited := make(chan struct{})
	o.Host.Failpoint = func(name string) error {
		if strings.HasPrefix(name, "journal.sync:") {
			<-deposited // so that no bundle says that those before it are confirmed
		}
		return nil
	}
	source := active(t, o)
	for range 4 {
		deposit(t, source, 1, 2, 10)
	}
	close(deposited)
	flush(t, source)
	j := copyOf(t, source, options(vfs.NewMem()))
	j.Mark(5, 0) // PR 1, bundles 2-3, 4-5
	confirmed, all := j.Follow(0, false), j.Follow(5, true)
	defer confirmed.Close()
	defer all.Close()
	take := func(f *Follower) (got []ident.Sequence) {
		for {
			step, ok, err := f.TryNext()
			must(t, err)
			if !ok {
				return got
			}
			if step.Rewound {
				got = append(got, 1000+step.After)
				continue
			}
			for e := range step.Bundle.Entries() {
				if e.Sequence >= step.From {
					got = append(got, e.Sequence)
				}
			}
		}
	}
	want := func(what string, f *Follower, want ...ident.Sequence) {
		t.Helper()
		if got := take(f); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("confirmed", confirmed, 1, 2, 3, 4, 5)
	want("all from 5 on", all, 5, 6, 7, 8, 9)
	must(t, j.Rewind(5))
	want("confirmed, after a removal that did not concern it", confirmed)
	want("all, after a removal", all, 1005)
	_, err := j.AppendRaw(resealed(t, j))
	must(t, err)
	want("what came instead is not confirmed", confirmed)
	want("what came instead", all, 6)
	j.Mark(6, 0)
	want("what came instead is confirmed", confirmed, 6)

	far := j.Follow(7, true)
	defer far.Close()
	want("beyond the end", far)
	must(t, source.Rewind(1))
	early := source.Follow(0, false)
	defer early.Close()
	want("what is left", early, 1)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := early.Next(canceled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, source.Close())
	if _, err := early.Next(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// resealed is a bundle of one entry that continues j.
func resealed(t testing.TB, j *Journal) []byte {
	t.Helper()
	v, _ := j.View()
	raw, _, err := entry.Seal(nil, entry.Header{Session: 2, First: v.Last + 1, Before: v.After, Fact: pos(2, 0), Time: 1, Chain: v.Chain}, changes(1, 3))
	must(t, err)
	return raw
}

// A follower whose receivers were deleted says which sequence is still held.
func TestFollowerOfDeletedReceivers(t *testing.T) {
	j := longJournal(t, 200)
	f := j.Follow(0, false)
	defer f.Close()
	_, ok, err := f.TryNext()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	must(t, j.DeleteReceivers(3))
	first := j.Receivers()[0].First
	for {
		_, ok, err = f.TryNext()
		if err != nil || !ok {
			break
		}
	}
	var gone *GoneError
	if !errors.As(err, &gone) || gone.First != first || !errors.Is(err, ErrNotHeld) {
		t.Errorf("%v, want the first one held to be %s", err, first)
	}
	from, err := j.Start(Filter{PositionFrom: pos(3, 1)})
	must(t, err)
	next := j.Follow(from, false)
	defer next.Close()
	if step, ok, err := next.TryNext(); err != nil || !ok || step.Bundle.First > from {
		t.Errorf("%+v %t %v", step, ok, err)
	}
}
