package node

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

// fakeRecords gives every record at the position of the moment, each time a later one, but not more than limit at once.
type fakeRecords struct {
	limit int
	given int // altogether
	at    ident.History
}

func (f *fakeRecords) ReadSeveral(_ context.Context, names []replica.Name, _ bool) ([]*entry.Image, ident.Position, error) {
	f.at++
	if f.given += min(len(names), f.limit); len(names) > f.limit {
		return nil, ident.Position{}, fmt.Errorf("%w: %d records", replica.ErrTooLarge, len(names))
	}
	images := make([]*entry.Image, len(names))
	for i := range images {
		images[i] = &entry.Image{Value: []byte(strconv.FormatUint(uint64(f.at), 10))}
	}
	return images, ident.Position{Epoch: 1, History: f.at}, nil
}

func readersOf(keys int, run func(i int, v resp.View) error) []resp.Program {
	batch := make([]resp.Program, keys)
	for i := range batch {
		batch[i] = resp.Program{Reads: true, Keys: []resp.Key{{File: "f", Key: []byte(strconv.Itoa(i))}}, Run: func(v resp.View) error { return run(i, v) }}
	}
	return batch
}

// Proves BX-5: a pipeline that reads large records reads few of them twice.
func TestLargeRecordsAreReadOnce(t *testing.T) {
	s := records{&Node{host: host.Host{Clock: host.Real().Clock}}}
	s.n.local = newLocal(s.n)
	rep := &fakeRecords{limit: 16}
	got := 0
	batch := readersOf(2000, func(i int, v resp.View) error {
		r, err := v.Get("f", []byte(strconv.Itoa(i)))
		if err == nil && r != nil {
			got++
		}
		return err
	})
	for i, o := range s.readFrom(t.Context(), rep, "g", false, batch) {
		if o.Err != nil {
			t.Fatalf("%d: %v", i, o.Err)
		}
	}
	if got != len(batch) || rep.given > len(batch)+10*rep.limit {
		t.Errorf("%d of %d were answered, %d records were read", got, len(batch), rep.given)
	}
}

// Proves BX-5: what comes later in a pipeline never sees an earlier state, also behind a program that reads more than it said.
func TestPipelineReadsGoForward(t *testing.T) {
	s := records{&Node{host: host.Host{Clock: host.Real().Clock}}}
	s.n.local = newLocal(s.n)
	var last []byte
	batch := readersOf(50, func(i int, v resp.View) error {
		if i%7 == 3 {
			if _, err := v.Get("f", []byte("more")); err != nil {
				return err
			}
		}
		r, err := v.Get("f", []byte(strconv.Itoa(i)))
		if err != nil {
			return err
		}
		if len(r.Value) < len(last) || len(r.Value) == len(last) && bytes.Compare(r.Value, last) < 0 {
			t.Errorf("program %d saw position %s, one before it %s", i, r.Value, last)
		}
		last = r.Value
		return nil
	})
	for i, o := range s.readFrom(t.Context(), &fakeRecords{limit: 1000}, "g", false, batch) {
		if o.Err != nil {
			t.Fatalf("%d: %v", i, o.Err)
		}
	}
}
