package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// The promise file holds the highest epoch this node promised for the group. Part of the format, 32 bytes, little endian:
//
//	0  magic "USPR"    4  version u16, now 1    6  reserved, zero    8  promised epoch u64
//	16 reserved, zero  28 CRC32C of the bytes before
const (
	promiseSize    = 32
	promiseMagic   = "USPR"
	promiseVersion = 1
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
	le := binary.LittleEndian
	if len(b) != promiseSize || string(b[:4]) != promiseMagic || le.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) || le.Uint16(b[4:]) != promiseVersion {
		return 0, fmt.Errorf("promise file %s is damaged: what this node promised is unknown; remove the node from the cluster and add it anew", path)
	}
	return ident.Epoch(le.Uint64(b[8:])), nil
}

// write replaces the file; on return it is on disk, its name too.
func (p promiseFile) write(e ident.Epoch) error {
	var b [promiseSize]byte
	le := binary.LittleEndian
	copy(b[:], promiseMagic)
	le.PutUint16(b[4:], promiseVersion)
	le.PutUint64(b[8:], uint64(e))
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	if err := replaceFile(p.fs, p.dir, p.name, b[:]); err != nil {
		return fmt.Errorf("write promise file: %w", err)
	}
	return nil
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
	}
	return report
}
