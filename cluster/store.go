package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const (
	boltFile  = "raft.db"
	snapshots = 3 // kept
)

// store is Raft's disk: log and votes in one bolt file, snapshots as files beside it.
type store struct {
	bolt  *raftboltdb.BoltStore
	log   raft.LogStore
	snaps *raft.FileSnapshotStore

	hang    time.Duration
	onFatal func(error)
	stop    chan struct{} // closed by close
	work    sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	running map[uint64]call
}

// call is a write that has not returned.
type call struct {
	name  string
	since time.Time
}

// storeExists tells whether dir holds a Raft log, even an empty one.
func storeExists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, boltFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openStore opens the store in dir and creates it if needed.
func openStore(dir string, hang time.Duration, onFatal func(error), log hclog.Logger) (*store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create raft directory: %w", err)
	}
	if err := createBolt(dir); err != nil {
		return nil, fmt.Errorf("create raft log in %s: %w", dir, err)
	}
	bolt, err := openBolt(filepath.Join(dir, boltFile))
	if err != nil {
		return nil, fmt.Errorf("open raft log in %s (is another process using it?): %w", dir, err)
	}
	s := &store{bolt: bolt, hang: hang, onFatal: onFatal, stop: make(chan struct{}), running: map[uint64]call{}}
	s.snaps, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshots, log)
	if err == nil {
		s.log, err = raft.NewLogCache(512, watchedLog{LogStore: bolt, store: s})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots in %s: %w", dir, err), bolt.Close())
	}
	s.work.Go(s.watch)
	return s, nil
}

// createBolt makes an empty bolt file under a temporary name and renames it, since a power cut while bolt writes its
// first pages leaves a file that cannot be opened.
func createBolt(dir string) error {
	if ok, err := storeExists(dir); ok || err != nil {
		return err
	}
	temp := filepath.Join(dir, boltFile+".new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := openBolt(temp)
	if err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	if err := syncPath(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, boltFile)); err != nil {
		return err
	}
	return syncPath(dir)
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path:                    path,
		MsgpackUseNewTimeFormat: true,
		BoltOptions:             &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// unused tells whether no Raft instance ever ran on the store: at most a bootstrap configuration is in it.
func (s *store) unused() (bool, error) {
	last, err := s.bolt.LastIndex()
	if err != nil {
		return false, err
	}
	list, err := s.snaps.List()
	if err != nil {
		return false, err
	}
	return last <= 1 && len(list) == 0, nil
}

// close ends the watch and closes the file. Raft must have ended.
func (s *store) close() error {
	close(s.stop)
	s.work.Wait()
	return s.bolt.Close()
}

// enter notes that a write begins; call the result when it has returned.
func (s *store) enter(name string) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	id := s.next
	s.running[id] = call{name: name, since: time.Now()}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, id)
	}
}

// watch reports a write that does not return. A leader whose disk hangs goes on with its heartbeats and is never replaced,
// so somebody has to end the process.
func (s *store) watch() {
	tick := time.NewTicker(max(s.hang/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		var err error
		for _, c := range s.running {
			if d := time.Since(c.since); d > s.hang {
				err = fmt.Errorf("raft disk hangs: %s has not returned for %s", c.name, d.Round(time.Millisecond))
			}
		}
		s.mu.Unlock()
		if err != nil {
			s.onFatal(err)
			return
		}
	}
}

// watchedLog is the log store with its writes noted.
type watchedLog struct {
	raft.LogStore
	store *store
}

func (w watchedLog) StoreLog(l *raft.Log) error {
	defer w.store.enter("store log")()
	return w.LogStore.StoreLog(l)
}

func (w watchedLog) StoreLogs(l []*raft.Log) error {
	defer w.store.enter("store logs")()
	return w.LogStore.StoreLogs(l)
}

func (w watchedLog) DeleteRange(from, to uint64) error {
	defer w.store.enter("delete logs")()
	return w.LogStore.DeleteRange(from, to)
}

// watchedStable is the stable store with its writes noted.
type watchedStable struct {
	raft.StableStore
	store *store
}

func (w watchedStable) Set(k, v []byte) error {
	defer w.store.enter("store vote")()
	return w.StableStore.Set(k, v)
}

func (w watchedStable) SetUint64(k []byte, v uint64) error {
	defer w.store.enter("store term")()
	return w.StableStore.SetUint64(k, v)
}

// stable is Raft's store of terms and votes.
func (s *store) stable() raft.StableStore { return watchedStable{StableStore: s.bolt, store: s} }
