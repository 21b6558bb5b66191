package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// Host decides which sessions a node takes.
type Host interface {
	// Admit judges a session whose cluster, version and target were found right. It returns a *Refusal or *FencedError to
	// turn it away with a reason. An admitted session supersedes older ones of the same journal, source and life: from
	// then on their Enter fails. Admit returns before ctx ends.
	Admit(ctx context.Context, h wire.Hello) (Admission, error)
}

// Admission is one admitted session. Its methods are called from two goroutines, except Close, which comes last.
type Admission interface {
	// Journal is the copy that the session appends to. It stays open until Close.
	Journal() *journal.Journal
	// Enter is the last gate. Until leave is called the promise stays still. It fails with a *FencedError, or a *Refusal,
	// once a higher epoch was promised or a newer session was admitted. Nothing is appended, removed, marked or
	// acknowledged outside.
	Enter() (leave func(), err error)
	// Removable tells whether what lies beyond after, the end of the common prefix, may be removed physically; if not it
	// returns a *Refusal, and the source tries again later. It is called between Enter and leave, and the removal follows
	// before leave, so that nothing which the answer rests on can go in between; so it must not call Enter itself. One
	// server makes one removal at a time.
	Removable(after ident.Sequence, h wire.Hello) error
	// Clearable tells whether the whole copy may be removed, since it is to begin elsewhere. What the copy has from first up to common
	// its author, who asks, holds as well. Called as Removable is.
	Clearable(first, common ident.Sequence, h wire.Hello) error
	// Progress hears how far the source is, in order. The journal's Mark was called before.
	Progress(p wire.Progress)
	// Level hears that nothing that was committed at asOf, by this node's clock, lies beyond at.
	Level(at ident.Position, asOf time.Time)
	// Held returns what Ack says beyond the journal's own ends, and a channel closed when either position changed.
	Held() (held, applied ident.Position, changed <-chan struct{})
	// Close ends the admission. The session has stopped using everything it got.
	Close()
}

// Timeouts are the times a session lives by. Zero means the default.
type Timeouts struct {
	Heartbeat time.Duration // something is sent at least this often; default 200 ms
	Silent    time.Duration // a peer that neither sends nor takes bytes for so long is gone; default 2 s
	Hello     time.Duration // from accept to an admitted Hello; default 1 s, less than what a source waits
}

// Defaults of Timeouts and of the window.
const (
	DefaultHeartbeat = 200 * time.Millisecond
	DefaultTimeout   = 2 * time.Second
	DefaultWindow    = 16 << 20
	DefaultSessions  = 1024
)

// ServeOptions say who serves and within which limits.
type ServeOptions struct {
	Cluster     ident.ClusterID
	Self        ident.NodeID
	Protocol    ident.Protocol // of all nodes; zero: that of builds before there was a number
	Logger      hclog.Logger   // nil: none
	Timeouts    Timeouts
	MaxSessions int   // sessions at a time, those without Hello included; default DefaultSessions
	Window      int64 // bytes per session that may be received and not yet durable; default DefaultWindow
}

func (o ServeOptions) withDefaults() ServeOptions {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.Timeouts.Heartbeat = orDefault(o.Timeouts.Heartbeat, DefaultHeartbeat)
	o.Timeouts.Silent = orDefault(o.Timeouts.Silent, DefaultTimeout)
	o.Timeouts.Hello = orDefault(o.Timeouts.Hello, DefaultTimeout/2)
	if o.MaxSessions <= 0 {
		o.MaxSessions = DefaultSessions
	}
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	return o
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// server is what the sessions of one Serve share.
type server struct {
	host Host
	o    ServeOptions

	removal host.Turn // held over Removable and the removal, so that two sessions never each rely on what the other removes
}

// Serve takes sessions from ln until ctx ends, then tells the sources that the node stops, closes ln and joins all
// sessions. It returns nil then, and an error only when ln failed before.
func Serve(ctx context.Context, ln net.Listener, h Host, o ServeOptions) error {
	s := &server{host: h, o: o.withDefaults(), removal: host.NewTurn()}
	var sessions sync.WaitGroup
	defer sessions.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()                                            // before the wait: the sessions end also when the listener failed
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() }) // its error: the listener is closed already
	defer stop()
	slots := make(chan struct{}, s.o.MaxSessions)
	pause := backoff{least: 5 * time.Millisecond, most: time.Second}
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.Close() // nothing was said on it
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept shipping sessions: %w", err)
		case err != nil: // out of descriptors, or the peer gave up already
			s.o.Logger.Warn("cannot accept a shipping session", "error", err)
			pause.wait(ctx)
			continue
		}
		pause.reset()
		select {
		case slots <- struct{}{}:
			sessions.Go(func() {
				defer func() { <-slots }()
				s.session(ctx, conn)
			})
		default:
			s.turnAway(conn)
		}
	}
}

// turnAway tells a connection that there is no room. It must not hold up the accept loop.
func (s *server) turnAway(conn net.Conn) {
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) // best effort: the peer tries again anyway
	w := wire.NewWriter(conn, 0)
	if w.Write(wire.Refuse{Code: wire.CodeBusy, Text: fmt.Sprintf("node %s serves %d sessions already", s.o.Self, s.o.MaxSessions)}) == nil {
		_ = w.Flush() // as above
	}
	_ = conn.Close() // as above
	s.o.Logger.Warn("shipping session turned away: too many", "sessions", s.o.MaxSessions)
}

// check judges what needs no host.
func (s *server) check(h wire.Hello) error {
	switch {
	case h.Version < wire.Version:
		return &wire.VersionError{Have: wire.Version, Want: h.Version}
	case h.Cluster != s.o.Cluster:
		return &Refusal{wire.CodeCluster, fmt.Sprintf("node %s belongs to cluster %s, not %s: check the addresses of the source", s.o.Self, s.o.Cluster, h.Cluster)}
	case ident.Spoken(h.Version) != s.o.Protocol:
		other := &ident.OtherProtocolError{Node: s.o.Self, Theirs: s.o.Protocol, Ours: ident.Spoken(h.Version)}
		return &Refusal{wire.CodeVersion, other.Error()} // as the source will read it
	case h.To != s.o.Self:
		return &Refusal{wire.CodeNode, fmt.Sprintf("this is node %s, not %s: check the ship address of %s", s.o.Self, h.To, h.To)}
	case h.Epoch == 0 || h.Session == 0 || h.Journal.Group == "" || h.Journal.Node == "" || h.From == "":
		return &Refusal{wire.CodeMalformed, "hello without epoch, session, journal or sender"}
	}
	return nil
}
