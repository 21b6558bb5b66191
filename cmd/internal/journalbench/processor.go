package journalbench

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// encode seals bundles and computes their chain, in memory.
func (b Bench) encode() (Result, error) {
	const n, most = 100, 150.0
	r := Result{What: fmt.Sprintf("encode, checksum and chain, %d bytes", value), Unit: "ns/entry"}
	entries := records(n, value)
	buffer := make([]byte, 0, entry.Size(entries))
	var chain ident.Chain
	var err error
	once := func() {
		var raw []byte
		var h entry.Header
		if raw, h, err = entry.Seal(buffer, entry.Header{Session: 1, First: 1, Time: 1, Fact: ident.Position{Epoch: 1}, Chain: chain}, entries); err == nil {
			chain = entry.NextChain(h.Chain, raw)
		}
	}
	allocations := testing.AllocsPerRun(10, once)
	count := 0
	began := time.Now()
	for ; time.Since(began) < b.Time && err == nil; count += n {
		once()
	}
	r.Ours = float64(time.Since(began).Nanoseconds()) / float64(count)
	r.Wanted = fmt.Sprintf("<= %.0f ns, 0 allocations (%.0f)", most, allocations)
	r.Met = r.Ours <= most && allocations == 0
	return r, err
}

// verify reads and checks a journal that the kernel holds in memory. The plain program only reads it.
func (b Bench) verify(ctx context.Context) (r Result, err error) {
	const least = 2.0
	r = Result{What: "verify", Unit: "GB/s", Wanted: fmt.Sprintf(">= %.0f GB/s", least)}
	dir := vfs.Default.PathJoin(b.Dir, "verify")
	j, err := b.journal(vfs.Default, dir, 64<<20, -1)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.Close(), vfs.Default.RemoveAll(dir)) }()
	a := &author{j: j}
	entries := records(100, value)
	var bytes int64
	for bytes < 120<<20 {
		h, err := a.deposit(entries)
		if err != nil {
			return r, err
		}
		bytes += int64(h.Length)
	}
	v, _ := j.View()
	if err := j.WaitDurable(ctx, v.Last); err != nil {
		return r, err
	}
	buffer := make([]byte, 256<<10)
	r.Raw, r.Ours, err = b.rounds(ctx, func(d time.Duration) (n float64, err error) {
		for began := time.Now(); time.Since(began) < d; n += float64(bytes) / 1e9 {
			if err := readAll(j, buffer); err != nil {
				return 0, err
			}
		}
		return n, nil
	}, func(d time.Duration) (n float64, err error) {
		for began := time.Now(); time.Since(began) < d; n += float64(bytes) / 1e9 {
			if err := j.Verify(ctx); err != nil {
				return 0, err
			}
		}
		return n, nil
	})
	r.Ratio, r.Met = r.Ours/r.Raw, r.Ours >= least
	return r, err
}

func readAll(j *journal.Journal, buffer []byte) error {
	for _, r := range j.Receivers() {
		c, err := j.Content(r.Number)
		if err != nil {
			return err
		}
		s := c.Section()
		for at := int64(0); at < c.Size() && err == nil; at += int64(len(buffer)) {
			_, err = s.ReadAt(buffer[:min(int64(len(buffer)), c.Size()-at)], at)
		}
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// open opens a journal of many receivers.
func (b Bench) open() (r Result, err error) {
	const receivers, most = 1000, 1.0
	r = Result{What: fmt.Sprintf("open a journal of %d receivers", receivers), Unit: "s", Wanted: fmt.Sprintf("<= %.0f s", most)}
	dir := vfs.Default.PathJoin(b.Dir, "open")
	defer func() { err = errors.Join(err, vfs.Default.RemoveAll(dir)) }()
	if err := Many(vfs.Default, dir, receivers); err != nil {
		return r, err
	}
	began, times := time.Now(), 0
	for ; times == 0 || time.Since(began) < b.Time; times++ {
		j, err := b.reopen(vfs.Default, dir)
		if err != nil {
			return r, err
		}
		if n := len(j.Receivers()); n < receivers {
			err = fmt.Errorf("found %d receivers", n)
		}
		if err := errors.Join(err, j.Close()); err != nil {
			return r, err
		}
	}
	r.Ours = time.Since(began).Seconds() / float64(times)
	r.Met = r.Ours <= most
	return r, nil
}

func (b Bench) reopen(fs vfs.FS, dir string) (*journal.Journal, error) {
	return journal.Open(journal.Options{FS: fs, Dir: dir, ID: ident.JournalID{Group: "bench", Node: "a"}, Cluster: "bench", ReceiverBytes: 64 << 10, SpareBytes: -1})
}

// Many makes a journal of n receivers in memory and copies it to dir.
func Many(fs vfs.FS, dir string, n int) error {
	const here = "j"
	mem := vfs.NewMem()
	j, err := Bench{}.journal(mem, here, 16<<10, -1)
	if err != nil {
		return err
	}
	a := &author{j: j}
	entries := records(4, value)
	for range n {
		if _, err = a.deposit(entries); err == nil {
			_, err = j.ChangeReceiver(1)
		}
		if err != nil {
			break
		}
	}
	if err := errors.Join(err, j.Close()); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, err := mem.List(here)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyFile(mem, mem.PathJoin(here, name), fs, fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from vfs.FS, name string, to vfs.FS, as string) (err error) {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	if _, err := in.ReadAt(b, 0); err != nil {
		return err
	}
	out, err := to.OpenReadWrite(as, category)
	if err != nil {
		return err
	}
	_, err = out.WriteAt(b, 0)
	return errors.Join(err, out.Close())
}
