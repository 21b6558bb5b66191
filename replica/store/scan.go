package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Limits of one page of a scan.
const (
	MaxPageRecords = 10_000
	MaxPageBytes   = 16 << 20 // keys and values; a page holds at least one record, whatever its size
)

// Record is a record with its key.
type Record struct {
	Key   []byte
	Image entry.Image
}

// Page is part of a file in key order, all of it at one position.
type Page struct {
	Position ident.Position
	Records  []Record
	Next     []byte // where the next page begins; nil when this is the last one
}

// Digest tells whether two copies of a group are equal: equal Position and Sum mean equal files, keys, values and
// attributes.
type Digest struct {
	Position ident.Position
	Files    int
	Records  uint64
	Bytes    uint64 // of keys and values
	Sum      string // SHA-256, hexadecimal; see docs/formats/store.md
}

// Scan returns the records of file whose keys begin with prefix, from the key from on (inclusive), in order: at most limit
// of them, where 0 and anything above mean MaxPageRecords.
func (g *Group) Scan(file string, prefix, from []byte, limit int) (Page, error) {
	leave, err := g.store.enter()
	if err != nil {
		return Page{}, err
	}
	defer leave()
	if limit <= 0 || limit > MaxPageRecords {
		limit = MaxPageRecords
	}
	v, err := g.open(g.store.db)
	if err != nil {
		return Page{}, err
	}
	page, err := g.page(v, file, prefix, from, limit)
	return page, g.store.readError(errors.Join(err, v.close()))
}

func (g *Group) page(v *view, file string, prefix, from []byte, limit int) (Page, error) {
	page := Page{Position: v.position}
	base := g.appendFile(nil, file)
	lower := append(bytes.Clone(base), prefix...)
	v.iter.SetBounds(lower, after(lower))
	start := append(bytes.Clone(base), from...)
	if bytes.Compare(start, lower) < 0 {
		start = lower
	}
	size := 0
	for ok := v.iter.SeekGE(start); ok; ok = v.iter.Next() {
		key := v.iter.Key()[len(base):]
		if len(page.Records) == limit || size >= MaxPageBytes {
			page.Next = bytes.Clone(key)
			break
		}
		value, err := v.iter.ValueAndErr()
		if err != nil {
			return Page{}, err
		}
		r, err := decodeRecord(value)
		if err != nil {
			return Page{}, &CorruptionError{Key: bytes.Clone(v.iter.Key()), Err: err}
		}
		page.Records = append(page.Records, Record{Key: append([]byte{}, key...), Image: r})
		size += len(key) + len(r.Value)
	}
	return page, nil
}

// Files returns the names of the files that have records, in order.
func (g *Group) Files() ([]string, error) {
	leave, err := g.store.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	v, err := g.open(g.store.db)
	if err != nil {
		return nil, err
	}
	var files []string
	v.iter.SetBounds(g.prefix, after(g.prefix))
	for ok := v.iter.First(); ok && err == nil; {
		var name string
		if name, _, err = g.cutKey(v.iter.Key()); err == nil {
			files = append(files, name)
			ok = v.iter.SeekGE(after(g.appendFile(nil, name))) // over all its records
		}
	}
	return files, g.store.readError(errors.Join(err, v.close()))
}

// Count counts the records of the files that counts names, until ctx ends.
func (g *Group) Count(ctx context.Context, counts func(file string) bool) (n int64, err error) {
	leave, err := g.store.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	v, err := g.open(g.store.db)
	if err != nil {
		return 0, err
	}
	v.iter.SetBounds(g.prefix, after(g.prefix))
	for ok := v.iter.First(); ok && err == nil; {
		var name string
		if name, _, err = g.cutKey(v.iter.Key()); err != nil {
			break
		}
		prefix := g.appendFile(nil, name)
		if !counts(name) {
			ok = v.iter.SeekGE(after(prefix))
			continue
		}
		for ; ok && err == nil && bytes.HasPrefix(v.iter.Key(), prefix); ok = v.iter.Next() {
			if n++; n%4096 == 0 {
				err = ctx.Err()
			}
		}
	}
	return n, g.store.readError(errors.Join(err, v.close()))
}

// Digest reads all records of the group at one position. It does not hold up writers.
func (g *Group) Digest(ctx context.Context) (Digest, error) {
	leave, err := g.store.enter()
	if err != nil {
		return Digest{}, err
	}
	defer leave()
	// A snapshot, not an iterator alone: a long-lived iterator would keep memtables and deleted files.
	if !g.landing.look(g.store.health.failed) {
		return Digest{}, g.store.health.error()
	}
	snapshot := g.store.db.NewSnapshot()
	g.landing.leave()
	v, err := g.open(snapshot)
	if err != nil {
		return Digest{}, errors.Join(err, snapshot.Close())
	}
	d, err := g.digest(ctx, v)
	return d, g.store.readError(errors.Join(err, v.close(), snapshot.Close()))
}

func (g *Group) digest(ctx context.Context, v *view) (Digest, error) {
	d := Digest{Position: v.position}
	sum := sha256.New()
	var last string
	v.iter.SetBounds(g.prefix, after(g.prefix))
	for ok := v.iter.First(); ok; ok = v.iter.Next() {
		if d.Records%256 == 0 && ctx.Err() != nil {
			return Digest{}, context.Cause(ctx)
		}
		file, key, err := g.cutKey(v.iter.Key())
		if err != nil {
			return Digest{}, err
		}
		value, err := v.iter.ValueAndErr()
		if err != nil {
			return Digest{}, err
		}
		_, header, err := splitRecord(value)
		if err != nil {
			return Digest{}, &CorruptionError{Key: bytes.Clone(v.iter.Key()), Err: err}
		}
		if d.Records == 0 || file != last {
			d.Files++
			last = file
		}
		d.Records++
		d.Bytes += uint64(len(key) + len(value) - header)
		digestPart(sum, []byte(file))
		digestPart(sum, key)
		digestPart(sum, value)
	}
	d.Sum = hex.EncodeToString(sum.Sum(nil))
	return d, nil
}

// digestPart adds a part with its length in front, so that no two sequences of parts look alike.
func digestPart(h hash.Hash, part []byte) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
	h.Write(n[:])
	h.Write(part)
}

// cutKey splits a record key of the group; key refers to k.
func (g *Group) cutKey(k []byte) (file string, key []byte, err error) {
	file, key, err = cutName(k[len(g.prefix):])
	if err != nil {
		err = &CorruptionError{Key: bytes.Clone(k), Err: err}
	}
	return file, key, err
}

// view is one consistent view of the database: the position and an iterator that sees exactly that position's content.
type view struct {
	position ident.Position
	iter     *pebble.Iterator
}

// open makes a view. The iterator stands nowhere; bounds are set on it, which keeps its view.
func (g *Group) open(r pebble.Reader) (*view, error) {
	key := positionKey(g.name)
	iter, err := g.iterate(r, &pebble.IterOptions{LowerBound: key, UpperBound: append(bytes.Clone(key), 0)})
	if err != nil {
		return nil, g.store.readError(err)
	}
	v := &view{iter: iter}
	if iter.First() {
		_, v.position, err = decodePositionRow(iter.Key(), iter.Value())
	}
	if err = errors.Join(err, iter.Error()); err != nil {
		return nil, g.store.readError(errors.Join(err, iter.Close()))
	}
	return v, nil
}

func (v *view) close() error { return errors.Join(v.iter.Error(), v.iter.Close()) }
