package journal

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// ErrFull says that a journal takes nothing for want of room. Nothing was numbered or queued: it is not failed, and goes on by
// itself once there is room.
var ErrFull = errors.New("the journal is full")

// FullError is an ErrFull with its place.
type FullError struct {
	Journal ident.JournalID
	Reason  string // "disk": the disk has no room | "maximum": Limits.MaximumBytes is reached
	Bytes   int64  // that the journal has on disk
	Limit   int64  // bytes: the maximum, or what the disk has
}

func (e *FullError) Error() string {
	if e.Reason == "disk" {
		return fmt.Sprintf("journal %s: %v: the disk has no room left (it uses %d bytes)", e.Journal, ErrFull, e.Bytes)
	}
	return fmt.Sprintf("journal %s: %v: it uses %d of at most %d bytes", e.Journal, ErrFull, e.Bytes, e.Limit)
}

// Is makes a FullError an ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// Limits bound a journal. Zero fields do not.
type Limits struct {
	ReceiverBytes int64         // change of receiver at this size; 0: as it was opened
	SpareBytes    int64         // kept ready as receivers made ahead
	MaximumBytes  int64         // of all receiver files
	MaxAge        time.Duration // an attached receiver is changed when it is older
}

// Space is how much room a journal has.
type Space struct {
	Bytes int64 // of all receiver files
	Spare int64 // made ahead
	Free  int64 // on the disk; 0: not known
	Limit int64 // Limits.MaximumBytes
	Full  error // a *FullError while it takes nothing, else nil
}

// limits are the bounds in force.
type limits struct {
	mu   sync.Mutex
	set  Limits
	full *FullError // of the last refusal; nil: there was none since something fitted
}

// SetLimits bounds the journal from now on. It is not persistent.
func (j *Journal) SetLimits(l Limits) {
	j.limits.mu.Lock()
	defer j.limits.mu.Unlock()
	j.limits.set = l
}

// Space tells how much room there is.
func (j *Journal) Space() Space {
	j.limits.mu.Lock()
	set, full := j.limits.set, j.limits.full
	j.limits.mu.Unlock()
	v, _ := j.View()
	s := Space{Bytes: v.Bytes, Limit: set.MaximumBytes}
	if full != nil && full.Limit == set.MaximumBytes && j.used(0) >= full.Bytes { // nothing went since
		s.Full = full
	}
	if usage, err := j.disk.fs.GetDiskUsage(j.disk.dir); err == nil {
		s.Free = int64(min(usage.AvailBytes, 1<<62))
	}
	return s
}

// Due tells whether the attached receiver is older than MaxAge and holds anything to detach.
func (j *Journal) Due(now time.Time) bool {
	j.limits.mu.Lock()
	age := j.limits.set.MaxAge
	j.limits.mu.Unlock()
	r := j.attached()
	if age <= 0 || r == nil {
		return false
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	return r.last > r.header.First && now.Sub(r.header.Created) >= age
}

// used returns the bytes of all receivers when n more are appended.
func (j *Journal) used(n int64) (used int64) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for i, r := range j.receivers {
		end := r.end
		if i == len(j.receivers)-1 {
			end += n
		}
		used += max(r.size, end)
	}
	return used
}

// fits returns a *FullError when n more bytes would exceed the maximum.
func (j *Journal) fits(n int64) error {
	j.limits.mu.Lock()
	defer j.limits.mu.Unlock()
	limit := j.limits.set.MaximumBytes
	j.limits.full = nil
	if limit > 0 && j.used(n) > limit {
		j.limits.full = &FullError{Journal: j.disk.id, Reason: "maximum", Bytes: j.used(0), Limit: limit}
		return j.limits.full
	}
	return nil
}

// changesAt returns the size at which receivers are changed.
func (j *Journal) changesAt() int64 {
	j.limits.mu.Lock()
	defer j.limits.mu.Unlock()
	if n := j.limits.set.ReceiverBytes; n > 0 {
		return n
	}
	return j.receiverBytes
}
