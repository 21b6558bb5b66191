package journal

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Limits of a journal, which SetLimits changes while it is open.
type Limits struct {
	ReceiverBytes int64 // Deposit changes receivers at this size; 0: DefaultReceiverBytes

	// SpareBytes is how much is made ahead as spare receivers, rounded up to whole ones. 0: one receiver, for a journal that is
	// ACTIVE and has filled an eighth of the attached one. A copy then has none: what it catches up with is written once, into
	// space that is reserved and not filled with zeros before. Negative: none.
	SpareBytes int64

	// MaximumBytes bounds what the journal takes on the disk: receivers with the zeros behind them, and spares. 0: no bound.
	MaximumBytes int64

	// MaxAge is after how long a receiver that holds facts is changed by the next deposit; 0: never. See Due.
	MaxAge time.Duration
}

// step is how far receivers are filled with zeros ahead of the write position when they were not made ahead.
func (l *Limits) step() int64 {
	return max(HeaderSize, min(maxStep, roundUp(l.ReceiverBytes, HeaderSize)))
}

// full is how long the file of a receiver is that was made ahead.
func (l *Limits) full() int64 { return max(roundUp(l.ReceiverBytes, HeaderSize), 4*HeaderSize) }

// reserve is kept free of everything but what leaves a journal in order: J NR, J PR, J IN and U SW.
func (l *Limits) reserve() int64 { return min(64<<10, max(4<<10, l.ReceiverBytes/16)) }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// nextBytes is more than a bundle with J NR or J PR takes. So much is free behind every other bundle.
const nextBytes = 256

// ErrFull: the journal has no space for a bundle. Nothing was numbered; the same call may succeed later. See FullError.
var ErrFull = errors.New("journal is full")

// Reasons of a FullError.
const (
	FullDisk    = "disk"    // the file system has no space, or its quota is used up
	FullMaximum = "maximum" // Limits.MaximumBytes
)

// FullError says that a journal has no space for what was offered. It comes before anything is numbered, and goes by itself
// when there is space again: View's channel tells when to try. What helps depends on who keeps the receivers: whoever shows it adds that.
type FullError struct {
	Journal ident.JournalID
	Reason  string // FullDisk or FullMaximum
	Bytes   int64  // that the journal takes on the disk
	Limit   int64  // MaximumBytes; 0 with FullDisk
	Err     error  // what the file system said; nil with FullMaximum
}

func (e *FullError) Error() string {
	if e.Reason == FullMaximum {
		return fmt.Sprintf("journal %s is full: it takes %.1f MiB, may take %.1f MiB, and what was offered does not fit", e.Journal, mebibytes(e.Bytes), mebibytes(e.Limit))
	}
	return fmt.Sprintf("journal %s is full: it takes %.1f MiB, and the disk has no space for more (%v)", e.Journal, mebibytes(e.Bytes), e.Err)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// Is makes every FullError an ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

func (e *FullError) Unwrap() error { return e.Err }

// noSpace tells whether err says that the disk or a quota is full.
func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// Space is what a journal takes on its disk, in bytes.
type Space struct {
	Held    int64      // everything: receivers with the space set aside for them, and spares
	Spare   int64      // in spare receivers
	Unused  int64      // set aside and not written yet: the rest of the attached receiver, and the spares
	Limit   int64      // MaximumBytes; 0: none
	Full    *FullError // why the last bundle that was refused was refused; nil once there is space again
	Pending *FullError // why a spare could not be made; it is tried again. Deposits still find space
}

// Space returns what the journal takes on its disk at present.
func (j *Journal) Space() Space {
	j.mu.RLock()
	defer j.mu.RUnlock()
	s := Space{Held: j.heldLocked(), Spare: j.stock.bytesLocked(), Limit: j.limits.MaximumBytes, Full: j.stock.full, Pending: j.stock.pending}
	s.Unused = s.Spare
	if n := len(j.receivers); n > 0 {
		r := j.receivers[n-1]
		s.Unused += max(0, max(r.allotted, r.size)-r.end)
	}
	return s
}

// heldLocked returns what the journal takes on the disk.
func (j *Journal) heldLocked() int64 {
	n := j.stock.bytesLocked() + j.stock.making + j.stock.granted
	for _, r := range j.receivers {
		n += max(r.size, r.allotted)
	}
	return n
}

// SetLimits changes the limits. What is held already stays, but for spares beyond them.
func (j *Journal) SetLimits(l Limits) {
	if l.ReceiverBytes <= 0 {
		l.ReceiverBytes = DefaultReceiverBytes
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if l == j.limits {
		return
	}
	j.limits = l
	j.stock.tidy = true
	j.freedLocked()
	j.stock.signal()
}

// freedLocked notes that a limit was raised or something deleted: the cap may not be reached any more.
func (j *Journal) freedLocked() {
	if f := j.stock.full; f != nil && f.Reason == FullMaximum {
		j.stock.full = nil
		j.publishLocked()
	}
	if f := j.stock.pending; f != nil && f.Reason == FullMaximum {
		j.stock.pending = nil
	}
}

// fullLocked makes an error of what the journal has no space for, and tells who watches.
func (j *Journal) fullLocked(cause error) *FullError {
	f := &FullError{Journal: j.disk.id, Reason: FullDisk, Bytes: j.heldLocked(), Err: cause}
	if cause == nil {
		f.Reason, f.Limit = FullMaximum, j.limits.MaximumBytes
	}
	return f
}

// refuse remembers why a bundle does not fit; need is how much must be free before it is tried again.
func (j *Journal) refuse(cause error, need int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.fullLocked(cause)
	before := j.stock.full
	if before != nil && before.Reason == f.Reason && before.Bytes == f.Bytes && before.Limit == f.Limit {
		return before
	}
	j.stock.full, j.stock.need = f, need
	j.log.Warn("journal is full", "group", j.disk.id.Group, "node", j.disk.id.Node, "reason", f.Reason, "bytes", f.Bytes, "limit", f.Limit, "error", cause)
	j.publishLocked()
	j.stock.signal()
	return f
}

// Due tells whether the attached receiver is older than MaxAge and holds facts: the next deposit changes it. The owner of an
// idle journal asks now and then, and calls ChangeReceiver.
func (j *Journal) Due(now time.Time) bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.dueLocked(now)
}

func (j *Journal) dueLocked(now time.Time) bool {
	if j.limits.MaxAge <= 0 || len(j.receivers) == 0 {
		return false
	}
	r := j.receivers[len(j.receivers)-1]
	return !r.closed && len(r.pieces) > 0 && now.Sub(r.header.Created) > j.limits.MaxAge
}
