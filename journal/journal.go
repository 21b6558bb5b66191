package journal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Options of a journal.
type Options struct {
	FS            vfs.FS // default vfs.Default
	Dir           string // <data>/journals/<group>/<node>; created when something is first written
	ID            ident.JournalID
	Cluster       ident.ClusterID
	ReceiverBytes int64         // Deposit changes receivers at this size; default 64 MiB
	SpareBytes    int64         // as Limits.SpareBytes
	MaximumBytes  int64         // as Limits.MaximumBytes
	MaxAge        time.Duration // as Limits.MaxAge
	RingBytes     int64         // recent bundles kept in memory for readers; default 8 MiB
	Host          host.Host     // default host.Real()
	Logger        hclog.Logger  // default: none

	Rotten func(ident.JournalID, ident.ReceiverNumber) // told when a reader meets rot; must not block; nil: nobody
}

// Defaults of Options.
const (
	DefaultReceiverBytes = 64 << 20
	DefaultRingBytes     = 8 << 20
)

func (o *Options) setDefaults() {
	real := host.Real()
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.ReceiverBytes <= 0 {
		o.ReceiverBytes = DefaultReceiverBytes
	}
	if o.RingBytes <= 0 {
		o.RingBytes = DefaultRingBytes
	}
	if o.Host.Clock == nil {
		o.Host.Clock = real.Clock
	}
	if o.Host.Failpoint == nil {
		o.Host.Failpoint = real.Failpoint
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Rotten == nil {
		o.Rotten = func(ident.JournalID, ident.ReceiverNumber) {}
	}
}

// State says what a journal takes from Deposit. It does not concern AppendRaw.
type State string

// States, part of the format.
const (
	Active   State = "ACTIVE"   // takes every deposit
	Inactive State = "INACTIVE" // takes J IN only; also the state of a journal for which none was set yet
	Standby  State = "STANDBY"  // takes J IN only; the local journal of a backup
)

// Journal is one journal on this node's disk: the local one, or a copy of another node's. All methods may be called from any
// goroutine.
type Journal struct {
	disk   disk
	clock  host.Clock
	log    hclog.Logger
	rotten func(ident.JournalID, ident.ReceiverNumber)

	appending host.Turn  // held by whoever changes the end of the journal or the list of receivers; taken before mu
	recalling sync.Mutex // held by the one Recall; only ever tried

	mu        sync.RWMutex
	receivers []*receiver // oldest first; the slice is replaced, not modified, when receivers go
	ring      ring
	queue     queue
	view      View // what the next published view is made of; Runs are in runs
	runs      runs
	cuts      cuts
	record    record // what SetState and the like know of the state file; the writer has the durable mark
	limits    Limits
	stock     *stock

	published     atomic.Pointer[published]
	waiters       waiters       // for View.Durable and View.Err
	closedChannel chan struct{} // closed always
	done          chan struct{} // closed when the writer has ended
	writer        *writer
}

// Open recovers the journal in o.Dir and starts its writer. An empty journal has no receiver until the first Deposit or
// BeginReceiver. Errors wrap *CorruptionError when bytes are not what was written.
func Open(o Options) (*Journal, error) {
	o.setDefaults()
	d := disk{fs: o.FS, dir: o.Dir, id: o.ID, cluster: o.Cluster}
	log := o.Logger.Named("journal")
	found, err := d.recover()
	if err != nil {
		var broken *CorruptionError
		if errors.As(err, &broken) {
			return nil, fmt.Errorf("open journal %s in %s: %w; replace that file by the one of another node that holds this journal, then start again", o.ID, o.Dir, err)
		}
		return nil, fmt.Errorf("open journal %s in %s: %w", o.ID, o.Dir, err)
	}
	j := &Journal{
		appending: host.NewTurn(), disk: d, clock: o.Host.Clock, log: log, rotten: o.Rotten,
		limits:    Limits{ReceiverBytes: o.ReceiverBytes, SpareBytes: o.SpareBytes, MaximumBytes: o.MaximumBytes, MaxAge: o.MaxAge},
		receivers: found.receivers, ring: ring{limit: o.RingBytes}, record: found.record,
		queue: queue{wake: make(chan struct{}, 1)}, closedChannel: make(chan struct{}), done: make(chan struct{}),
	}
	close(j.closedChannel)
	j.stock = newStock(j, found.spares)
	j.mu.Lock()
	j.tailLocked()
	j.view.Durable, j.view.DurableAfter, j.view.Torn = j.view.Last, j.view.After, found.record.torn
	j.view.Found = j.view.Last
	for _, r := range j.receivers {
		j.view.Bytes += r.size
	}
	j.mu.Unlock()
	if err := j.recallMarks(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.ID, err)
	}
	j.mu.Lock()
	j.publishLocked()
	j.mu.Unlock()
	if found.cut > 0 {
		log.Warn("cut a torn tail; this copy needs comparing with another one", "group", o.ID.Group, "node", o.ID.Node,
			"receiver", j.view.Attached, "after", uint64(j.view.Last), "bytes", found.cut)
	}
	j.writer = newWriter(j, o)
	go j.writer.run()
	go j.stock.run()
	return j, nil
}

// recallMarks takes the source's marks from the newest bundle that is held.
func (j *Journal) recallMarks() error {
	if j.view.Last < j.view.First || j.view.Last == 0 {
		return nil
	}
	b, err := j.BundleAt(j.view.Last)
	if err != nil {
		return err
	}
	j.view.Confirmed, j.view.Committed = b.Durable, b.Committed
	return nil
}

// Close flushes what was appended, joins the writer and the stock of spares, and returns the first error the journal had. Readers get ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	if !j.queue.closing {
		j.queue.closing = true
		close(j.stock.stopping)
	}
	j.queue.signal()
	j.mu.Unlock()
	<-j.done
	<-j.stock.done
	if err := j.writer.closeErr; err != nil {
		return err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.view.Err // of the stock
}

// ID returns the journal's name.
func (j *Journal) ID() ident.JournalID { return j.disk.id }

// State returns the persistent state.
func (j *Journal) State() State {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.record.state
}

// SetState changes the state; it is on disk on return.
func (j *Journal) SetState(s State) error {
	if s != Active && s != Inactive && s != Standby {
		return fmt.Errorf("journal state %q is not known", s)
	}
	j.appending.Lock()
	defer j.appending.Unlock()
	return j.note(func(r *record) { r.state = s })
}

// ClearTorn forgets that a torn tail was cut, once the journal was compared with another copy. Until then View.Torn survives
// restarts.
func (j *Journal) ClearTorn() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	return j.note(func(r *record) { r.torn = false })
}

// note changes the state file. The caller holds appending.
func (j *Journal) note(change func(*record)) error {
	if err := j.usable(); err != nil {
		return err
	}
	j.mu.RLock()
	before := j.record
	j.mu.RUnlock()
	after := before
	if change(&after); after == before && before.count > 0 {
		return nil
	}
	var short error
	if err := j.do(func(w *writer) (err error) {
		before := w.record
		change(&w.record)
		if short, err = w.saveRecord(); short != nil {
			w.record = before
		}
		return err
	}); err != nil {
		return err
	}
	if short != nil {
		return j.refuse(short, stateSize)
	}
	j.mu.Lock()
	j.record = after
	j.record.count = max(1, before.count)
	j.view.Torn = after.torn
	j.publishLocked()
	j.stock.signal()
	j.mu.Unlock()
	return nil
}

// usable returns why the journal takes nothing any more, or nil.
func (j *Journal) usable() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.usableLocked()
}

func (j *Journal) usableLocked() error {
	if j.queue.closing {
		return ErrClosed
	}
	return j.view.Err
}

// Receivers lists the receivers held, oldest first.
func (j *Journal) Receivers() []ReceiverInfo {
	j.mu.RLock()
	defer j.mu.RUnlock()
	infos := make([]ReceiverInfo, len(j.receivers))
	for i, r := range j.receivers {
		infos[i] = r.info(i == len(j.receivers)-1)
	}
	return infos
}

// ReceiverInfo describes a receiver.
type ReceiverInfo struct {
	Number   ident.ReceiverNumber
	First    ident.Sequence
	Last     ident.Sequence // First-1 when it is empty
	Start    ident.Position // history position at its start
	Chain    ident.Chain    // over all bundles before it
	Bytes    int64          // size of the file
	Attached bool
	Created  time.Time
}

// DeleteReceivers deletes detached receivers up to and including upTo, oldest first, never the attached one. Readers that
// still want something from them get ErrNotHeld.
func (j *Journal) DeleteReceivers(upTo ident.ReceiverNumber) error {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	j.mu.Lock()
	n := 0
	for n < len(j.receivers)-1 && j.receivers[n].header.Number <= upTo {
		j.view.Bytes -= j.receivers[n].size
		n++
	}
	gone := j.receivers[:n]
	j.receivers = append([]*receiver(nil), j.receivers[n:]...)
	if n > 0 {
		j.tailLocked()
		j.freedLocked()
		j.publishLocked()
	}
	j.mu.Unlock()
	if n == 0 {
		return nil
	}
	// The queue is in order: when this runs, all of them have long been written and closed.
	err := j.do(func(w *writer) error {
		for _, r := range gone {
			if err := w.disk.remove(r); err != nil {
				return err
			}
		}
		return nil
	})
	j.stock.retryNow()
	return err
}
