package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// The promise file holds the highest epoch this node promised for the group. Part of the format: three slots of 4096 bytes, so that each
// has a physical sector of the disk to itself. A slot begins with a record, 32 bytes, little endian; zeros follow:
//
//	0  magic "USPR"    4  version u16, now 3    6  reserved, zero    8  promised epoch u64
//	16 reserved, zero  28 CRC32C of the bytes before
//
// A promise is written in place into all slots, with one sync, and needs no space. So whatever a slot says that is sound is the promise that was
// answered last, or one above it that nobody has heard of: the highest of them counts. A power cut destroys, with the sector that was being written, one slot, as a rotten sector
// does; what is known is known as long as one slot is left.
//
// Version 2 had three sectors of 512 bytes, each assumed to be written as a whole or not at all: the first was written with the file, the others
// in turns, each zero until then. Version 1 was one record and nothing else. Both are read, and replaced at the next promise.
const (
	promiseRecord  = 32
	promiseSlot    = 4096
	promiseSlots   = 3
	promiseSize    = promiseSlots * promiseSlot
	promiseMagic   = "USPR"
	promiseVersion = 3

	promiseSector2 = 512 // version 2
	promiseSize2   = 3 * promiseSector2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errPromiseDamaged = errors.New("it is damaged")

// promiseFile reads and replaces the promise file.
type promiseFile struct {
	fs    vfs.FS
	dir   string // <data>/promises
	name  string
	named bool // the file's name is known to be on disk: it was synced since this process has found or made it
}

// promises are what a promise file says.
type promises struct {
	slots [promiseSlots]ident.Epoch // zero: damaged
	old   ident.Epoch               // not zero: of a file of version 1 or 2, which has no such slots
}

// highest is what was promised.
func (p promises) highest() ident.Epoch { return max(p.old, slices.Max(p.slots[:])) }

// load returns what was promised, zero when there is no file, and makes sure that it is on disk, in all slots. It may be in the page cache only: of a
// process that was killed before its sync, or after a sync that failed, which marks the pages clean all the same. Written again, they
// are dirty, and the sync tells the truth about them. Without that, who is asked for this epoch would take it for promised.
func (p *promiseFile) load() (ident.Epoch, error) {
	have, err := p.read()
	if err != nil || have.highest() == 0 {
		return 0, err
	}
	if err := p.settle(have); err != nil {
		return 0, fmt.Errorf("write promise file %s again: %w", p.path(), err)
	}
	return have.highest(), nil
}

func (p promiseFile) path() string { return p.fs.PathJoin(p.dir, p.name) }

// read returns what the file says; its highest is zero when there is none. A file of which nothing is sound is an error: the
// promise it held is unknown, and without it the node could break its word.
func (p promiseFile) read() (have promises, err error) {
	f, err := p.fs.Open(p.path())
	if isNotExist(err) {
		return have, nil
	}
	if err == nil {
		have, err = readPromises(f)
		err = errors.Join(err, f.Close())
	}
	switch {
	case errors.Is(err, errPromiseDamaged):
		return have, fmt.Errorf("promise file %s is damaged: what this node promised is unknown; remove the node from the cluster and add it anew", p.path())
	case err != nil:
		return have, fmt.Errorf("read promise file %s: %w", p.path(), err)
	}
	return have, nil
}

// settle writes again what the file says, and syncs it and its name.
func (p *promiseFile) settle(have promises) (err error) {
	f, err := p.fs.OpenReadWrite(p.path(), fileCategory)
	if err != nil {
		return err
	}
	if have.old > 0 {
		err = again(f)
	} else {
		err = have.settle(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return p.sync()
}

// sync makes the file's name durable.
func (p *promiseFile) sync() error {
	err := errors.Join(makeDir(p.fs, p.dir), syncDir(p.fs, p.dir))
	p.named = err == nil
	return err
}

// settle writes the highest epoch into all slots, one at a time, each synced before the next: so that a power cut does not take the last
// one that is sound. The damaged ones come first.
func (p promises) settle(f vfs.File) error {
	for _, damaged := range []bool{true, false} {
		for i, e := range p.slots {
			if (e == 0) != damaged {
				continue
			}
			if err := writePromise(f, i, p.highest()); err != nil {
				return err
			}
			if err := f.SyncData(); err != nil {
				return err
			}
		}
	}
	return nil
}

// write puts e into the file; on return it is on disk, and so is the file's name.
func (p *promiseFile) write(e ident.Epoch) error {
	have, err := p.read()
	switch {
	case err != nil:
	case have.old > 0 || have.highest() == 0:
		err = p.replace(have, slices.Concat(promiseOf(e), promiseOf(e), promiseOf(e)))
		p.named = err == nil
	default:
		err = p.overwrite(e)
		if err == nil && !p.named { // an earlier try may have made the file and then failed
			err = p.sync()
		}
	}
	if err != nil {
		return fmt.Errorf("write promise file: %w", err)
	}
	return nil
}

// replace makes a file of the present version. Without room for it the error is a *PromiseRoomError when the file is what it was: nothing was promised, and
// the file that was begun beside it counts for nothing.
func (p *promiseFile) replace(have promises, content []byte) error {
	err := replaceFile(p.fs, p.dir, p.name, content)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if now, failed := p.read(); failed != nil || now != have {
		return err
	}
	_ = p.fs.Remove(p.fs.PathJoin(p.dir, p.name+".tmp")) // made anew at the next try
	return &PromiseRoomError{Path: p.path(), Bytes: len(content), Err: err}
}

// PromiseRoomError says that an epoch could not be promised since the disk has no space for the promise file. What was promised before holds, and the
// same call may succeed later.
type PromiseRoomError struct {
	Path  string
	Bytes int
	Err   error
}

func (e *PromiseRoomError) Error() string {
	return fmt.Sprintf("the disk has no space for the promise file %s, %d KiB: no new epoch can be promised by this node, so it takes no part in a failover until space is freed in the data directory; "+
		"this is tried again by itself (%v)", e.Path, e.Bytes>>10, e.Err)
}

func (e *PromiseRoomError) Unwrap() error { return e.Err }

// overwrite puts e into all slots.
func (p promiseFile) overwrite(e ident.Epoch) error {
	f, err := p.fs.OpenReadWrite(p.path(), fileCategory)
	if err != nil {
		return err
	}
	for i := range promiseSlots {
		if err == nil {
			err = writePromise(f, i, e)
		}
	}
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// writePromise puts a record into a slot.
func writePromise(f vfs.File, slot int, e ident.Epoch) error {
	_, err := f.WriteAt(promiseOf(e), int64(slot)*promiseSlot)
	return err
}

// promiseOf encodes a slot.
func promiseOf(e ident.Epoch) []byte {
	b := make([]byte, promiseSlot)
	le := binary.LittleEndian
	copy(b, promiseMagic)
	le.PutUint16(b[4:], promiseVersion)
	le.PutUint64(b[8:], uint64(e))
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

// promiseIn decodes the record of a slot or a sector.
func promiseIn(b []byte, version uint16) (ident.Epoch, bool) {
	le := binary.LittleEndian
	e := ident.Epoch(le.Uint64(b[8:]))
	return e, string(b[:4]) == promiseMagic && le.Uint32(b[28:]) == crc32.Checksum(b[:28], castagnoli) && le.Uint16(b[4:]) == version && e > 0
}

// readPromises reads a file of any version; errPromiseDamaged when nothing of it is sound.
func readPromises(f vfs.File) (p promises, err error) {
	info, err := f.Stat()
	if err != nil {
		return p, err
	}
	switch info.Size() {
	case promiseRecord, promiseSize2:
		b := make([]byte, info.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			return p, err
		}
		var ok bool
		if p.old, ok = oldPromise(b); !ok {
			return p, errPromiseDamaged
		}
		return p, nil
	case promiseSize:
	default:
		return p, errPromiseDamaged
	}
	var unreadable error
	for i := range p.slots {
		b := make([]byte, promiseSlot)
		_, err := f.ReadAt(b, int64(i)*promiseSlot) // each by itself: a sector that was destroyed cannot be read
		if e, ok := promiseIn(b, promiseVersion); ok && err == nil {
			p.slots[i] = e
		}
		unreadable = errors.Join(unreadable, err)
	}
	switch {
	case p.highest() > 0:
		return p, nil
	case unreadable != nil:
		return p, unreadable // perhaps it can be read another time
	}
	return p, errPromiseDamaged
}

// oldPromise decodes a file of version 1 or 2.
func oldPromise(b []byte) (ident.Epoch, bool) {
	if len(b) == promiseRecord {
		return promiseIn(b, 1)
	}
	var sectors [3]ident.Epoch
	for i := range sectors {
		sector, ok := b[i*promiseSector2:(i+1)*promiseSector2], false
		if !slices.ContainsFunc(sector, func(c byte) bool { return c != 0 }) {
			continue
		}
		if sectors[i], ok = promiseIn(sector, 2); !ok {
			return 0, false
		}
	}
	return slices.Max(sectors[:]), sectors[0] > 0 && (sectors[1] > 0 || sectors[2] == 0) // the second is never empty once the third was written
}

// again writes a file of version 1 or 2 as it is, and syncs it. Each sector gets the bytes that it has.
func again(f vfs.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}
