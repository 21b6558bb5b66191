package remote

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// SourceOptions say which journal is shipped, to whom, and who listens. The functions are called from the session's own
// goroutines, OnAck from its reading one: they must not block and may be nil, except Addr.
type SourceOptions struct {
	Cluster      ident.ClusterID
	Self, Target ident.NodeID
	Protocol     ident.Protocol // of all nodes; zero: that of builds before there was a number
	Life         ident.Incarnation
	Epoch        ident.Epoch // the epoch of every session; a new epoch takes a new RunSource
	Journal      *journal.Journal
	Author       bool           // Self wrote this journal
	Addr         func() string  // the target's present ship address; "" while it is not known
	Network      host.Network   // dials
	Logger       hclog.Logger   // nil: none
	Free         func() bool    // Hello.Free, asked once per session, after OnSession; nil: false
	Leads        func() bool    // tells that nobody else can have committed anything of the group up to now; nil: false, and then no target learns its age
	Sessions     *atomic.Uint64 // counts the sessions of this life; shared by all sources of the process

	// Relay is set where Self feeds the target in place of the primary; nil else. Then Author, Free and Leads count for nothing.
	Relay *Relay

	// OnSession is called when a session is about to say Hello, before Free is asked. Acknowledgements of this journal heard
	// before are void. When Free then says true, the target may remove entries that it needs to connect what it has of other
	// journals: what it says it holds counts again, from whatever session, only after the first OnAck of this one, or
	// after OnState told PhaseRefused.
	OnSession func()
	OnAck     func(wire.Ack)     // in order
	OnState   func(SessionState) // at each change of phase, at each end of a session, and at most once per heartbeat while the numbers move

	// Begin says, when an operator named a receiver with which the target's copy is to begin, the sequence before it; asked once per
	// session, and not where Free said false. Began hears that the target does so, or holds that receiver already, and from
	// where it is shipped to. Only Self's own journal begins elsewhere. May be nil.
	Begin func() (after ident.Sequence, ok bool)
	Began func(from ident.Sequence)

	// Recall is asked when the target needs this journal from a sequence on that is not held here any more. Nil: it will be shipped
	// another way, and this session ends. An error: the session goes on as if it had not been asked. May be nil.
	Recall func(ctx context.Context, from ident.Sequence) error

	Window    int64         // bytes that may be sent and not yet durable at the target; 0: what the target allows; else at least 128 KiB
	Heartbeat time.Duration // default DefaultHeartbeat
	Timeout   time.Duration // a silent target is given up; default DefaultTimeout
}

// The phases of a source.
const (
	PhaseConnecting = "connecting" // dialling, or waiting to dial again
	PhaseMatching   = "matching"   // finding the common prefix; the target may be removing what lies beyond it
	PhaseCatchup    = "catchup"    // sending what the target missed
	PhaseLive       = "live"       // everything was sent once; bundles go as they are appended
	PhaseRefused    = "refused"    // the target said why; tried again
)

// SessionState shows where a source stands. The zero Code means no reason.
type SessionState struct {
	Phase        string
	Code, Reason string // why the last session ended; Code is the name of a wire.Code
	Since        time.Time
	From         ident.Sequence // first sequence sent in this session
	Sent, End    ident.Sequence // last sequence sent, last sequence of the journal
}

// Errors that no retry mends.
var errOptions = errors.New("incomplete source options")

func (o SourceOptions) withDefaults() (SourceOptions, error) {
	if o.Journal == nil || o.Addr == nil || o.Network == nil || o.Sessions == nil || o.Epoch == 0 || o.Self == "" || o.Target == "" {
		return o, fmt.Errorf("ship to node %s: %w", o.Target, errOptions)
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Leads == nil {
		o.Leads = func() bool { return false }
	}
	if o.Relay != nil { // whatever else was said
		o.Author, o.Free, o.Leads = false, nil, func() bool { return false }
	}
	if o.Free == nil {
		o.Free = func() bool { return false }
	}
	if o.Begin == nil || !o.Author {
		o.Begin = func() (ident.Sequence, bool) { return 0, false }
	}
	if o.Began == nil {
		o.Began = func(ident.Sequence) {}
	}
	if o.OnSession == nil {
		o.OnSession = func() {}
	}
	if o.OnAck == nil {
		o.OnAck = func(wire.Ack) {}
	}
	if o.OnState == nil {
		o.OnState = func(SessionState) {}
	}
	o.Heartbeat = orDefault(o.Heartbeat, DefaultHeartbeat)
	o.Timeout = orDefault(o.Timeout, DefaultTimeout)
	if o.Window <= 0 {
		o.Window = 1 << 62
	}
	o.Window = max(o.Window, 2*creditStep)
	return o, nil
}

// source is one running RunSource. Its fields belong to the goroutine that runs it.
type source struct {
	o     SourceOptions
	log   hclog.Logger
	state SessionState
	told  SessionState // what OnState heard last

	careful bool // bytes of a range were found corrupt: no ranges for now
}

// RunSource ships one journal to one target: it dials, matches the chains, sends what the target lacks and then what is
// appended, and dials again with a growing pause whenever a session ends. It returns nil when ctx ends, and an error when
// the options are incomplete or the journal was closed.
func RunSource(ctx context.Context, o SourceOptions) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	s := &source{o: o}
	id := o.Journal.ID()
	s.log = o.Logger.With("group", id.Group, "journal", id.String(), "peer", o.Target, "epoch", o.Epoch)
	pause := backoff{least: leastPause, most: mostPause}
	for {
		if s.state.Phase != PhaseRefused {
			s.enter(PhaseConnecting)
		}
		steady, err := s.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, journal.ErrClosed) {
			return fmt.Errorf("ship %s to node %s: %w", id, o.Target, err)
		}
		s.ended(err)
		if steady {
			pause.reset()
		}
		pause.most = longestPause(err)
		pause.wait(ctx)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// ended records why a session ended, and logs it once per reason, not once per attempt.
func (s *source) ended(err error) {
	before := s.state.Reason
	s.state.Code, s.state.Reason = "", err.Error()
	phase := PhaseConnecting
	var refusal *Refusal
	if errors.As(err, &refusal) {
		s.state.Code, s.state.Reason = refusal.Code.String(), refusal.Text
		if refusal.Code != wire.CodeSilent && refusal.Code != wire.CodeRematch {
			phase = PhaseRefused
		}
	}
	if s.state.Reason != before {
		s.log.Info("shipping session ended", "code", s.state.Code, "reason", s.state.Reason)
	}
	s.told = SessionState{} // that a session ended is news, even for the same reason as before
	s.enter(phase)
}

// enter moves to a phase and tells. Refused stays while the next attempts match, until a target is ready or fails
// otherwise, so that a watcher does not see every attempt.
func (s *source) enter(phase string) {
	if s.state.Phase == PhaseRefused && phase == PhaseMatching {
		return
	}
	if s.state.Phase != phase {
		s.state.Phase, s.state.Since = phase, time.Now()
	}
	s.tell()
}

// tell passes the state on when it differs from what was told last.
func (s *source) tell() {
	view, _ := s.o.Journal.View()
	s.state.End = view.Last
	if s.state != s.told {
		s.told = s.state
		s.o.OnState(s.state)
	}
}
