package journal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// disk is where a journal lives.
type disk struct {
	fs      vfs.FS
	dir     string
	id      ident.JournalID
	cluster ident.ClusterID
}

func (d disk) path(name string) string { return d.fs.PathJoin(d.dir, name) }

// recovered is what Open finds.
type recovered struct {
	record    record
	receivers []*receiver // oldest first; the last one was read whole
	cut       int64       // bytes of torn tail that were removed
	spares    []string    // files that may be spare receivers
}

// recover reads the journal's directory and finishes what a crash interrupted: it removes left-over temporary files, finishes a
// removal of entries, and cuts a torn tail. On return everything it found is on disk.
func (d disk) recover() (recovered, error) {
	var r recovered
	names, err := d.fs.List(d.dir)
	if isNotExist(err) {
		return recovered{record: record{state: Inactive}}, nil
	}
	if err != nil {
		return r, fmt.Errorf("list journal directory: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, spareSuffix) {
			r.spares = append(r.spares, name)
		}
	}
	if r.record, err = readRecord(d.fs, d.dir); err != nil {
		return r, err
	}
	if r.receivers, err = d.headers(names); err != nil {
		return r, err
	}
	if r.record.count == 0 && len(r.receivers) > 0 {
		return r, fmt.Errorf("%w: it is missing", errStateFile)
	}
	if r.record.rewinding {
		if r.receivers, err = d.finishRewind(r.receivers, r.record.rewind); err != nil {
			return r, err
		}
		r.record.rewinding, r.record.stale = false, true
	}
	if r.record.stale {
		if err := d.save(&r.record); err != nil {
			return r, err
		}
	}
	if err := d.read(&r); err != nil {
		return r, err
	}
	return r, syncDir(d.fs, d.dir)
}

// save writes the state file and closes it.
func (d disk) save(r *record) error {
	file, err := d.saveRecord(r)
	if err != nil {
		return err
	}
	return file.Close()
}

// headers reads the headers of all receivers and checks that they form a chain.
func (d disk) headers(names []string) ([]*receiver, error) {
	var numbers []ident.ReceiverNumber
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			if err := d.fs.Remove(d.path(name)); err != nil {
				return nil, fmt.Errorf("remove left-over file: %w", err)
			}
			continue
		}
		if stem, ok := strings.CutSuffix(name, ".rcv"); ok {
			n, err := strconv.ParseUint(stem, 10, 32)
			if err != nil || fileName(ident.ReceiverNumber(n)) != name {
				return nil, fmt.Errorf("file %s in the journal directory is not a receiver; move it away", d.path(name))
			}
			numbers = append(numbers, ident.ReceiverNumber(n))
		}
	}
	slices.Sort(numbers)
	var receivers []*receiver
	for i, n := range numbers {
		if i > 0 && n != numbers[i-1]+1 {
			return nil, &CorruptionError{Receiver: numbers[i-1] + 1, Err: fmt.Errorf("%w: the receiver is missing", errGone)}
		}
		r, err := d.header(n)
		if err != nil {
			return nil, err
		}
		if i > 0 && r.header.First <= receivers[i-1].header.First {
			return nil, &CorruptionError{Receiver: n, Err: fmt.Errorf("%w: first sequence %s", errStructure, r.header.First)}
		}
		receivers = append(receivers, r)
	}
	return receivers, nil
}

// header reads one receiver's header.
func (d disk) header(n ident.ReceiverNumber) (*receiver, error) {
	file, err := d.fs.Open(d.path(fileName(n)))
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at receiver: %w", err)
	}
	raw := make([]byte, HeaderSize)
	got, err := file.ReadAt(raw, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read receiver header: %w", err)
	}
	h, err := DecodeReceiverHeader(raw[:got])
	if err != nil {
		return nil, &CorruptionError{Receiver: n, Err: err}
	}
	if err := d.owns(h); err != nil {
		return nil, fmt.Errorf("receiver %s: %w", n, err)
	}
	if h.Number != n {
		return nil, &CorruptionError{Receiver: n, Err: fmt.Errorf("%w: the header is receiver %s's", errStructure, h.Number)}
	}
	r := newReceiver(h, raw)
	r.size, r.allotted = info.Size(), info.Size()
	return r, nil
}

// owns refuses the header of another journal or cluster.
func (d disk) owns(h ReceiverHeader) error {
	if h.ID != d.id || h.Cluster != d.cluster {
		return fmt.Errorf("receiver belongs to journal %s of cluster %s, not to %s of cluster %s", h.ID, h.Cluster, d.id, d.cluster)
	}
	return nil
}

// read finds out what stands in the receivers. Only the last one, and those in which a run begins, are read.
func (d disk) read(found *recovered) error {
	for i, r := range found.receivers {
		if i == len(found.receivers)-1 {
			return d.readLast(r, found)
		}
		next := found.receivers[i+1].header
		if r.sameRun(next) {
			r.assume(next)
			continue
		}
		if err := d.readDetached(r, next); err != nil {
			return err
		}
	}
	if found.record.mark > 0 {
		return fmt.Errorf("%w up to sequence %s: no receiver is left", errGone, found.record.mark)
	}
	return nil
}

// readDetached reads a receiver whose successor exists. It is whole and durable, since a new receiver is made only then.
func (d disk) readDetached(r *receiver, next ReceiverHeader) error {
	file, err := d.fs.Open(d.path(fileName(r.header.Number)))
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	defer file.Close()
	if err := r.replay(file, next.First-1); err != nil {
		return r.at(err)
	}
	if !r.endsAt(next) {
		return &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: fmt.Errorf("%w: the next receiver does not continue it", errChain)}
	}
	r.written = r.end
	return nil
}

// endsAt tells whether next continues r to the letter.
func (r *receiver) endsAt(next ReceiverHeader) bool {
	return r.closed && next.Number == r.header.Number+1 && r.fits(next)
}

// fits tells whether the start that h describes is where r ends.
func (r *receiver) fits(h ReceiverHeader) bool {
	return r.tail == tail{last: h.First - 1, after: h.Start, chain: h.Chain, run: h.Run}
}

// at makes err the error of a place in r, unless it is one of reading.
func (r *receiver) at(err error) error {
	if err == io.EOF {
		err = errGone
	}
	var inside *entry.CorruptionError
	if errors.As(err, &inside) || errors.Is(err, errChain) || errors.Is(err, errStructure) || errors.Is(err, errGone) {
		return &CorruptionError{Receiver: r.header.Number, Offset: r.end, Err: err}
	}
	return fmt.Errorf("receiver %s: %w", r.header.Number, err)
}

// readLast reads the last receiver and decides about what stands behind its last bundle.
func (d disk) readLast(r *receiver, found *recovered) (err error) {
	file, err := d.fs.OpenReadWrite(d.path(fileName(r.header.Number)), category)
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	why := r.replay(file, math.MaxInt64)
	var broken *entry.CorruptionError
	if why != io.EOF && !errors.As(why, &broken) {
		return r.at(why) // cannot be read, or whole bundles that do not belong here: nothing tears like that
	}
	if !solid(file, r.size) {
		r.allotted = r.end
	}
	zero, end, err := rest(file, r.end, r.size)
	if err != nil {
		return err
	}
	want := r.last + 1
	if found.record.mark >= want { // what the mark covers was synced and cannot have been torn
		if zero {
			why = fmt.Errorf("%w up to sequence %s", errGone, found.record.mark)
		}
		return r.at(why)
	}
	if !zero {
		if err := d.torn(r, file, why, found.record); err != nil {
			return err
		}
		found.record.torn = true
		if err := d.save(&found.record); err != nil { // first, or a crash would make us forget
			return err
		}
		if err := writeZeros(file, r.end, end); err != nil {
			return err
		}
		found.cut = end - r.end
	}
	// What the mark does not cover may be in the page cache only: of a process that was killed, or after a sync that failed,
	// which marks the pages clean all the same. Written again, they are dirty, and this sync tells the truth about them.
	if found.record.mark < r.last {
		if err := rewrite(file, r.end); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync receiver: %w", err)
	}
	r.written = r.end
	return nil
}

// rewrite writes the first end bytes of the file in place, as they are. Not all of them are synced.
func rewrite(file vfs.File, end int64) error {
	out := paced{file: file}
	buffer := make([]byte, chunk)
	for at := int64(0); at < end; at += chunk {
		b := buffer[:min(chunk, end-at)]
		if _, err := file.ReadAt(b, at); err != nil && err != io.EOF {
			return fmt.Errorf("read receiver: %w", err)
		}
		if _, err := out.WriteAt(b, at); err != nil {
			return fmt.Errorf("write receiver again: %w", err)
		}
	}
	return nil
}

// torn returns nil when the bytes at r.end are the remains of a write that was never synced. One sync covers at most one batch,
// so such a write ends within a batch, and no bundle in it can have been sealed after it was durable. Everything else is
// corruption.
func (d disk) torn(r *receiver, file vfs.File, why error, rec record) error {
	from, g := r.end+alignment, gap{at: r.end, want: r.last + 1, after: r.after, packed: r.packed}
	header := make([]byte, entry.HeaderSize)
	if n, _ := file.ReadAt(header, r.end); n == len(header) {
		if h, err := entry.DecodeHeader(header); err == nil { // its body was torn, which may hold anything
			from = r.end + int64(h.Length)
			if h.First == r.last+1 {
				g = gap{at: from, want: h.Last(), after: h.After()}
			}
		}
	}
	behind, err := search(file, g, from, r.size)
	if err != nil {
		return err
	}
	sealedHere := rec.authored && !rec.received
	if behind.end-r.end > maxBatch || sealedHere && behind.durable > r.last {
		if why == io.EOF {
			why = errGone
		}
		return r.at(fmt.Errorf("%w, and valid bundles follow", why))
	}
	return nil
}
