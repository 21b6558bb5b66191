package journalbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

const (
	writers  = 64
	rawFile  = 64 << 20 // length of the plain program's file, which is written again from its start when it is full
	category = vfs.DiskWriteCategory("bench")
)

// plain is the plain program's file.
type plain struct {
	file vfs.File
	at   int64
	end  int64 // where it begins again; 0: it only grows
}

// newPlain makes the file, of zeros and synced when it is not to grow.
func newPlain(fs vfs.FS, path string, zeroed bool) (*plain, error) {
	file, err := fs.OpenReadWrite(path, category)
	if err != nil {
		return nil, err
	}
	p := &plain{file: file}
	if zeroed {
		p.end = rawFile
		zeros := make([]byte, 1<<20)
		for at := int64(0); at < rawFile; at += int64(len(zeros)) {
			if _, err := file.WriteAt(zeros, at); err != nil {
				return nil, errors.Join(err, file.Close())
			}
		}
	}
	if err := file.Sync(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

// append writes and syncs.
func (p *plain) append(b []byte) error {
	if p.end > 0 && p.at+int64(len(b)) > p.end {
		p.at = 0
	}
	if _, err := p.file.WriteAt(b, p.at); err != nil {
		return err
	}
	p.at += int64(len(b))
	return p.file.SyncData()
}

// author deposits in turn, as the sequencer of a group does.
type author struct {
	j    *journal.Journal
	mu   sync.Mutex
	next ident.Position
}

func (a *author) deposit(entries []entry.Entry) (entry.Header, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, err := a.j.Deposit(journal.Draft{Entries: entries, Session: 1, FactEpoch: 1, Before: a.next})
	if err == nil {
		a.next = h.After()
	}
	return h, err
}

// deposit has many writers wait for the disk after each record. The plain program writes the same bytes for as many records at
// once and syncs, and has nobody to wake: more than group commit can reach, the less so the faster the disk is.
func (b Bench) deposit(ctx context.Context) (Result, error) {
	r := Result{What: fmt.Sprintf("deposit and sync, %d writers, %d bytes", writers, value), Unit: "records/s"}
	err := b.deposits(ctx, &r, func(p *plain, record []byte, d time.Duration) (float64, error) {
		group, n := bytes.Repeat(record, writers), 0.0
		for began := time.Now(); time.Since(began) < d; n += writers {
			if err := p.append(group); err != nil {
				return 0, err
			}
		}
		return n, nil
	})
	r.compare(0.9)
	return r, err
}

// share is deposit next to a plain program that has as many writers, who share its syncs.
func (b Bench) share(ctx context.Context) (Result, error) {
	r := Result{What: fmt.Sprintf("the same, plain program with %d writers", writers), Unit: "records/s"}
	err := b.deposits(ctx, &r, func(p *plain, record []byte, d time.Duration) (float64, error) {
		return newCrowd(p).run(record, d)
	})
	r.compare(0.9)
	return r, err
}

// deposits measures a journal with many writers next to a plain program.
func (b Bench) deposits(ctx context.Context, r *Result, raw func(*plain, []byte, time.Duration) (float64, error)) (err error) {
	dir := b.fs().PathJoin(b.Dir, "deposit")
	j, err := b.journal(b.fs(), dir, 64<<20, 64<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close(), b.fs().RemoveAll(dir)) }()
	a := &author{j: j}
	entries := records(1, value)
	h, err := a.deposit(entries)
	if err != nil {
		return err
	}
	if err := spared(ctx, j, 64<<20); err != nil { // both run on zeros
		return err
	}
	if _, err := j.ChangeReceiver(1); err != nil {
		return err
	}
	if err := spared(ctx, j, 64<<20); err != nil {
		return err
	}
	p, err := newPlain(b.fs(), b.fs().PathJoin(dir, "plain"), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.file.Close()) }()
	record := make([]byte, h.Length)
	for i := range record {
		record[i] = byte(i)
	}
	r.Raw, r.Ours, err = b.rounds(ctx, func(d time.Duration) (float64, error) {
		return raw(p, record, d)
	}, func(d time.Duration) (float64, error) {
		return many(d, func() error {
			h, err := a.deposit(entries)
			if err == nil {
				err = j.WaitDurable(ctx, h.Last())
			}
			return err
		})
	})
	return err
}

// many has all writers do something again and again, and returns how often they did.
func many(d time.Duration, do func() error) (float64, error) {
	var work sync.WaitGroup
	counts, errs := make([]float64, writers), make([]error, writers)
	began := time.Now()
	for w := range writers {
		work.Go(func() {
			for time.Since(began) < d && errs[w] == nil {
				counts[w], errs[w] = counts[w]+1, do()
			}
		})
	}
	work.Wait()
	sum := 0.0
	for _, n := range counts {
		sum += n
	}
	return sum, errors.Join(errs...)
}

// spared waits for spares.
func spared(ctx context.Context, j *journal.Journal, bytes int64) error {
	for j.Space().Spare < bytes {
		if v, _ := j.View(); v.Err != nil {
			return v.Err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// bulk deposits large bundles and waits for the disk at the end. The plain program appends 4 MiB at a time to a file that grows,
// and syncs: as much as the journal writes with one sync at most.
func (b Bench) bulk(ctx context.Context) (r Result, err error) {
	const piece = 1 << 20
	r = Result{What: "bulk append", Unit: "MiB/s"}
	dir := b.fs().PathJoin(b.Dir, "bulk")
	j, err := b.journal(b.fs(), dir, 64<<20, -1)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.Close(), b.fs().RemoveAll(dir)) }()
	a := &author{j: j}
	entries := records(16, piece/16-128)
	if _, err := a.deposit(entries); err != nil {
		return r, err
	}
	plainDir := b.fs().PathJoin(dir, "plain")
	group := make([]byte, 4*piece)
	for i := range group {
		group[i] = byte(i)
	}
	r.Raw, r.Ours, err = b.rounds(ctx, func(d time.Duration) (n float64, err error) {
		p, err := newPlain(b.fs(), plainDir, false)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, p.file.Close(), b.fs().Remove(plainDir)) }()
		for began := time.Now(); time.Since(began) < d; n += 4 {
			if err := p.append(group); err != nil {
				return 0, err
			}
		}
		return n, nil
	}, func(d time.Duration) (float64, error) {
		var bytes int64
		var h entry.Header
		var err error
		for began := time.Now(); time.Since(began) < d; bytes += int64(h.Length) {
			if h, err = a.deposit(entries); err != nil {
				return 0, err
			}
		}
		if err := j.WaitDurable(ctx, h.Last()); err != nil {
			return 0, err
		}
		v, _ := j.View()
		return float64(bytes) / (1 << 20), j.DeleteReceivers(v.Attached - 1)
	})
	r.compare(0.8)
	return r, err
}
