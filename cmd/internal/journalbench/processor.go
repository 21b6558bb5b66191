package journalbench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// processor returns the time that the process has spent on processors: what others do on the machine does not count.
func processor() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("ask for the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

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
	from, err := processor()
	if err != nil {
		return r, err
	}
	before, count := allocations(), 0
	for began := time.Now(); time.Since(began) < b.Time && err == nil; count += n {
		once()
	}
	if err != nil {
		return r, err
	}
	to, err := processor()
	each := (allocations() - before) / uint64(count/n) // per bundle; others allocate now and then
	r.Ours = float64((to - from).Nanoseconds()) / float64(count)
	r.Wanted = fmt.Sprintf("<= %.0f ns, 0 allocations (%d)", most, each)
	r.Met = r.Ours <= most && each == 0
	return r, err
}

// verify reads and checks a journal that the kernel holds in memory. The plain program only reads it.
func (b Bench) verify(ctx context.Context) (r Result, err error) {
	const least = 2.0
	r = Result{What: "verify, per second of a processor", Unit: "GB/s", Wanted: fmt.Sprintf(">= %.0f GB/s", least)}
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
	if r.Raw, err = b.perProcessor(bytes, func() error { return readAll(j, buffer) }); err == nil {
		r.Ours, err = b.perProcessor(bytes, func() error { return j.Verify(ctx) })
	}
	r.Ratio, r.Met = r.Ours/r.Raw, r.Ours >= least
	return r, err
}

// perProcessor returns how many GB f gets through in a second of one processor; n is what it reads each time.
func (b Bench) perProcessor(n int64, f func() error) (float64, error) {
	from, err := processor()
	total := 0.0
	for began := time.Now(); err == nil && (total == 0 || time.Since(began) < b.Time); total += float64(n) / 1e9 {
		err = f()
	}
	if err != nil {
		return 0, err
	}
	to, err := processor()
	return total / (to - from).Seconds(), err
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
