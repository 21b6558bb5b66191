// Package journalbench measures a journal against what its disk and its processor can do: every figure comes with the rate of a
// plain program that does the bare minimum, measured in turns with it, so that the ratio means something on a noisy machine.
package journalbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Result is one row: what was measured.
type Result struct {
	What   string  `json:"what"`
	Unit   string  `json:"unit"` // of Raw and Ours
	Raw    float64 `json:"raw"`  // the plain program; 0: there is none to compare with
	Ours   float64 `json:"ours"`
	Ratio  float64 `json:"ratio"` // Ours / Raw; 0 without Raw
	Wanted string  `json:"wanted"`
	Met    bool    `json:"met"`
}

// Bench is where and for how long is measured.
type Bench struct {
	Dir  string        // on the disk to be measured; what is made in it is removed
	Time time.Duration // for each of the rows
	FS   vfs.FS        // of Dir; nil: the machine's
}

func (b Bench) fs() vfs.FS {
	if b.FS == nil {
		return vfs.Default
	}
	return b.FS
}

// Rows are the names of what Run measures, in order.
func Rows() []string { return []string{"deposit", "share", "bulk", "encode", "verify", "open"} }

// Run measures one row.
func (b Bench) Run(ctx context.Context, row string) (Result, error) {
	switch row {
	case "deposit":
		return b.deposit(ctx)
	case "share":
		return b.share(ctx)
	case "bulk":
		return b.bulk(ctx)
	case "encode":
		return b.encode()
	case "verify":
		return b.verify(ctx)
	case "open":
		return b.open()
	}
	return Result{}, fmt.Errorf("unknown benchmark %q", row)
}

func (r *Result) compare(least float64) {
	r.Ratio = r.Ours / r.Raw
	r.Wanted, r.Met = fmt.Sprintf("ratio >= %.2f", least), r.Ratio >= least
}

const value = 256 // bytes of a record

// records makes n changes of records of the given size.
func records(n, size int) []entry.Entry {
	all := make([]entry.Entry, n)
	for i := range all {
		v := make([]byte, size)
		for k := range v {
			v[k] = byte(k*7 + i)
		}
		all[i] = entry.Entry{Code: entry.Record, Type: entry.Put, File: "bench", Key: fmt.Appendf(nil, "key%06d", i), After: &entry.Image{Value: v}}
	}
	return all
}

// open opens a journal in a directory of its own below b.Dir.
func (b Bench) journal(fs vfs.FS, dir string, receiver, spare int64) (*journal.Journal, error) {
	j, err := journal.Open(journal.Options{
		FS: fs, Dir: dir, ID: ident.JournalID{Group: "bench", Node: "a"}, Cluster: "bench", ReceiverBytes: receiver, SpareBytes: spare,
	})
	if err != nil {
		return nil, err
	}
	if err := j.SetState(journal.Active); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// rounds calls both in turns until the time is over, each for a while, and returns what they did per second.
func (b Bench) rounds(ctx context.Context, raw, ours func(time.Duration) (float64, error)) (rawRate, oursRate float64, err error) {
	const slices = 8
	each := b.Time / (2 * slices)
	var did, took [2]float64
	for range slices {
		for i, f := range []func(time.Duration) (float64, error){raw, ours} {
			if ctx.Err() != nil {
				return 0, 0, context.Cause(ctx)
			}
			began := time.Now()
			n, err := f(each)
			if err != nil {
				return 0, 0, err
			}
			did[i] += n
			took[i] += time.Since(began).Seconds()
		}
	}
	return did[0] / took[0], did[1] / took[1], nil
}
