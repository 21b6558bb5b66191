package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Proves S17, RJ-9: without space for the larger file of this version the node keeps what an older one promised, promises nothing new, says what
// helps, and tries again. What was begun beside the file counts for nothing, whatever becomes of it.
func TestPromiseWaitsForRoom(t *testing.T) {
	old := make([]byte, promiseRecord) // version 1, epoch 5
	copy(old, "USPR\x01\x00\x00\x00\x05")
	binary.LittleEndian.PutUint32(old[28:], crc32.Checksum(old[:28], castagnoli))
	for _, at := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync} {
		disk, full := vfs.NewCrashableMem(), true
		p := promiseOn(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full && op.Kind == at && strings.HasSuffix(op.Path, ".tmp") {
				return &osError{syscall.ENOSPC}
			}
			return nil
		})))
		if err := replaceFile(disk, p.dir, p.name, bytes.Clone(old)); err != nil {
			t.Fatal(err)
		}
		if e, err := p.load(); e != 5 || err != nil {
			t.Fatalf("an old file is read as %s, %v", e, err)
		}
		for range 2 {
			err := p.write(6)
			var room *PromiseRoomError
			if !errors.As(err, &room) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "freed") {
				t.Fatalf("operation %v: %v", at, err)
			}
			if have, err := promiseOn(disk.CrashClone(vfs.CrashCloneCfg{})).read(); err != nil || have.old != 5 {
				t.Fatalf("after operation %v it says %+v, %v", at, have, err)
			}
			if _, err := disk.Stat(promisePath + ".tmp"); !isNotExist(err) {
				t.Errorf("operation %v leaves a file: %v", at, err)
			}
		}
		full = false
		if err := p.write(6); err != nil {
			t.Fatal(err)
		}
		promiseOn(disk.CrashClone(vfs.CrashCloneCfg{})).says(t, 6)
	}
}

// A failure from the moment on that the file is replaced leaves open what it says: that is no want of room.
func TestPromiseReplacedWithoutRoom(t *testing.T) {
	p := promiseOn(&renamedOnly{FS: vfs.NewMem()})
	var room *PromiseRoomError
	if err := p.write(1); errors.As(err, &room) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v", err)
	}
}

// renamedOnly renames and says that it could not.
type renamedOnly struct{ vfs.FS }

func (r *renamedOnly) Rename(from, to string) error {
	return errors.Join(r.FS.Rename(from, to), &osError{syscall.ENOSPC})
}
