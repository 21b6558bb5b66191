package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// Replays names, where a journal is asked for by its author, the one in which this node records what it replays.
const Replays = ident.ReplaysWord

// DefaultReplaysBytes bounds a journal of replays where nothing else is said.
const DefaultReplaysBytes = 1 << 30

// ReplaysKept bounds the journal in which a node records what it replays. Nobody needs its receivers: the oldest ones go.
type ReplaysKept struct {
	Bytes int64         // on the disk, for each group; 0: DefaultReplaysBytes. The group's maximum_blocks counts too
	Age   time.Duration // receivers go in which all is older; 0: none for that
}

// limits are those of the journal in a group. Four receivers fit, so that there is always one to drop.
func (k ReplaysKept) limits(spec *fsm.GroupSpec) journal.Limits {
	l := journal.Limits{ReceiverBytes: journal.DefaultReceiverBytes, SpareBytes: -1, MaximumBytes: k.Bytes}
	if spec != nil {
		if spec.ReceiverBytes > 0 {
			l.ReceiverBytes = spec.ReceiverBytes
		}
		if most := core.Cap(*spec, false); most > 0 {
			l.MaximumBytes = min(l.MaximumBytes, most)
		}
	}
	l.ReceiverBytes = max(64<<10, min(l.ReceiverBytes, l.MaximumBytes/4))
	return l
}

// openReplays returns the journal of what is replayed here, and makes it when it is not there yet.
func (r *Replica) openReplays() (*journal.Journal, error) {
	if j := r.replays.Load(); j != nil {
		return j, nil
	}
	o := &r.o
	limits := o.Replays.limits(nil)
	j, err := journal.Open(journal.Options{
		FS: o.FS, Dir: r.replaysDir(), ID: ident.JournalID{Group: o.Group, Node: Replays}, Cluster: o.Cluster,
		ReceiverBytes: limits.ReceiverBytes, Host: o.Host, Logger: o.Logger, Rotten: o.Rotten,
	})
	if err != nil {
		return nil, fmt.Errorf("open the journal of what is replayed: %w", err)
	}
	j.SetLimits(limits)
	if err := setState(j, journal.Active); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	r.replays.Store(j)
	return j, nil
}

func (r *Replica) replaysDir() string { return r.o.FS.PathJoin(r.o.Dir, "replays", string(r.o.Group)) }

// recoverReplays opens the journal of replays if there is one, so that it is listed, checked and bounded in any role.
func (r *Replica) recoverReplays() {
	if _, err := r.o.FS.Stat(r.replaysDir()); err != nil {
		return
	}
	if _, err := r.openReplays(); err != nil { // the group does without
		r.log.Warn("the journal of what was replayed does not open: remove its directory to begin another one", "directory", r.replaysDir(), "error", err)
	}
}

// Replayed returns the journal of what was replayed here; false when there is none.
func (r *Replica) Replayed() (JournalStatus, bool) {
	j := r.replays.Load()
	if j == nil {
		return JournalStatus{}, false
	}
	v, _ := j.View()
	space := j.Space()
	return JournalStatus{ID: j.ID(), State: j.State(), View: v, Receivers: len(j.Receivers()), Space: Space{Space: space, Free: r.free(), Runway: core.RunwayUnknown}}, true
}

// tendReplays keeps the journal of replays within its bounds, also when nothing is replayed.
func (r *Replica) tendReplays(a fsm.Assignment) error {
	if a.Group == nil {
		return nil
	}
	return r.boundReplays(&a.Group.Spec)
}

// boundReplays deletes the oldest receivers of the journal of replays as its bounds want. The newest one with
// something in it stays: it says up to where was recorded.
func (r *Replica) boundReplays(spec *fsm.GroupSpec) error {
	j := r.replays.Load()
	if j == nil {
		return nil
	}
	limits := r.o.Replays.limits(spec)
	j.SetLimits(limits)
	now, oldest := r.o.Host.Clock.Now(), r.o.Replays.Age
	receivers := j.Receivers()
	if n := len(receivers); n > 0 && oldest > 0 && receivers[n-1].Last > receivers[n-1].First && now.Sub(receivers[n-1].Created) > oldest/4 {
		if _, err := j.ChangeReceiver(r.gate.epoch()); err != nil && !errors.Is(err, journal.ErrFull) {
			return journalFailed(j, fmt.Errorf("change the receiver of what is replayed: %w", err))
		}
		receivers = j.Receivers()
	}
	stays := 1 // attached
	if n := len(receivers); n > 0 && receivers[n-1].Last <= receivers[n-1].First {
		stays = 2 // nothing was recorded in that one yet
	}
	held, gone := j.Space().Held, 0
	for ; gone+stays < len(receivers); gone++ {
		surplus := spec != nil && spec.KeepReceivers >= 0 && len(receivers)-1-gone > spec.KeepReceivers
		old := oldest > 0 && now.Sub(receivers[gone+1].Created) > oldest // all in it is older than the next one
		if !surplus && !old && held <= limits.MaximumBytes-limits.ReceiverBytes {
			break
		}
		held -= receivers[gone].Bytes
	}
	if gone == 0 {
		return nil
	}
	if err := j.DeleteReceivers(receivers[gone-1].Number); err != nil {
		return journalFailed(j, fmt.Errorf("delete receivers of what was replayed: %w", err))
	}
	r.log.Debug("deleted receivers of what was replayed", "receiver", receivers[gone-1].Number, "count", gone)
	return nil
}
