package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/internal/watchdog"
)

// store is Raft's disk with a watch over its writes.
type store struct {
	files DiskFiles
	log   raft.LogStore // with the newest entries in memory
	snaps raft.SnapshotStore

	watchdog *watchdog.Watchdog
	onFatal  func(error)
}

// openStore opens the store on disk and creates it if needed.
func openStore(disk Disk, hang time.Duration, onFatal func(error), log hclog.Logger) (*store, error) {
	files, err := disk.Open(log)
	if err != nil {
		return nil, err
	}
	s := &store{files: files, snaps: files.Snapshots, watchdog: watchdog.New("raft disk", hang, onFatal), onFatal: onFatal}
	s.log, err = raft.NewLogCache(512, watchedLog{LogStore: files.Log, store: s})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log: %w", err), s.watchdog.Close(), files.Close())
	}
	return s, nil
}

// unused tells whether no Raft instance ever ran on the store: at most a bootstrap configuration is in it.
func (s *store) unused() (bool, error) {
	last, err := s.files.Log.LastIndex()
	if err != nil {
		return false, err
	}
	list, err := s.snaps.List()
	if err != nil {
		return false, err
	}
	return last <= 1 && len(list) == 0, nil
}

// close ends the watch and closes the files. Raft must have ended.
func (s *store) close() error { return errors.Join(s.watchdog.Close(), s.files.Close()) }

// wrote ends a write. One that fails is final: what Raft keeps in memory may not be what stands on disk any more (a log that was cut
// and not appended to stops it for ever), so this life of the node ends, and the next one reads the disk.
func (s *store) wrote(what string, err error) error {
	if err != nil {
		s.onFatal(fmt.Errorf("%s on raft's disk: %w: make space, or replace the disk; the node has to start anew", what, err))
	}
	return err
}

// watchedLog is the log store with its writes noted.
type watchedLog struct {
	raft.LogStore
	store *store
}

func (w watchedLog) StoreLog(l *raft.Log) error {
	defer w.store.watchdog.Enter("store log")()
	return w.store.wrote("store log", w.LogStore.StoreLog(l))
}

func (w watchedLog) StoreLogs(l []*raft.Log) error {
	defer w.store.watchdog.Enter("store logs")()
	return w.store.wrote("store logs", w.LogStore.StoreLogs(l))
}

func (w watchedLog) DeleteRange(from, to uint64) error {
	defer w.store.watchdog.Enter("delete logs")()
	return w.store.wrote("delete logs", w.LogStore.DeleteRange(from, to))
}

// watchedStable is the stable store with its writes noted.
type watchedStable struct {
	raft.StableStore
	store *store
}

func (w watchedStable) Set(k, v []byte) error {
	defer w.store.watchdog.Enter("store vote")()
	return w.store.wrote("store vote", w.StableStore.Set(k, v))
}

func (w watchedStable) SetUint64(k []byte, v uint64) error {
	defer w.store.watchdog.Enter("store term")()
	return w.store.wrote("store term", w.StableStore.SetUint64(k, v))
}

// stable is Raft's store of terms and votes.
func (s *store) stable() raft.StableStore {
	return watchedStable{StableStore: s.files.Stable, store: s}
}
