package replica

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/store"
)

// Options are what one group's replica needs.
type Options struct {
	Cluster       ident.ClusterID
	Node          ident.NodeID
	Group         ident.GroupName
	Protocol      ident.Protocol // see remote.SourceOptions
	Life          ident.Incarnation
	FS            vfs.FS
	Dir           string // the data directory of the node
	Store         *store.Store
	Host          host.Host
	Network       host.Network // for shipping; nil: Host.Network
	Logger        hclog.Logger
	ReceiverBytes int64       // change of receiver at this size; 0: the journal's default
	QueueBytes    int64       // writes waiting and in flight, 0: 64 MiB
	Archive       Archive     // nil: there is none
	KeepLocal     *int        // detached receivers of a journal that stay here although they are archived; nil: as many as the group keeps in any case
	Replays       ReplaysKept // bounds what journal_replays records
	Timing        Timing
	Events        func(Event) // must not block; nil: nobody listens

	// Veto is asked before a detached receiver is deleted; an error keeps it, and it is asked again later. It may take long,
	// and ends with its context. nil: nobody is asked.
	Veto func(ctx context.Context, d Doomed) error

	// Selection is asked for each bundle and returns what tells of a record whether it belongs to the group: nil, or an ErrNotOwned. It
	// looks at the state of that moment. nil: all records do.
	Selection func() func(file string, key []byte) error

	Rotten func(ident.JournalID, ident.ReceiverNumber) // told when a reader of a journal meets rot; must not block; nil: nobody
}

// Timing holds the durations of the role sessions. Zero fields are filled with defaults.
type Timing struct {
	ShrinkAfter time.Duration // an in-sync secondary without progress is taken out after this (default 1 s)
	OpenGrace   time.Duration // a new primary waits this long for set members to acknowledge its SW (default 500 ms)
	Heartbeat   time.Duration // of shipping sessions (default 200 ms)
	Timeout     time.Duration // a silent peer's session is closed (default 2 s)
	Tick        time.Duration // how often decisions are looked at without a cause (default 50 ms)
	Retention   time.Duration // how often receivers are looked at for deletion (default 1 s)
	Propose     time.Duration // a proposal to the control plane may take this long (default 5 s)
	Room        time.Duration // writes wait so long for room in a full journal before they are refused (default twice Retention)
	DropAfter   time.Duration // a node has to be absent for so long before it is dropped for a full journal (default 10 s)
	FeedGrace   time.Duration // a backup that feeds others goes on for so long without a source of its own (default 2 s)
	Patience    time.Duration // a copy leaves a feeder that brings nothing for so long while the primary has more (default 3 s)
	VetoRetry   time.Duration // a receiver whose deletion was vetoed is asked for again after this (default 1 min)
}

func (t *Timing) fill() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.ShrinkAfter, time.Second}, {&t.OpenGrace, 500 * time.Millisecond}, {&t.Heartbeat, 200 * time.Millisecond},
		{&t.Timeout, 2 * time.Second}, {&t.Tick, 50 * time.Millisecond}, {&t.Retention, time.Second}, {&t.Propose, 5 * time.Second},
		{&t.DropAfter, 10 * time.Second}, {&t.VetoRetry, time.Minute}, {&t.FeedGrace, 2 * time.Second},
		{&t.Patience, 3 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if t.Room <= 0 {
		t.Room = 2 * t.Retention
	}
}

func (o *Options) fill() error {
	switch {
	case o.Node == "" || o.Group == "" || o.Cluster == "":
		return errors.New("open replica: node, group and cluster must be set")
	case o.Life == 0:
		return errors.New("open replica: the life of the node must be set")
	case o.FS == nil || o.Store == nil || o.Dir == "":
		return errors.New("open replica: file system, data directory and store must be set")
	}
	if o.Network == nil {
		o.Network = o.Host.Network
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 64 << 20
	}
	if o.Replays.Bytes <= 0 {
		o.Replays.Bytes = DefaultReplaysBytes
	}
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	o.Timing.fill()
	return nil
}

// Control is the control plane as one replica sees it.
type Control interface {
	// Assignment returns the present state and a channel closed at its next change. Group may be nil.
	Assignment() (fsm.Assignment, <-chan struct{})
	// CheckLease returns nil only if this life's lease covers the group at e at the instant of the call.
	CheckLease(e ident.Epoch) error
	// Yield makes CheckLease fail for the epoch, whatever the clock says, or lets it answer by the clock again.
	Yield(e ident.Epoch, yes bool)
	// Propose returns once the command was applied and, if accepted, is visible in Assignment. A refused result comes with
	// a nil error; an error means that the outcome is not known.
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
	// Alive tells whether the failure detector takes a node for alive.
	Alive(n ident.NodeID) bool
}
