package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Defaults of Options.
const (
	DefaultMemTableBytes = 16 << 20
	DefaultCacheBytes    = 32 << 20
	DefaultRecordBytes   = 64 << 20
	DefaultStall         = 30 * time.Second
)

// memTables is how many memtables there may be before writes wait.
const memTables = 3

// pebbleFormat is the on-disk format of the database. It is chosen here and raised deliberately: Pebble's default is the
// oldest it can read.
const pebbleFormat = pebble.FormatTableFormatV6

// Options say where the store is and what it may use.
type Options struct {
	FS            vfs.FS
	Dir           string
	Logger        hclog.Logger
	OnFatal       func(error)   // called at most once, on a goroutine that Close joins: it must not wait for Close. nil: only logged
	MemTableBytes int64         // unflushed changes are at most about three times this; 0: DefaultMemTableBytes
	CacheBytes    int64         // block cache; 0: DefaultCacheBytes
	RecordBytes   int64         // records that were looked at lately; 0: DefaultRecordBytes, negative: none
	Stall         time.Duration // a write or flush request that takes longer fails the store; 0: DefaultStall
}

// Store is the database of one node. All methods are safe for concurrent use.
type Store struct {
	db     *pebble.DB
	log    hclog.Logger
	stall  time.Duration
	health *health
	gate   gate
	recent *recent

	mu     sync.Mutex // guards groups; durable is the order of refreshes
	groups map[ident.GroupName]*Group

	durableMu host.Turn // held while flushed positions are read and published, so that they never step back in time
	flushes   chan struct{}

	stop      chan struct{} // closed when Close begins to stop the goroutines
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("store is closed")

// ErrNotFound is returned when there is no such record.
var ErrNotFound = errors.New("no such record")

// FailedError says that the store failed for good. The process has to be restarted; what was acknowledged is in the
// journals.
type FailedError struct{ Err error }

func (e *FailedError) Error() string {
	return "the store failed and stopped for good (restart this node; the journals bring the store forward again): " + e.Err.Error()
}

func (e *FailedError) Unwrap() error { return e.Err }

// CorruptionError says that a key or value of the database is not what this package writes.
type CorruptionError struct {
	Key []byte
	Err error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("store: key %q is corrupt: %v", e.Key, e.Err)
}

func (e *CorruptionError) Unwrap() error { return e.Err }

// Open opens the database in o.Dir, creating it when there is none. It holds Pebble's lock on the directory until Close.
func Open(o Options) (*Store, error) {
	if o.MemTableBytes == 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.RecordBytes == 0 {
		o.RecordBytes = DefaultRecordBytes
	}
	if o.Stall == 0 {
		o.Stall = DefaultStall
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	s := &Store{
		durableMu: host.NewTurn(),
		log:       o.Logger,
		stall:     o.Stall,
		health:    newHealth(o.Logger),
		recent:    newRecent(o.RecordBytes),
		groups:    make(map[ident.GroupName]*Group),
		flushes:   make(chan struct{}, 1),
		stop:      make(chan struct{}),
	}
	po := &pebble.Options{
		FS:                          &fuseFS{FS: o.FS, health: s.health},
		DisableWAL:                  true,
		FormatMajorVersion:          pebbleFormat,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: memTables,
		CacheSize:                   o.CacheBytes + memTables*o.MemTableBytes, // Pebble takes the memtables out of it
		Logger:                      s.health,
		EventListener:               s.health.listener(s.flushes),
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	err := s.run("open", func() (err error) {
		s.db, err = pebble.Open(o.Dir, po)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read store %s: %w", o.Dir, err), s.closePebble())
	}
	s.wg.Go(s.watch)
	s.wg.Go(func() { s.report(o.OnFatal) })
	return s, nil
}

// load checks the format and reads the positions of all groups. What a freshly opened store holds is durable.
func (s *Store) load() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	positions, err := s.positions(false)
	if err != nil {
		return err
	}
	for name, p := range positions {
		g := newGroup(s, name)
		g.position.Store(&p)
		g.flushed.Store(&p)
		if g.indexed, err = g.hasExpiries(); err != nil {
			return err
		}
		s.groups[name] = g
	}
	return nil
}

func (s *Store) checkFormat() error {
	v, closer, err := s.db.Get(formatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		// A crash may lose this key together with every other one, never alone: it is the first ever written.
		return s.run("write format", func() error { return s.db.Set(formatKey, []byte{formatVersion}, pebble.NoSync) })
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(v) == 1 && v[0] == 1 {
		return s.index()
	}
	if len(v) != 1 || v[0] != formatVersion {
		return fmt.Errorf("store has key format %x, this program knows %d: use the program version that wrote it", v, formatVersion)
	}
	return nil
}

// Group returns the store of one group; it exists, empty and at the zero position, without being created.
func (s *Store) Group(name ident.GroupName) *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	if g == nil {
		g = newGroup(s, name)
		s.groups[name] = g
	}
	return g
}

// Flush makes everything applied before the call durable and refreshes Flushed. It is the only thing that may take as
// long as ctx allows: a flush that keeps failing fails the store.
func (s *Store) Flush(ctx context.Context) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	return s.flush(ctx)
}

func (s *Store) flush(ctx context.Context) error {
	var flushed <-chan struct{}
	err := s.run("flush", func() (err error) {
		flushed, err = s.db.AsyncFlush()
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return s.refresh()
	case <-s.health.failed:
		return s.health.error()
	case <-ctx.Done():
		return fmt.Errorf("wait for flush of the store: %w", context.Cause(ctx))
	}
}

// Err returns the *FailedError of a failed store, else nil.
func (s *Store) Err() error { return s.health.error() }

// Failed is closed when the store fails for good.
func (s *Store) Failed() <-chan struct{} { return s.health.failed }

// Close flushes, closes the database and joins the goroutines. Calls in progress are waited for. The database of a failed
// store is abandoned as it is: its directory stays locked until the process ends.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.shut() })
	return s.closeErr
}

func (s *Store) shut() error {
	idle := s.gate.close()
	timer := time.NewTimer(s.stall)
	defer timer.Stop()
	var err error
	select {
	case <-idle:
		ctx, cancel := context.WithTimeout(context.Background(), s.stall)
		err = s.flush(ctx) // Pebble's Close leaves the memtable to a log that we do not have
		cancel()
	case <-s.health.failed:
		err = s.health.error()
	case <-timer.C:
		s.health.fail(fmt.Errorf("calls in progress did not end within %s", s.stall))
		err = s.health.error()
	}
	close(s.stop)
	s.wg.Wait()
	return errors.Join(err, s.closePebble())
}

func (s *Store) closePebble() error {
	if s.db == nil || s.health.error() != nil {
		return nil // Pebble would wait for background work that never ends
	}
	if err := s.run("close", s.db.Close); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// watch publishes the flushed positions after each flush.
func (s *Store) watch() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.health.failed:
			return
		case <-s.flushes:
			if err := s.refresh(); err != nil {
				s.log.Error("read flushed positions", "error", err)
			}
		}
	}
}

func (s *Store) report(onFatal func(error)) {
	select {
	case <-s.stop:
		// A failure while closing is both: told here and returned by Close.
		select {
		case <-s.health.failed:
		default:
			return
		}
	case <-s.health.failed:
	}
	if onFatal != nil {
		onFatal(s.health.error())
	}
}

// refresh reads the flushed positions of all groups and publishes them.
func (s *Store) refresh() error {
	s.durableMu.Lock()
	defer s.durableMu.Unlock()
	positions, err := s.positions(true)
	if err != nil {
		return err
	}
	for name, p := range positions {
		s.Group(name).flushed.Store(&p)
	}
	return nil
}

// positions reads the positions of all groups; only those guaranteed to survive a crash when durable.
func (s *Store) positions(durable bool) (map[ident.GroupName]ident.Position, error) {
	release, err := s.stand()
	if err != nil {
		return nil, err
	}
	iter, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{kindPosition}, UpperBound: []byte{kindPosition + 1}, OnlyReadGuaranteedDurable: durable,
	})
	release()
	if err != nil {
		return nil, err
	}
	out := make(map[ident.GroupName]ident.Position)
	for ok := iter.First(); ok && err == nil; ok = iter.Next() {
		var name ident.GroupName
		var p ident.Position
		if name, p, err = decodePositionRow(iter.Key(), iter.Value()); err == nil {
			out[name] = p
		}
	}
	return out, errors.Join(err, iter.Error(), iter.Close())
}

// stand waits until no batch of any group is landing, and keeps new ones waiting until release is called. A group made
// meanwhile has nothing yet.
func (s *Store) stand() (release func(), err error) {
	s.mu.Lock()
	groups := slices.Collect(maps.Values(s.groups))
	s.mu.Unlock()
	for i, g := range groups {
		if !g.landing.look(s.health.failed) {
			groups, err = groups[:i], s.health.error()
			break
		}
	}
	release = func() {
		for _, g := range groups {
			g.landing.leave()
		}
	}
	if err != nil {
		release()
	}
	return release, err
}

func (s *Store) enter() (leave func(), err error) {
	if err := s.health.error(); err != nil {
		return nil, err
	}
	if !s.gate.enter() {
		return nil, ErrClosed
	}
	return s.gate.leave, nil
}

// run calls f on a goroutine of its own and waits for it, but neither beyond the store's failure nor beyond Stall, which
// fails the store: Pebble may block for ever, or end the goroutine through Fatalf.
func (s *Store) run(what string, f func() error) error {
	if err := s.health.error(); err != nil {
		return err // f would get stuck where others did
	}
	done := make(chan error, 1)
	go func() {
		var err error
		returned := false
		defer func() {
			if !returned {
				err = s.health.error()
			}
			done <- err
		}()
		err = f()
		returned = true
	}()
	timer := time.NewTimer(s.stall)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-s.health.failed:
		return s.health.error()
	case <-timer.C:
		s.health.fail(fmt.Errorf("%s did not end within %s: the disk hangs or is far too slow", what, s.stall))
		return s.health.error()
	}
}

// gate counts the calls in progress, so that Close never pulls the database away under one.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	idle   chan struct{} // closed when closed and nobody is inside
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.idle)
	}
}

func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.idle = make(chan struct{})
	if g.inside == 0 {
		close(g.idle)
	}
	return g.idle
}

// positionOf is a shorthand for the atomically published positions; nil means the zero position.
func positionOf(p *atomic.Pointer[ident.Position]) ident.Position {
	if v := p.Load(); v != nil {
		return *v
	}
	return ident.Position{}
}
