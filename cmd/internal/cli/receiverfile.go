package cli

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// receiverFile is a receiver on disk, read without a node. A running node may be writing it: then the end is where the
// written part ended when it was read.
type receiverFile struct {
	path   string
	header journal.ReceiverHeader
	file   *os.File
}

// placed is a bundle and where it stands.
type placed struct {
	entry.Bundle
	offset int64
}

// receiverFiles lists the receivers that path names: itself, or those of the directory of a journal, oldest first.
func receiverFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	all, err := filepath.Glob(filepath.Join(path, "*.rcv"))
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s holds no receiver (*.rcv)", path)
	}
	slices.Sort(all) // numbers have leading zeros
	return all, err
}

func openReceiver(path string) (_ *receiverFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // only read from
		}
	}()
	head := make([]byte, journal.HeaderSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, fmt.Errorf("%s: read receiver header: %w", path, err)
	}
	h, err := journal.DecodeReceiverHeader(head)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &receiverFile{path: path, header: h, file: f}, nil
}

func (r *receiverFile) close() { _ = r.file.Close() } // only read from

// bundles yields the bundles in order and checks checksums, sequence and chain. The first error, a
// *journal.CorruptionError, ends the iteration.
func (r *receiverFile) bundles() iter.Seq2[placed, error] {
	return func(yield func(placed, error) bool) {
		offset := int64(journal.HeaderSize)
		next, chain := r.header.First, r.header.Chain
		fail := func(err error) {
			yield(placed{}, &journal.CorruptionError{Receiver: r.header.Number, Offset: offset, Err: err})
		}
		head := make([]byte, entry.HeaderSize)
		for {
			n, err := r.file.ReadAt(head, offset)
			if err != nil && !errors.Is(err, io.EOF) {
				fail(err)
				return
			}
			if allZeros(head[:n]) {
				if err := r.onlyZeros(offset); err != nil {
					fail(err)
				}
				return
			}
			h, err := entry.DecodeHeader(head[:n])
			if err != nil {
				fail(err)
				return
			}
			raw := make([]byte, h.Length) // at most entry.MaxBundle
			if _, err := r.file.ReadAt(raw, offset); err != nil {
				fail(err)
				return
			}
			b, err := entry.Decode(raw)
			switch {
			case err != nil:
			case b.First != next:
				err = fmt.Errorf("entry %s follows, %s was expected", b.First, next)
			case b.Chain != chain:
				err = fmt.Errorf("chain is %s, %s was expected", b.Chain, chain)
			}
			if err != nil {
				fail(err)
				return
			}
			if !yield(placed{b, offset}, nil) {
				return
			}
			next, chain, offset = b.Last()+1, entry.NextChain(chain, raw), offset+int64(h.Length)
		}
	}
}

// onlyZeros checks that nothing stands behind the last bundle.
func (r *receiverFile) onlyZeros(offset int64) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.file.ReadAt(buf, offset)
		if !allZeros(buf[:n]) {
			return errors.New("bytes behind the last bundle")
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func allZeros(b []byte) bool { return len(strings.TrimLeft(string(b), "\x00")) == 0 }

// confirmedUpTo returns the highest entry that a bundle of the receiver says was durable at the source.
func (r *receiverFile) confirmedUpTo() ident.Sequence {
	var high ident.Sequence
	for b, err := range r.bundles() {
		if err != nil {
			break
		}
		high = max(high, b.Durable)
	}
	return high
}

// shownEntry is an entry as the API shows it.
func shownEntry(group ident.GroupName, e entry.Entry, confirmed ident.Sequence) client.Entry {
	at := func(p ident.Position) string {
		if p.IsZero() {
			return ""
		}
		return p.Format(group)
	}
	image := func(i *entry.Image) *client.Image {
		if i == nil {
			return nil
		}
		return &client.Image{Position: at(i.Position), Time: unixTime(i.Time), Expiry: unixTime(i.Expiry), Kind: uint8(i.Kind), Value: i.Value}
	}
	return client.Entry{
		Sequence: uint64(e.Sequence), Position: at(e.Position), Code: e.Code.String(), Type: e.Type.String(),
		Time: unixTime(e.Time), Transaction: uint64(e.Transaction), File: e.File, Key: client.MakeKey(e.Key),
		Before: image(e.Before), BeforeOmitted: e.BeforeOmitted, After: image(e.After), Data: e.Data,
		Confirmed: e.Sequence <= confirmed,
	}
}

func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
