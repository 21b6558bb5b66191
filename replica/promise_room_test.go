package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-ha/understudy/fsm"
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

// Proves S17, TR-4: a backup that cannot promise for want of space deletes the receivers that nobody needs all the same: nobody else makes room on its
// disk. It takes nothing of the epoch that it has not promised, and goes on when there is space.
func TestWhoHasNoRoomToPromiseMakesRoom(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{KeepReceivers: 1}, "a", "b")
	a, b := c.nodes["a"], c.nodes["b"]
	c.inSync("a", "b")
	no := errors.New("not yet")
	b.veto.Store(&no)
	for i := range 10 {
		a.mustPut(fmt.Sprint("k", i), strings.Repeat("x", 40<<10))
	}
	c.level("b")
	c.renew("a", "b")
	copied, _ := b.rep.Journal("a")
	held := len(copied.Receivers())
	if held < 3 {
		t.Fatalf("b holds %d receivers: this test needs some that nobody needs", held)
	}
	b.stop()
	c.inSync("a")
	c.failover("a", false)
	c.serves("a")
	disk := c.disks["b"]
	old := make([]byte, promiseRecord) // version 1, epoch 1
	copy(old, "USPR\x01\x00\x00\x00\x01")
	binary.LittleEndian.PutUint32(old[28:], crc32.Checksum(old[:28], castagnoli))
	if err := replaceFile(disk, "data/promises", string(orders), old); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	full.Store(true)
	c.disks["b"] = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, promisePath+".tmp") {
			return &osError{syscall.ENOSPC}
		}
		return nil
	}))
	b = c.start("b")
	c.renew("a", "b") // as a node does with every lease
	copied, _ = b.rep.Journal("a")
	c.eventually("b deletes what nobody needs", func() bool { return len(copied.Receivers()) < held })
	if _, told := b.event(EventNotPromised); !told || b.fatal.Load() != nil || b.rep.Status().Promised != 1 {
		t.Errorf("told %t, fatal %v, promised %s", told, b.fatal.Load(), b.rep.Status().Promised)
	}
	if v, _ := copied.View(); len(v.Runs) == 0 || v.Runs[len(v.Runs)-1].Epoch != 1 {
		t.Errorf("it took in runs %+v", v.Runs)
	}
	full.Store(false)
	a.mustPut("k", "after")
	c.level("b")
}
