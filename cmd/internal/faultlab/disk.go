package faultlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is a file system of its own, of a few megabytes, that can be filled.
type Disk struct {
	dir     string
	ballast string
}

// ErrNotRoot says why there is no disk.
var ErrNotRoot = errors.New("mounting a tmpfs needs root")

// MountDisk mounts a tmpfs of so many bytes at dir. Close takes it away again.
func MountDisk(dir string, bytes int64) (*Disk, error) {
	if os.Getuid() != 0 {
		return nil, ErrNotRoot
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("understudy-faultlab", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		if errors.Is(err, syscall.EPERM) {
			return nil, fmt.Errorf("%w: %w", ErrNotRoot, err)
		}
		return nil, fmt.Errorf("mount tmpfs at %s: %w", dir, err)
	}
	return &Disk{dir: dir, ballast: filepath.Join(dir, "ballast")}, nil
}

// Fill takes all the space that is left.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	piece := make([]byte, 64<<10)
	for {
		_, err := f.Write(piece)
		switch {
		case err == nil:
		case len(piece) > 1:
			piece = piece[:len(piece)/2] // the last page too
		default:
			if cerr := f.Close(); cerr != nil {
				return cerr
			}
			if errors.Is(err, syscall.ENOSPC) {
				return nil
			}
			return err
		}
	}
}

// Release gives the space back.
func (d *Disk) Release() error { return os.Remove(d.ballast) }

// Close unmounts the disk. Nothing may use it any more.
func (d *Disk) Close() error {
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	return nil
}
