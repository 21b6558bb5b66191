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
	nextState     = stateName + tempSuffix
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

// record is what a journal keeps beside its receivers. The first sector changes by atomic replacement of the file; the durable
// mark is written in place, alternately into the two other sectors.
type record struct {
	state     State
	authored  bool           // bundles were deposited here: the journal is local
	received  bool           // bundles came from another node, so the marks in them are not about this disk
	torn      bool           // a torn tail was cut and the journal was not compared since
	rewinding bool           // entries after rewind are being removed
	rewind    ident.Sequence //
	mark      ident.Sequence // durable on this disk, at least; ahead of a sync it is never
	count     uint64         // of marks written; the higher one is valid
}

func (r record) encode() []byte {
	b := make([]byte, stateSize)
	le := binary.LittleEndian
	copy(b, stateMagic)
	le.PutUint32(b[8:], stateVersion)
	for i, s := range stateNumbers {
		if s == r.state && i > 0 {
			b[12] = byte(i)
		}
	}
	for bit, set := range map[byte]bool{flagAuthored: r.authored, flagReceived: r.received, flagTorn: r.torn, flagRewinding: r.rewinding} {
		if set {
			b[13] |= bit
		}
	}
	le.PutUint64(b[16:], uint64(r.rewind))
	le.PutUint32(b[stateCRCAt:], crc32.Checksum(b[:stateCRCAt], castagnoli))
	slot, at := r.slot()
	copy(b[at:], slot)
	return b
}

// slot returns the bytes of the durable mark and where they stand.
func (r record) slot() ([]byte, int64) {
	b := make([]byte, markSize)
	le := binary.LittleEndian
	le.PutUint64(b, r.count)
	le.PutUint64(b[8:], uint64(r.mark))
	le.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	return b, stateSector * int64(1+r.count%2)
}

// markSize is what a durable mark takes of its sector.
const markSize = 24

// readMark returns the durable mark at the start of s with its counter, and whether there is one.
func readMark(s []byte) (count uint64, mark ident.Sequence, ok bool) {
	le := binary.LittleEndian
	count, mark = le.Uint64(s), ident.Sequence(le.Uint64(s[8:]))
	return count, mark, count != 0 && crc32.Checksum(s[:16], castagnoli) == le.Uint32(s[16:])
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
	if b[12] == 0 || int(b[12]) >= len(stateNumbers) || b[13] > flagAuthored|flagReceived|flagTorn|flagRewinding {
		return record{}, errStateFile
	}
	return record{
		state:     stateNumbers[b[12]],
		authored:  b[13]&flagAuthored != 0,
		received:  b[13]&flagReceived != 0,
		torn:      b[13]&flagTorn != 0,
		rewinding: b[13]&flagRewinding != 0,
		rewind:    ident.Sequence(le.Uint64(b[16:])),
	}, nil
}

func decodeRecord(b []byte) (record, error) {
	r, err := decodeFirst(b)
	if err != nil {
		return record{}, err
	}
	found := false
	for _, s := range [][]byte{b[stateSector:], b[2*stateSector:]} {
		if n, mark, ok := readMark(s); ok && (!found || n > r.count) {
			found, r.count, r.mark = true, n, mark
		}
	}
	if !found {
		return record{}, fmt.Errorf("%w: no durable mark", errStateFile)
	}
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

// replaceState makes the state file hold b, atomically: after a crash it is the old one or the new one. The file is returned
// open, synced. It is written to a file that was made before, so that it needs no space; a *noRoomError says that there
// was none and that nothing has changed.
func (d disk) replaceState(b []byte) (vfs.File, error) {
	path, temp := d.path(stateName), d.path(nextState)
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
	} else if err = syncDir(d.fs, d.dir); err == nil {
		err = d.makeNextState()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// makeNextState sets the space for the next state file aside. On a full disk it does nothing: the next one may find space.
func (d disk) makeNextState() error {
	temp := d.path(nextState)
	file, err := d.fs.OpenReadWrite(temp, category)
	if err == nil {
		if _, err = file.WriteAt(make([]byte, stateSize), 0); err == nil {
			err = file.Sync()
		}
		err = errors.Join(err, file.Close())
	}
	if err != nil && !noSpace(err) {
		return fmt.Errorf("prepare the next state file: %w", err)
	}
	return nil
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
