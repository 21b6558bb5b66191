package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"gocloud.dev/blob/memblob"

	"github.com/understudy-ha/understudy/journal"
)

// A receiver counts as archived once its storage has made it durable, whoever wrote it, and once it was read back after that.
// Proves HB-6.
func TestSaveSettlesAndReadsBack(t *testing.T) {
	d := receivers(t, 1, 3000)[0]
	bucket := memblob.OpenBucket(nil)
	a := New(bucket, Options{})
	defer a.Close()
	broken := errors.New("the disk says no")
	fails, settled := true, 0
	a.settle = func(key string) error {
		if settled++; fails {
			return broken
		}
		if key != d.name.String() {
			t.Errorf("settles %s", key)
		}
		return nil
	}
	for what, written := range map[string]bool{"written": true, "found": false} {
		if written {
			_ = bucket.Delete(t.Context(), d.name.String()) // it may not be there
		} else if err := a.write(t.Context(), d.name, d.content()); err != nil {
			t.Fatal(err)
		}
		fails, settled = true, 0
		if _, err := a.Save(t.Context(), d.name, d.content); !errors.Is(err, broken) || settled != 1 {
			t.Errorf("%s, and not durable: %v, settled %d times", what, err, settled)
		}
	}
	must(t, bucket.Delete(t.Context(), d.name.String()))
	a.settle = func(key string) error {
		return bucket.WriteAll(context.Background(), key, []byte("something else"), nil)
	}
	var damaged *DamagedError
	if _, err := a.Save(t.Context(), d.name, d.content); !errors.As(err, &damaged) {
		t.Errorf("what was written turned into something else: %v", err)
	}
}

// What does not end with J NR may still grow: it never becomes an object.
func TestSaveRefusesWhatIsNotDetached(t *testing.T) {
	d := receivers(t, 1, 3000)[0]
	s, err := journal.NewStream(bytes.NewReader(d.bytes))
	must(t, err)
	name := d.name
	var cut int64
	for {
		before, last, chain := s.Bytes(), s.Last(), s.Chain()
		if _, err := s.Next(); err == io.EOF {
			break
		}
		must(t, err)
		cut, name.Last, name.Chain = before, last, chain
	}
	a := New(memblob.OpenBucket(nil), Options{})
	defer a.Close()
	if _, err := a.Save(t.Context(), name, func() io.Reader { return bytes.NewReader(d.bytes[:cut]) }); err == nil {
		t.Fatal("an attached receiver was archived")
	}
	if names, err := a.List(t.Context(), "c1", d.name.Journal); err != nil || len(names) != 0 {
		t.Fatalf("%v %v", names, err)
	}
}
