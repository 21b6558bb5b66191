package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/archive/fakestore"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// bulky is a detached receiver that does not compress: it is sent to S3 in several parts.
func bulky(t *testing.T) detached {
	t.Helper()
	j, err := journal.Open(journal.Options{FS: vfs.NewMem(), Dir: "j", ID: ident.JournalID{Group: "orders", Node: "b"}, Cluster: "c1", ReceiverBytes: 64 << 20})
	must(t, err)
	defer j.Close()
	must(t, j.SetState(journal.Active))
	chance := rand.NewChaCha8([32]byte{1})
	for range 6 {
		value := make([]byte, 2<<20)
		_, _ = chance.Read(value) // it never fails
		v, _ := j.View()
		_, err := j.Deposit(journal.Draft{Session: 1, FactEpoch: 1, Before: v.After, Entries: []entry.Entry{{Code: entry.Record, Type: entry.Put, File: "f", Key: []byte("k"), After: &entry.Image{Value: value}}}})
		must(t, err)
	}
	_, err = j.ChangeReceiver(1)
	must(t, err)
	v, _ := j.View()
	must(t, j.WaitDurable(t.Context(), v.Last))
	r := j.Receivers()[0]
	c, err := j.Content(r.Number)
	must(t, err)
	b, err := io.ReadAll(c.Section())
	must(t, errors.Join(err, c.Close()))
	chain, _, err := j.ChainAt(r.Last)
	must(t, err)
	return detached{Name{Cluster: "c1", Journal: j.ID(), Number: r.Number, First: r.First, Last: r.Last, Chain: chain}, b}
}

// Proves HB-6: over the interface of S3 receivers are put, verified, listed and read back to the byte, small ones and ones of several parts, below a
// prefix that other archives do not see.
func TestS3(t *testing.T) {
	store := fakestore.Start(t)
	a, err := Open(t.Context(), store.URL("some/prefix"), Options{})
	must(t, err)
	defer a.Close()
	all := append(receivers(t, 3, 5000), bulky(t))
	for round := range 2 {
		for _, d := range all {
			if written, err := a.Save(t.Context(), d.name, d.content); err != nil || written != (round == 0) {
				t.Fatalf("round %d, %s: %v %v", round, d.name, written, err)
			}
		}
	}
	names, err := a.List(t.Context(), "c1", ident.JournalID{Group: "orders"})
	if err != nil || len(names) != 4 || names[0] != all[0].name || names[3] != all[3].name {
		t.Fatalf("%v %v", names, err)
	}
	if names, err = a.List(t.Context(), "c1", ident.JournalID{Group: "orders", Node: "b"}); err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
	if clusters, err := a.Clusters(t.Context()); err != nil || len(clusters) != 1 || clusters[0] != "c1" {
		t.Errorf("%v %v", clusters, err)
	}
	for _, d := range all {
		must(t, a.Verify(t.Context(), d.name))
		in, err := a.Fetch(t.Context(), d.name)
		must(t, err)
		got, err := io.ReadAll(in)
		must(t, errors.Join(err, in.Close()))
		if !bytes.Equal(got, d.bytes) {
			t.Errorf("%s differs", d.name)
		}
	}
	other, err := Open(t.Context(), store.URL("some/other"), Options{})
	must(t, err)
	defer other.Close()
	if names, err := other.List(t.Context(), "c1", ident.JournalID{Group: "orders"}); err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
	if err := other.Verify(t.Context(), all[0].name); !errors.Is(err, ErrNotArchived) {
		t.Error(err)
	}
}

// Proves HB-6: whatever a storage with the interface of S3 does wrong while a receiver is saved, or found there, is an error, and the receiver does
// not count; when it works again the same call succeeds.
func TestS3Failures(t *testing.T) {
	d := bulky(t)
	damaged := func(err error) bool { return errors.As(err, new(*DamagedError)) }
	rotten := func(err error) bool { return errors.As(err, new(*journal.CorruptionError)) } // that is: here, not there
	fails := func(err error) bool { return !damaged(err) && !rotten(err) }
	var all sync.WaitGroup // the driver repeats each request with pauses of its own
	for _, x := range []struct {
		name  string
		fault fakestore.Fault
		right func(error) bool
	}{
		{"nobody listens", fakestore.Refused, func(err error) bool { return fails(err) && strings.Contains(err.Error(), "refused") }},
		{"500", fakestore.Erroring, fails},
		{"500 when read", fakestore.ReadsFail, fails},
		{"broken off", fakestore.Cut, func(err error) bool { return fails(err) && strings.Contains(err.Error(), "broke off") }},
		{"other bytes", fakestore.Altered, damaged},
	} {
		store := fakestore.Start(t)
		all.Go(func() {
			if err := failAndRecover(t.Context(), store, x.fault, d, x.right); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		})
	}
	all.Wait()
}

func failAndRecover(ctx context.Context, store *fakestore.Store, fault fakestore.Fault, d detached, right func(error) bool) error {
	a, err := Open(ctx, store.URL("p"), Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	for _, there := range []bool{false, true} {
		store.Break(fault)
		before := store.Requests()
		if _, err := a.Save(ctx, d.name, d.content); err == nil || errors.Is(err, ErrNotArchived) || !right(err) {
			return fmt.Errorf("there already %t: %v", there, err)
		}
		if fault != fakestore.Refused && store.Requests() == before {
			return errors.New("nobody was asked")
		}
		store.Break(fakestore.Well)
		if _, err := a.Save(ctx, d.name, d.content); err != nil {
			return err
		}
		if err := a.Verify(ctx, d.name); err != nil {
			return err
		}
	}
	return a.Close()
}

// What is given up leaves no object behind in S3 either.
func TestS3GivenUp(t *testing.T) {
	d := bulky(t)
	store := fakestore.Start(t)
	a, err := Open(t.Context(), store.URL("p"), Options{})
	must(t, err)
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	half := len(d.bytes) / 2
	content := io.MultiReader(bytes.NewReader(d.bytes[:half]), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.ErrUnexpectedEOF }))
	if _, err := a.Save(ctx, d.name, func() io.Reader { return content }); err == nil {
		t.Fatal("saved")
	}
	if err := a.Verify(t.Context(), d.name); !errors.Is(err, ErrNotArchived) {
		t.Error(err)
	}
	rotten := bytes.Clone(d.bytes)
	rotten[half] ^= 1
	if _, err := a.Save(t.Context(), d.name, func() io.Reader { return bytes.NewReader(rotten) }); err == nil {
		t.Fatal("saved what is rotten")
	}
	if err := a.Verify(t.Context(), d.name); !errors.Is(err, ErrNotArchived) {
		t.Error(err)
	}
}
