package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// The promise file holds the highest epoch this node promised for the group. Part of the format: three sectors of 512 bytes, each
// assumed to be written as a whole or not at all, as in a journal's state file. A sector is zero, or begins with a record, 32 bytes,
// little endian:
//
//	0  magic "USPR"    4  version u16, now 2    6  reserved, zero    8  promised epoch u64
//	16 reserved, zero  28 CRC32C of the bytes before
//
// The first sector is written with the file; after that the second and the third are written in place, always the lower one, so that a
// promise costs one sync and no space. The highest epoch counts. Version 1 was one such record and nothing else; it is read, and replaced
// at the next promise.
const (
	promiseRecord  = 32
	promiseSector  = 512
	promiseSize    = 3 * promiseSector
	promiseMagic   = "USPR"
	promiseVersion = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// promiseFile reads and replaces the promise file.
type promiseFile struct {
	fs   vfs.FS
	dir  string // <data>/promises
	name string
}

// read returns zero when there is no file. A damaged file is an error: the promise it held is unknown, and without it the
// node could break its word.
func (p promiseFile) read() (ident.Epoch, error) {
	path := p.fs.PathJoin(p.dir, p.name)
	b, err := readFile(p.fs, path)
	if isNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read promise file %s: %w", path, err)
	}
	slots, ok := promisesIn(b)
	if !ok {
		return 0, fmt.Errorf("promise file %s is damaged: what this node promised is unknown; remove the node from the cluster and add it anew", path)
	}
	return max(slots[0], slots[1], slots[2]), nil
}

// load reads the file and makes sure that what it says is on disk. It may be in the page cache only: of a process that was killed before
// its sync, or after a sync that failed, which marks the pages clean all the same. Written again, they are dirty, and the sync tells the
// truth about them. Without that, who is asked for this epoch would take it for promised.
func (p promiseFile) load() (ident.Epoch, error) {
	e, err := p.read()
	if err != nil || e == 0 {
		return 0, err
	}
	path := p.fs.PathJoin(p.dir, p.name)
	if err := p.again(path); err != nil {
		return 0, fmt.Errorf("write promise file %s again: %w", path, err)
	}
	return e, nil
}

// again writes the file as it is, and syncs it and its name. Each sector gets the bytes that it has, so a torn write changes nothing.
func (p promiseFile) again(path string) error {
	b, err := readFile(p.fs, path)
	if err != nil {
		return err
	}
	f, err := p.fs.OpenReadWrite(path, fileCategory)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return errors.Join(makeDir(p.fs, p.dir), syncDir(p.fs, p.dir))
}

// promisesIn decodes a file: the epoch in each sector, zero where there is none.
func promisesIn(b []byte) (slots [3]ident.Epoch, ok bool) {
	if len(b) == promiseRecord {
		slots[0], ok = promiseIn(b, 1)
		return slots, ok && slots[0] > 0
	}
	if len(b) != promiseSize {
		return slots, false
	}
	for i := range slots {
		if slots[i], ok = promiseIn(b[i*promiseSector:(i+1)*promiseSector], promiseVersion); !ok {
			return slots, false
		}
	}
	return slots, slots[0] > 0 && (slots[1] > 0 || slots[2] == 0) // the second is never empty once the third was written
}

// promiseIn decodes a sector; zero where nothing was written.
func promiseIn(b []byte, version uint16) (ident.Epoch, bool) {
	le := binary.LittleEndian
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return 0, true
	}
	valid := string(b[:4]) == promiseMagic && le.Uint32(b[28:]) == crc32.Checksum(b[:28], castagnoli) && le.Uint16(b[4:]) == version
	return ident.Epoch(le.Uint64(b[8:])), valid
}

// write puts e into the file; on return it is on disk, and so is the file's name.
func (p promiseFile) write(e ident.Epoch) error {
	record := make([]byte, promiseSector)
	le := binary.LittleEndian
	copy(record, promiseMagic)
	le.PutUint16(record[4:], promiseVersion)
	le.PutUint64(record[8:], uint64(e))
	le.PutUint32(record[28:], crc32.Checksum(record[:28], castagnoli))
	b, err := readFile(p.fs, p.fs.PathJoin(p.dir, p.name))
	switch slots, ok := promisesIn(b); {
	case err != nil && !isNotExist(err):
	case err == nil && !ok:
		err = errors.New("it is damaged")
	case err == nil && len(b) == promiseSize:
		err = p.overwrite(record, slots)
	default:
		err = replaceFile(p.fs, p.dir, p.name, append(record, make([]byte, promiseSize-promiseSector)...))
	}
	if err != nil {
		return fmt.Errorf("write promise file: %w", err)
	}
	return nil
}

// overwrite puts the record into the lower one of the second and the third sector.
func (p promiseFile) overwrite(record []byte, slots [3]ident.Epoch) error {
	f, err := p.fs.OpenReadWrite(p.fs.PathJoin(p.dir, p.name), fileCategory)
	if err != nil {
		return err
	}
	at := int64(promiseSector)
	if slots[2] < slots[1] {
		at = 2 * promiseSector
	}
	if _, err = f.WriteAt(record, at); err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// promise makes e durable as promised and calls then while nobody is inside the gate. It does nothing but call then when e
// was promised already, and returns a *FencedError when a higher epoch was.
func (r *Replica) promise(ctx context.Context, e ident.Epoch, then func() error) error {
	return r.gate.exclusive(ctx, func() error {
		have := r.gate.epoch()
		due := core.Promise(have, e)
		if due.Fenced {
			return &FencedError{Have: have, Want: e}
		}
		if due.Write {
			if err := r.promised.write(e); err != nil {
				return &FatalError{Part: "the promise file", Err: err}
			}
		}
		if due.Raise {
			r.gate.promised.Store(uint64(e))
			if err := r.o.Host.Failpoint("replica.promise:" + string(r.o.Group)); err != nil { // on disk, told to nobody
				return err
			}
			r.o.Host.Trace("promise", "node", r.o.Node, "group", r.o.Group, "epoch", e)
			r.event(Event{Kind: EventPromised, Epoch: e})
		}
		if then == nil {
			return nil
		}
		return then()
	})
}

// Promise makes e durable on this node's disk. From its return on every older epoch is refused in every session and frame.
// The report says what this node holds at that moment; Node, Incarnation and Epoch are left to the caller. It is called
// when, by the node's own count, no lease of an older epoch can be valid any more.
func (r *Replica) Promise(ctx context.Context, e ident.Epoch) (fsm.Report, error) {
	var report fsm.Report
	err := r.promise(ctx, e, func() error {
		report = r.report()
		return nil
	})
	if err != nil {
		return fsm.Report{}, fmt.Errorf("promise epoch %s of group %s: %w", e, r.o.Group, err)
	}
	report.Epoch = e
	return report, nil
}

// report says what this node holds. Nobody may be inside the gate.
func (r *Replica) report() fsm.Report {
	table := r.table()
	applied := r.data.Position()
	grove := core.NewGrove(table, applied, r.shelf.runs(false)...)
	received := grove.Best()
	report := fsm.Report{Received: received, Committed: r.known.committed(table), Applied: applied, Torn: r.shelf.torn()}
	if why := r.picture.needsPriming.Load(); why != nil {
		report.Unable = *why
	} else if !grove.Returns() { // found before the undo is tried
		report.Unable = fmt.Sprintf("its store is at %s, outside the history, and what has to be undone is not held any more: it needs priming", applied)
	}
	return report
}
