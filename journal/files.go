package journal

import (
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	category   = vfs.DiskWriteCategory("journal")
	tempSuffix = ".tmp"
)

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

// ensureDir creates dir and syncs every directory that got a new name.
func ensureDir(fs vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = fs.PathDir(d) {
		_, err := fs.Stat(d)
		if err == nil || fs.PathDir(d) == d {
			break
		}
		if !isNotExist(err) {
			return fmt.Errorf("look for directory: %w", err)
		}
		missing = append(missing, d)
	}
	if len(missing) == 0 {
		return nil
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := syncDir(fs, fs.PathDir(missing[i])); err != nil {
			return err
		}
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

// replaceFile makes the file dir/name hold b, padded with zeros to size, atomically: after a crash it is the old one or the new
// one. The file is returned open, synced.
func replaceFile(fs vfs.FS, dir, name string, b []byte, size int64) (vfs.File, error) {
	path, temp := fs.PathJoin(dir, name), fs.PathJoin(dir, name+tempSuffix)
	if err := fs.Remove(temp); err != nil && !isNotExist(err) {
		return nil, fmt.Errorf("remove %s: %w", temp, err)
	}
	file, err := fs.OpenReadWrite(temp, category)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", temp, err)
	}
	err = func() error {
		if _, err := file.WriteAt(b, 0); err != nil {
			return fmt.Errorf("write %s: %w", temp, err)
		}
		if err := writeZeros(file, int64(len(b)), size); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", temp, err)
		}
		if err := fs.Rename(temp, path); err != nil {
			return fmt.Errorf("rename %s: %w", temp, err)
		}
		return syncDir(fs, dir)
	}()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// writeZeros fills the file with zeros between the two offsets.
func writeZeros(file vfs.File, from, to int64) error {
	if from >= to {
		return nil
	}
	zeros := make([]byte, min(to-from, 1<<20))
	for from < to {
		n, err := file.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return fmt.Errorf("fill with zeros: %w", err)
		}
		from += int64(n)
	}
	return nil
}
