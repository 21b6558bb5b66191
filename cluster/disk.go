package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Disk is where Raft keeps log, votes and snapshots from one life of a node to the next.
type Disk interface {
	// Exists tells whether there is a log, even an empty one.
	Exists() (bool, error)
	// Open opens the log and creates what is missing. Nobody else can open it until it is closed.
	Open(log hclog.Logger) (DiskFiles, error)
	// Remove deletes the log, durably. It is called for one that no Raft ever used.
	Remove() error
	// String names the place, for operators.
	String() string
}

// DiskFiles are the parts of an open Disk. What a write returned nil for survives a loss of power.
type DiskFiles struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// Directory is the Disk of production: log and votes in one bolt file, snapshots as files beside it.
type Directory string

const (
	boltFile  = "raft.db"
	snapshots = 3 // kept
)

func (d Directory) String() string { return filepath.Join(string(d), boltFile) }

// Exists implements Disk.
func (d Directory) Exists() (bool, error) {
	_, err := os.Stat(d.String())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Open implements Disk.
func (d Directory) Open(log hclog.Logger) (DiskFiles, error) {
	if err := os.MkdirAll(string(d), 0o750); err != nil {
		return DiskFiles{}, fmt.Errorf("create raft directory: %w", err)
	}
	if err := d.create(); err != nil {
		return DiskFiles{}, fmt.Errorf("create raft log in %s: %w", string(d), err)
	}
	bolt, err := openBolt(d.String())
	if err != nil {
		return DiskFiles{}, fmt.Errorf("open raft log in %s (is another process using it?): %w", string(d), err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(string(d), snapshots, log)
	if err != nil {
		return DiskFiles{}, errors.Join(fmt.Errorf("open raft snapshots in %s: %w", string(d), err), bolt.Close())
	}
	return DiskFiles{Log: bolt, Stable: bolt, Snapshots: snaps, Close: bolt.Close}, nil
}

// Remove implements Disk.
func (d Directory) Remove() error {
	if err := os.Remove(d.String()); err != nil {
		return err
	}
	return syncPath(string(d))
}

// create makes an empty bolt file under a temporary name and renames it, since a power cut while bolt writes its first
// pages leaves a file that cannot be opened.
func (d Directory) create() error {
	if ok, err := d.Exists(); ok || err != nil {
		return err
	}
	temp := d.String() + ".new"
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
	if err := os.Rename(temp, d.String()); err != nil {
		return err
	}
	return syncPath(string(d))
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
