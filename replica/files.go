package replica

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fileCategory tells the file system what the small files here are.
const fileCategory = vfs.WriteCategoryUnspecified

func isNotExist(err error) bool { return err != nil && errors.Is(err, os.ErrNotExist) }

// replaceFile writes dir/name so that after a crash either the old or the new content is there whole: temporary file, sync,
// rename, sync of the directory. The directory is made when it is missing, and its parent synced.
func replaceFile(fs vfs.FS, dir, name string, content []byte) (err error) {
	if err := makeDir(fs, dir); err != nil {
		return err
	}
	temp, final := fs.PathJoin(dir, name+".tmp"), fs.PathJoin(dir, name)
	f, err := fs.Create(temp, fileCategory)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(temp, final); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// makeDir makes dir and makes its name durable, and that of the directory above it: one that exists may have been made by a
// process that died before it synced the name.
func makeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, parent := range []string{fs.PathDir(dir), fs.PathDir(fs.PathDir(dir))} {
		if err := syncDir(fs, parent); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fs vfs.FS, path string) (content []byte, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(f)
}
