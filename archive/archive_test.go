package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// detached is a detached receiver and its name.
type detached struct {
	name  Name
	bytes []byte
}

func (d detached) content() io.Reader { return bytes.NewReader(d.bytes) }

// receivers makes n detached receivers of one journal.
func receivers(t testing.TB, n, size int) []detached {
	t.Helper()
	j, err := journal.Open(journal.Options{FS: vfs.NewMem(), Dir: "j", ID: ident.JournalID{Group: "orders", Node: "a"}, Cluster: "c1", ReceiverBytes: 64 << 20})
	must(t, err)
	defer j.Close()
	must(t, j.SetState(journal.Active))
	for range n {
		for k := range 3 {
			v, _ := j.View()
			_, err := j.Deposit(journal.Draft{Session: 1, FactEpoch: 1, Before: v.After, Entries: []entry.Entry{{
				Code: entry.Record, Type: entry.Put, File: "f", Key: fmt.Append(nil, k), After: &entry.Image{Value: bytes.Repeat([]byte{byte(k), 7, byte(v.Last)}, size/3)},
			}}})
			must(t, err)
		}
		_, err := j.ChangeReceiver(1)
		must(t, err)
	}
	v, _ := j.View()
	must(t, j.WaitDurable(t.Context(), v.Last))
	var out []detached
	for _, r := range j.Receivers()[:n] {
		c, err := j.Content(r.Number)
		must(t, err)
		b, err := io.ReadAll(c.Section())
		must(t, errors.Join(err, c.Close()))
		chain, _, err := j.ChainAt(r.Last)
		must(t, err)
		out = append(out, detached{Name{Cluster: "c1", Journal: j.ID(), Number: r.Number, First: r.First, Last: r.Last, Chain: chain}, b})
	}
	return out
}

// archives are one of each kind that can be tested here.
func archives(t *testing.T, each func(t *testing.T, a *Archive, bucket *blob.Bucket)) {
	t.Run("memory", func(t *testing.T) {
		bucket := memblob.OpenBucket(nil)
		a := New(bucket, Options{})
		defer a.Close()
		each(t, a, bucket)
	})
	t.Run("folder", func(t *testing.T) {
		a, err := Open(t.Context(), "file://"+filepath.Join(t.TempDir(), "made", "here"), Options{})
		must(t, err)
		defer a.Close()
		each(t, a, a.bucket)
	})
}

// Proves HB-6: receivers are archived, found by listing, read back to the byte; doing it again writes nothing.
func TestSaveAndFetch(t *testing.T) {
	all := receivers(t, 3, 5000)
	archives(t, func(t *testing.T, a *Archive, bucket *blob.Bucket) {
		for round := range 2 {
			for _, d := range all {
				written, err := a.Save(t.Context(), d.name, d.content)
				if err != nil || written != (round == 0) {
					t.Fatalf("round %d: %v %v", round, written, err)
				}
			}
		}
		names, err := a.List(t.Context(), "c1", ident.JournalID{Group: "orders"})
		must(t, err)
		if len(names) != 3 || names[0] != all[0].name || names[2] != all[2].name {
			t.Fatalf("%v", names)
		}
		if clusters, err := a.Clusters(t.Context()); err != nil || len(clusters) != 1 || clusters[0] != "c1" {
			t.Errorf("%v %v", clusters, err)
		}
		for _, d := range all {
			in, err := a.Fetch(t.Context(), d.name)
			must(t, err)
			got, err := io.ReadAll(in)
			must(t, errors.Join(err, in.Close()))
			if !bytes.Equal(got, d.bytes) {
				t.Errorf("%s differs", d.name)
			}
		}
		absent := all[0].name
		absent.Chain++
		if err := a.Verify(t.Context(), absent); !errors.Is(err, ErrNotArchived) {
			t.Error(err)
		}
	})
}

// Two nodes that archive identical copies at the same time leave the same object.
func TestTwoNodesArchiveTheSame(t *testing.T) {
	all := receivers(t, 4, 3000)
	archives(t, func(t *testing.T, a *Archive, bucket *blob.Bucket) {
		var both sync.WaitGroup
		errs := make(chan error, 8)
		for range 2 {
			both.Go(func() {
				for _, d := range all {
					_, err := a.Save(t.Context(), d.name, d.content)
					errs <- err
				}
			})
		}
		both.Wait()
		close(errs)
		for err := range errs {
			must(t, err)
		}
		first, err := bucket.ReadAll(t.Context(), all[1].name.String())
		must(t, err)
		must(t, bucket.Delete(t.Context(), all[1].name.String()))
		_, err = a.Save(t.Context(), all[1].name, all[1].content)
		must(t, err)
		again, err := bucket.ReadAll(t.Context(), all[1].name.String())
		must(t, err)
		if !bytes.Equal(first, again) {
			t.Error("the same receiver made other bytes")
		}
	})
}

// Proves HB-6: an object that is cut short, has wrong bytes, or is another receiver never counts; the next Save replaces it.
func TestDamagedObjectsNeverCount(t *testing.T) {
	all := receivers(t, 2, 4000)
	d := all[0]
	archives(t, func(t *testing.T, a *Archive, bucket *blob.Bucket) {
		_, err := a.Save(t.Context(), d.name, d.content)
		must(t, err)
		good, err := bucket.ReadAll(t.Context(), d.name.String())
		must(t, err)
		_, err = a.Save(t.Context(), all[1].name, all[1].content)
		must(t, err)
		other, err := bucket.ReadAll(t.Context(), all[1].name.String())
		must(t, err)
		bad := map[string][]byte{"empty": {}, "another receiver": other, "twice": append(bytes.Clone(good), good...)}
		for i := 1; i < len(good); i += 1 + len(good)/40 {
			bad[fmt.Sprint("cut at ", i)] = good[:i]
			flipped := bytes.Clone(good)
			flipped[i] ^= 0x20
			bad[fmt.Sprint("flipped at ", i)] = flipped
		}
		for what, b := range bad {
			must(t, bucket.WriteAll(t.Context(), d.name.String(), b, nil))
			var damaged *DamagedError
			switch err := a.Verify(t.Context(), d.name); {
			case err == nil && strings.HasPrefix(what, "flipped"): // a bit that does not matter to the decompression
				in, err := a.Fetch(t.Context(), d.name)
				must(t, err)
				have, err := io.ReadAll(in)
				must(t, errors.Join(err, in.Close()))
				if !bytes.Equal(have, d.bytes) {
					t.Errorf("%s: other bytes are taken", what)
				}
			case !errors.As(err, &damaged):
				t.Errorf("%s: %v", what, err)
			}
		}
		must(t, bucket.WriteAll(t.Context(), d.name.String(), other, nil)) // one that surely is damaged
		written, err := a.Save(t.Context(), d.name, d.content)
		if err != nil || !written {
			t.Fatal(written, err)
		}
		if now, _ := bucket.ReadAll(t.Context(), d.name.String()); !bytes.Equal(now, good) {
			t.Error("not replaced")
		}
	})
}

// Proves HB-6: what is damaged here, fails in the middle or is given up leaves no object.
func TestFailedSaveLeavesNothing(t *testing.T) {
	d := receivers(t, 1, 300_000)[0]
	archives(t, func(t *testing.T, a *Archive, bucket *blob.Bucket) {
		broken := errors.New("disk is gone")
		rotten := bytes.Clone(d.bytes)
		rotten[len(rotten)/2] ^= 4
		var corrupt *journal.CorruptionError
		wrong := d.name
		wrong.Chain ^= 1
		ctx, cancel := context.WithCancel(t.Context())
		for what, c := range map[string]struct {
			ctx     context.Context
			name    Name
			content io.Reader
			want    func(error) bool
		}{
			"rotten here":    {t.Context(), d.name, bytes.NewReader(rotten), func(err error) bool { return errors.As(err, &corrupt) }},
			"not to its end": {t.Context(), d.name, bytes.NewReader(d.bytes[:len(d.bytes)-144]), func(err error) bool { return err != nil }},
			"reading fails":  {t.Context(), d.name, io.MultiReader(bytes.NewReader(d.bytes[:400_000]), readerFunc(func([]byte) (int, error) { return 0, broken })), func(err error) bool { return errors.Is(err, broken) }},
			"another chain":  {t.Context(), wrong, d.content(), func(err error) bool { return err != nil }},
			"given up": {ctx, d.name, io.MultiReader(bytes.NewReader(d.bytes[:400_000]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), bytes.NewReader(d.bytes[400_000:])),
				func(err error) bool { return errors.Is(err, context.Canceled) }},
		} {
			if _, err := a.Save(c.ctx, c.name, func() io.Reader { return c.content }); !c.want(err) {
				t.Errorf("%s: %v", what, err)
			}
			for _, n := range []Name{d.name, wrong} {
				if ok, err := bucket.Exists(t.Context(), n.String()); err != nil || ok {
					t.Errorf("%s: there is an object (%v)", what, err)
				}
			}
		}
		_, err := a.Save(t.Context(), d.name, d.content)
		must(t, err)
	})
}

// A folder that cannot be written fails the save; nothing is left that looks like a receiver.
func TestFolderThatCannotBeWritten(t *testing.T) {
	d := receivers(t, 1, 3000)[0]
	dir := t.TempDir()
	a, err := Open(t.Context(), "file://"+dir, Options{})
	must(t, err)
	defer a.Close()
	must(t, os.WriteFile(filepath.Join(dir, "c1"), []byte("in the way"), 0o600))
	if _, err := a.Save(t.Context(), d.name, d.content); err == nil {
		t.Fatal("saved below a file")
	}
	must(t, os.Remove(filepath.Join(dir, "c1")))
	_, err = a.Save(t.Context(), d.name, d.content)
	must(t, err)
}

func TestNames(t *testing.T) {
	n := Name{Cluster: "c1", Journal: ident.JournalID{Group: "orders", Node: "a-b_1"}, Number: 1234567, First: 1, Last: 1 << 60, Chain: 0xabc}
	if got, ok := ParseName(n.String()); !ok || got != n {
		t.Errorf("%+v %v", got, ok)
	}
	for _, bad := range []string{"", "x", "c1/orders/a/1-1-2-3.rcv.zst", "c1/orders/a/000000-00000000000000000001-00000000000000000002-0000000000000003.rcv.zst",
		n.String() + ".tmp", "p/" + n.String(), "c1/orders/a/000001-00000000000000000003-00000000000000000002-0000000000000003.rcv.zst"} {
		if got, ok := ParseName(bad); ok {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	for address, ok := range map[string]bool{"file:///backup/x": true, "s3://bucket/prefix?region=eu-central-1": true, "file://relative": false, "/plain": false, "": false, "gs://bucket": false, "file:///x?metadata=skip": false, "mem://": false, "s3://me:secret@bucket/p": false} {
		if err := Check(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		} else if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: a secret in %v", address, err)
		}
	}
	for address, want := range map[string]string{
		"file:///backup/x":      "file:///backup/x",
		"s3://me:secret@b/p":    "s3://b/p",
		"s3://b/p?kmskeyid=key": "s3://b/p",
		"s3://b/p?region=eu&endpoint=http://me:secret@h:1/x?secret=1&role=arn:x#secret": "s3://b/p?endpoint=http%3A%2F%2Fh%3A1%2Fx&region=eu",
		"%zz": "an address that cannot be read",
	} {
		if got := Shown(address); got != want {
			t.Errorf("%q is shown as %q", address, got)
		}
	}
}

// The way goes back along the chain, also where the end of the journal was written twice.
func TestWay(t *testing.T) {
	id := ident.JournalID{Group: "orders", Node: "a"}
	name := func(number ident.ReceiverNumber, first, last ident.Sequence, chain ident.Chain) Name {
		return Name{Cluster: "c1", Journal: id, Number: number, First: first, Last: last, Chain: chain}
	}
	one, two, old, three, four := name(1, 1, 10, 1), name(2, 11, 20, 2), name(2, 11, 20, 99), name(3, 21, 30, 3), name(4, 31, 40, 4)
	starts := map[Name]ident.Chain{three: 2, four: 3, two: 1, old: 1}
	asked := 0
	start := func(n Name) (ident.Chain, error) { asked++; return starts[n], nil }
	all := []Name{four, old, two, one, three, name(2, 11, 15, 77)}
	for from, want := range map[ident.Sequence][]Name{1: {one, two, three, four}, 10: {one, two, three, four}, 11: {two, three, four}, 25: {three, four}, 40: {four}, 41: nil} {
		got, err := Way(all, name(4, 0, 40, 4), from, start)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("from %s: %v %v", from, got, err)
		}
	}
	if asked == 0 {
		t.Error("nobody asked which of two it is")
	}
	var missing *MissingError
	if _, err := Way([]Name{one, three, four}, name(4, 0, 40, 4), 5, start); !errors.As(err, &missing) || missing.Number != 2 {
		t.Errorf("%v", err)
	}
	if _, err := Way(all, name(4, 0, 40, 5), 5, start); !errors.As(err, &missing) || missing.Number != 4 {
		t.Errorf("another chain at the end: %v", err)
	}
}

// The rate holds over all who read and write.
func TestRate(t *testing.T) {
	d := receivers(t, 1, 30_000)[0]
	var mu sync.Mutex
	var slept time.Duration
	a := New(memblob.OpenBucket(nil), Options{Rate: 64 << 10, Sleep: func(_ context.Context, ns int64) {
		mu.Lock()
		slept = max(slept, time.Duration(ns)) // what is owed since the beginning: nothing is paid, the clock hardly goes on
		mu.Unlock()
	}})
	defer a.Close()
	_, err := a.Save(t.Context(), d.name, d.content)
	must(t, err)
	if want := time.Duration(float64(len(d.bytes)) / (64 << 10) * float64(time.Second)); slept < want/2 {
		t.Errorf("slept %s for %d bytes, want about %s", slept, len(d.bytes), want)
	}
}
