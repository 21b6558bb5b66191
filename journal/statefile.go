package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Constants of the state file, part of the format.
const (
	stateName     = "state"
	stateMagic    = "USSTATE\n"
	stateVersion  = 1
	stateSector   = 512 // assumed to be written as a whole or not at all
	stateSize     = 3 * stateSector
	stateCRCAt    = stateSector - 4
	flagAuthored  = 1
	flagReceived  = 2
	flagTorn      = 4
	flagRewinding = 8
)

var (
	errStateFile    = errors.New("the file \"state\" of the journal is damaged; remove the journal's directory, it will be fetched from another node")
	errStateVersion = errors.New("unknown version of the journal's state file")
	stateNumbers    = [...]State{1: Active, 2: Inactive, 3: Standby}
)

// record is what a journal keeps beside its receivers. It is written in place, alternately into the second and the third sector, so
// that it never needs space. The first sector is written after them and does not count where they say more.
type record struct {
	state     State
	authored  bool           // bundles were deposited here: the journal is local
	received  bool           // bundles came from another node, so the marks in them are not about this disk
	torn      bool           // a torn tail was cut and the journal was not compared since
	rewinding bool           // entries after rewind are being removed
	rewind    ident.Sequence //
	mark      ident.Sequence // durable on this disk, at least; ahead of a sync it is never
	count     uint64         // of slots written; the higher one is valid
	stale     bool           // the first sector is older than the slot: a crash came between
}

// number returns the state as it stands in the file; 0: none.
func (r record) number() byte {
	for i, s := range stateNumbers {
		if i > 0 && s == r.state {
			return byte(i)
		}
	}
	return 0
}

func (r record) flags() (b byte) {
	for bit, set := range map[byte]bool{flagAuthored: r.authored, flagReceived: r.received, flagTorn: r.torn, flagRewinding: r.rewinding} {
		if set {
			b |= bit
		}
	}
	return b
}

// take sets what stands both in the first sector and in a slot. It is false when that cannot be.
func (r *record) take(state, flags byte, rewind uint64) bool {
	if state == 0 || int(state) >= len(stateNumbers) || flags > flagAuthored|flagReceived|flagTorn|flagRewinding {
		return false
	}
	r.state, r.rewind = stateNumbers[state], ident.Sequence(rewind)
	r.authored, r.received, r.torn, r.rewinding = flags&flagAuthored != 0, flags&flagReceived != 0, flags&flagTorn != 0, flags&flagRewinding != 0
	return true
}

func (r record) encode() []byte {
	b := make([]byte, stateSize)
	le := binary.LittleEndian
	copy(b, stateMagic)
	le.PutUint32(b[8:], stateVersion)
	b[12], b[13] = r.number(), r.flags()
	le.PutUint64(b[16:], uint64(r.rewind))
	le.PutUint32(b[stateCRCAt:], crc32.Checksum(b[:stateCRCAt], castagnoli))
	slot, at := r.slot()
	copy(b[at:], slot)
	return b
}

// slot returns the record as it stands in one of the two sectors that are written in turns, and where that is.
func (r record) slot() ([]byte, int64) {
	b := make([]byte, slotSize)
	le := binary.LittleEndian
	le.PutUint64(b, r.count)
	le.PutUint64(b[8:], uint64(r.mark))
	le.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	b[20], b[21] = r.number(), r.flags()
	le.PutUint64(b[24:], uint64(r.rewind))
	le.PutUint32(b[slotCRCAt:], crc32.Checksum(b[:slotCRCAt], castagnoli))
	return b, stateSector * int64(1+r.count%2)
}

// A slot takes slotSize of its sector. Earlier releases wrote the mark alone: zeros stand behind it.
const (
	slotSize  = 36
	slotCRCAt = 32
)

// readSlot returns what stands in the slot at the start of s, and whether that is a whole one. Of a slot with the mark alone
// the rest is that of first.
func readSlot(s []byte, first record) (record, bool) {
	le, r := binary.LittleEndian, first
	r.count, r.mark, r.stale = le.Uint64(s), ident.Sequence(le.Uint64(s[8:])), false
	switch {
	case r.count == 0 || crc32.Checksum(s[:16], castagnoli) != le.Uint32(s[16:]):
		return record{}, false
	case s[20] == 0 && s[21] == 0:
		return r, true
	case crc32.Checksum(s[:slotCRCAt], castagnoli) != le.Uint32(s[slotCRCAt:]) || !r.take(s[20], s[21], le.Uint64(s[24:])):
		return record{}, false
	}
	return r, true
}

// decodeFirst reads the first sector, which has everything but the mark.
func decodeFirst(b []byte) (record, error) {
	le := binary.LittleEndian
	if len(b) != stateSize || string(b[:8]) != stateMagic || crc32.Checksum(b[:stateCRCAt], castagnoli) != le.Uint32(b[stateCRCAt:]) {
		return record{}, errStateFile
	}
	if v := le.Uint32(b[8:]); v != stateVersion {
		return record{}, fmt.Errorf("%w: version %d; a newer Understudy wrote it", errStateVersion, v)
	}
	var r record
	if !r.take(b[12], b[13], le.Uint64(b[16:])) {
		return record{}, errStateFile
	}
	return r, nil
}

func decodeRecord(b []byte) (record, error) {
	first, err := decodeFirst(b)
	if err != nil {
		return record{}, err
	}
	r := first
	for _, s := range [][]byte{b[stateSector:], b[2*stateSector:]} {
		if have, ok := readSlot(s, first); ok && have.count > r.count {
			r = have
		}
	}
	if r.count == 0 {
		return record{}, fmt.Errorf("%w: no durable mark", errStateFile)
	}
	r.stale = r.number() != first.number() || r.flags() != first.flags() || r.rewind != first.rewind
	return r, nil
}

// readRecord reads the state file. Without one count is 0.
func readRecord(fs vfs.FS, dir string) (record, error) {
	file, err := fs.Open(fs.PathJoin(dir, stateName))
	if isNotExist(err) {
		return record{state: Inactive}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("open state file: %w", err)
	}
	b := make([]byte, stateSize+1)
	n, err := file.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return record{}, fmt.Errorf("read state file: %w", err)
	}
	return decodeRecord(b[:n])
}

// saveRecord writes the record into the state file, which is returned open and synced; a crash leaves the old record or the new
// one. A file that is there is written in place, so that it needs no space, as often as may be. Else it is made; then a *noRoomError
// says that there is no space and that nothing has changed.
func (d disk) saveRecord(r *record) (vfs.File, error) {
	r.stale = false
	info, err := d.fs.Stat(d.path(stateName))
	switch {
	case isNotExist(err), err == nil && info.Size() != stateSize:
		r.count++
		return d.makeState(r.encode())
	case err != nil:
		return nil, fmt.Errorf("save journal state: %w", err)
	}
	file, err := d.fs.OpenReadWrite(d.path(stateName), category)
	if err != nil {
		return nil, fmt.Errorf("save journal state: %w", err)
	}
	if err := r.overwrite(file); err != nil {
		return nil, errors.Join(fmt.Errorf("save journal state: write %s: %w", d.path(stateName), err), file.Close())
	}
	return file, nil
}

// overwrite writes the record in place: into the slot that does not count at present, and once that is on disk everywhere else, so
// that rot in one sector does not bring an older record back.
func (r *record) overwrite(file vfs.File) error {
	r.count++
	sector := make([]byte, stateSector)
	slot, at := r.slot()
	copy(sector, slot)
	if _, err := file.WriteAt(sector, at); err != nil {
		return err
	}
	if err := file.SyncData(); err != nil {
		return err
	}
	r.count++
	b := r.encode()
	copy(b[at:], sector)
	if _, err := file.WriteAt(b, 0); err != nil {
		return err
	}
	return file.SyncData()
}

// makeState makes the state file, atomically: after a crash it is there with the bytes b, or as it was.
func (d disk) makeState(b []byte) (vfs.File, error) {
	path, temp := d.path(stateName), d.path(stateName+tempSuffix)
	file, err := d.fs.OpenReadWrite(temp, category)
	if err != nil {
		return nil, noRoom(fmt.Errorf("save journal state: create %s: %w", temp, err))
	}
	if _, err = file.WriteAt(b, 0); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, noRoom(errors.Join(fmt.Errorf("save journal state: write %s: %w", temp, err), file.Close()))
	}
	if err = d.fs.Rename(temp, path); err != nil {
		err = fmt.Errorf("save journal state: rename %s: %w", temp, err)
	} else {
		err = syncDir(d.fs, d.dir)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// noRoomError says that the disk was full before anything was changed.
type noRoomError struct{ err error }

func (e *noRoomError) Error() string { return e.err.Error() }
func (e *noRoomError) Unwrap() error { return e.err }

func noRoom(err error) error {
	if noSpace(err) {
		return &noRoomError{err}
	}
	return err
}
