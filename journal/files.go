package journal

import (
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

const (
	category   = vfs.DiskWriteCategory("journal")
	tempSuffix = ".tmp"
)

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

// ownDirs are the directories above the receivers that journals make: journals/<group>/<node>.
const ownDirs = 3

// ensureDir makes dir and makes every name durable that it made, and in any case those of the directories that belong to
// journals: one that exists already may have been made by a process that died before it synced the name, or by another
// journal that has not synced it yet.
func ensureDir(fs vfs.FS, dir string) error {
	made := 0
	for d := dir; fs.PathDir(d) != d; d = fs.PathDir(d) {
		_, err := fs.Stat(d)
		if err == nil {
			break
		}
		if !isNotExist(err) {
			return fmt.Errorf("look for directory: %w", err)
		}
		made++
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	for range max(made, ownDirs) {
		parent := fs.PathDir(dir)
		if parent == dir {
			break
		}
		if err := syncDir(fs, parent); err != nil {
			return err
		}
		dir = parent
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// sentAhead is from how many bytes on it pays to have the disk begin with what is written before the sync.
const sentAhead = 512 << 10

// sendAhead has the file system begin to write a part of the file to disk, so that the sync that follows has less to wait for. Nothing
// is promised by it, and where it cannot be done the sync does it all: errors of the disk are met there.
func sendAhead(file vfs.File, from, n int64) {
	if fd := file.Fd(); fd != vfs.InvalidFd {
		_ = unix.SyncFileRange(int(fd), from, n, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// paced is a file that is written over a large part: it is synced after every few MiB, so that no single call takes long on
// a slow disk. A watchdog that ends a process for a call that hangs must not end one that fills a large receiver. The last
// piece is left to the caller's sync.
type paced struct {
	file     vfs.File
	unsynced int64
}

const syncEvery = 4 << 20

// WriteAt is io.WriterAt.
func (p *paced) WriteAt(b []byte, at int64) (int, error) {
	if p.unsynced >= syncEvery {
		if err := p.file.SyncData(); err != nil {
			return 0, fmt.Errorf("sync: %w", err)
		}
		p.unsynced = 0
	}
	n, err := p.file.WriteAt(b, at)
	p.unsynced += int64(n)
	return n, err
}

// writeZeros fills the file with zeros between the two offsets. Not all of them are synced.
func writeZeros(file vfs.File, from, to int64) error {
	if from >= to {
		return nil
	}
	out := paced{file: file}
	zeros := make([]byte, min(to-from, 1<<20))
	for from < to {
		n, err := out.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return fmt.Errorf("fill with zeros: %w", err)
		}
		from += int64(n)
	}
	return nil
}
