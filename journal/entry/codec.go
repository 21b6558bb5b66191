package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Errors of Seal. Nothing was sealed.
var (
	ErrTooLarge = errors.New("exceeds a limit of the journal format")
	ErrInvalid  = errors.New("not a valid journal entry")
)

// Sizes and bits of an encoded entry, part of the format.
const (
	entrySize  = 24 // fixed part
	beforeSize = 36 // fixed part of a before-image
	afterSize  = 12 // fixed part of an after-image
	dataSize   = 4
	kindSize   = 1 // of an image's kind, which is left out when it is KindBytes

	partBefore  = 1
	partOmitted = 2
	partAfter   = 4
	partData    = 8

	partBeforeKind = 16 // the before-image has a kind other than KindBytes
	partAfterKind  = 32 // the after-image has one
)

func (e *Entry) size() int {
	n := entrySize + len(e.File) + len(e.Key)
	if e.Before != nil {
		n += beforeSize + kindRoom(e.Before) + len(e.Before.Value)
	}
	if e.After != nil {
		n += afterSize + kindRoom(e.After) + len(e.After.Value)
	}
	if len(e.Data) > 0 {
		n += dataSize + len(e.Data)
	}
	return n
}

// kindRoom is what the kind of an image takes.
func kindRoom(i *Image) int {
	if i.Kind == KindBytes {
		return 0
	}
	return kindSize
}

func (e *Entry) parts() byte {
	var p byte
	if e.Before != nil {
		p |= partBefore
		if e.Before.Kind != KindBytes {
			p |= partBeforeKind
		}
	}
	if e.BeforeOmitted {
		p |= partOmitted
	}
	if e.After != nil {
		p |= partAfter
		if e.After.Kind != KindBytes {
			p |= partAfterKind
		}
	}
	if len(e.Data) > 0 {
		p |= partData
	}
	return p
}

// check refuses before sealing what decoding would refuse.
func (e *Entry) check() error {
	switch {
	case len(e.File) > MaxFile:
		return fmt.Errorf("file name of %d bytes: %w (%d)", len(e.File), ErrTooLarge, MaxFile)
	case len(e.Key) > MaxKey:
		return fmt.Errorf("key of %d bytes: %w (%d)", len(e.Key), ErrTooLarge, MaxKey)
	case e.Before != nil && len(e.Before.Value) > MaxValue, e.After != nil && len(e.After.Value) > MaxValue, len(e.Data) > MaxValue:
		return fmt.Errorf("value: %w (%d bytes)", ErrTooLarge, MaxValue)
	case !known(e.Code, e.Type):
		return fmt.Errorf("%w: code %q type %q", ErrInvalid, byte(e.Code), e.Type[:])
	case !fits(e.Code, e.Type, e.parts()):
		return fmt.Errorf("%w: images or data that %s %s does not have", ErrInvalid, e.Code, e.Type)
	}
	return nil
}

// known tells whether c and t may stand together. Codes R and J have closed lists: what a change does and what takes a
// history position must be certain. The types of C and U are open.
func known(c Code, t Type) bool {
	switch c {
	case Record:
		return t == Put || t == Update || t == Delete
	case Journal:
		return t == Previous || t == Next || t == IPL || t == BackOut || t == Check
	case Transaction, User:
		return alphanumeric(t[0]) && alphanumeric(t[1])
	}
	return false
}

func alphanumeric(b byte) bool { return b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' }

// fits tells whether an entry of this code and type may have these parts: images belong to R, data to the others; a change
// that leaves a record has its after-image, a deletion has none; a before-image is there or left out, not both; a kind belongs to
// an image that is there.
func fits(c Code, t Type, parts byte) bool {
	if c != Record {
		return parts&^partData == 0
	}
	return parts&^(partBefore|partOmitted|partAfter|partBeforeKind|partAfterKind) == 0 && (parts&partAfter != 0) == (t != Delete) &&
		parts&(partBefore|partOmitted) != partBefore|partOmitted &&
		parts&(partBefore|partBeforeKind) != partBeforeKind && parts&(partAfter|partAfterKind) != partAfterKind
}

// append encodes e at the end of b. The time of the bundle stands in when e has none.
func (e *Entry) append(b []byte, bundleTime int64, back uint32) []byte {
	le := binary.LittleEndian
	t := e.Time
	if t == 0 {
		t = bundleTime
	}
	b = le.AppendUint32(b, uint32(e.size()))
	b = append(b, byte(e.Code), e.Type[0], e.Type[1], e.parts())
	b = le.AppendUint64(b, uint64(t))
	b = le.AppendUint32(b, back)
	b = le.AppendUint16(b, uint16(len(e.Key)))
	b = append(b, byte(len(e.File)), 0)
	b = append(b, e.File...)
	b = append(b, e.Key...)
	if i := e.Before; i != nil {
		b = le.AppendUint64(b, uint64(i.Position.Epoch))
		b = le.AppendUint64(b, uint64(i.Position.History))
		b = le.AppendUint64(b, uint64(i.Time))
		b = le.AppendUint64(b, uint64(i.Expiry))
		b = appendKind(b, i.Kind)
		b = le.AppendUint32(b, uint32(len(i.Value)))
		b = append(b, i.Value...)
	}
	if i := e.After; i != nil {
		b = le.AppendUint64(b, uint64(i.Expiry))
		b = appendKind(b, i.Kind)
		b = le.AppendUint32(b, uint32(len(i.Value)))
		b = append(b, i.Value...)
	}
	if len(e.Data) > 0 {
		b = le.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

func appendKind(b []byte, k Kind) []byte {
	if k == KindBytes {
		return b
	}
	return append(b, byte(k))
}

// fields is an entry as it stands in the bundle. Its slices point into the bundle, with no room to grow.
type fields struct {
	code   Code
	typ    Type
	parts  byte
	time   int64
	back   uint32
	file   []byte
	key    []byte
	before image
	after  image
	data   []byte
}

type image struct {
	position     ident.Position
	time, expiry int64
	kind         Kind
	value        []byte
}

// cursor walks over the entries of a bundle.
type cursor struct {
	raw    []byte
	offset int
	index  uint32 // of the next entry
	back   uint32 // of the entry before
}

// next reads one entry and checks all that can be checked about it.
func (c *cursor) next() (fields, error) {
	le := binary.LittleEndian
	rest := c.raw[c.offset:]
	if len(rest) < entrySize {
		return fields{}, corrupt(len(c.raw), io.ErrUnexpectedEOF)
	}
	length := int(le.Uint32(rest))
	if length < entrySize {
		return fields{}, corrupt(c.offset, ErrFormat)
	}
	if length > len(rest) {
		return fields{}, corrupt(len(c.raw), io.ErrUnexpectedEOF)
	}
	f := fields{
		code: Code(rest[4]), typ: Type{rest[5], rest[6]}, parts: rest[7],
		time: int64(le.Uint64(rest[8:])), back: le.Uint32(rest[16:]),
	}
	keyLength, fileLength := int(le.Uint16(rest[20:])), int(rest[22])
	switch {
	case !known(f.code, f.typ):
		return fields{}, corrupt(c.offset+4, ErrFormat)
	case !fits(f.code, f.typ, f.parts):
		return fields{}, corrupt(c.offset+7, ErrFormat)
	case f.back != 0 && (c.index == 0 || f.back != c.back+1): // a transaction is a row of neighbours
		return fields{}, corrupt(c.offset+16, ErrFormat)
	case keyLength > MaxKey || rest[23] != 0:
		return fields{}, corrupt(c.offset+20, ErrFormat)
	}
	p := pieces{b: rest[:length:length], offset: entrySize}
	f.file = p.take(fileLength)
	f.key = p.take(keyLength)
	if f.parts&partBefore != 0 {
		f.before.position.Epoch = ident.Epoch(p.uint64())
		f.before.position.History = ident.History(p.uint64())
		f.before.time = int64(p.uint64())
		f.before.expiry = int64(p.uint64())
		f.before.kind = p.kind(f.parts&partBeforeKind != 0)
		f.before.value = p.value()
	}
	if f.parts&partAfter != 0 {
		f.after.expiry = int64(p.uint64())
		f.after.kind = p.kind(f.parts&partAfterKind != 0)
		f.after.value = p.value()
	}
	if f.parts&partData != 0 {
		if f.data = p.value(); len(f.data) == 0 {
			p.bad = true // empty data has one encoding only: none
		}
	}
	if p.bad || p.offset != length {
		return fields{}, corrupt(c.offset, fmt.Errorf("%w: entry does not fill its length", ErrFormat))
	}
	if keyLength == 0 {
		f.key = nil
	}
	c.offset += length
	c.index++
	c.back = f.back
	return f, nil
}

// pieces takes an entry apart; after the first take beyond its end it is bad and yields zeros.
type pieces struct {
	b      []byte
	offset int
	bad    bool
}

func (p *pieces) take(n int) []byte {
	if p.bad || n > len(p.b)-p.offset {
		p.bad = true
		return nil
	}
	s := p.b[p.offset : p.offset+n : p.offset+n]
	p.offset += n
	return s
}

func (p *pieces) uint64() uint64 {
	if s := p.take(8); s != nil {
		return binary.LittleEndian.Uint64(s)
	}
	return 0
}

// kind takes the kind of an image that has one. KindBytes has one encoding only: none.
func (p *pieces) kind(there bool) Kind {
	if !there {
		return KindBytes
	}
	s := p.take(kindSize)
	if s == nil || s[0] == byte(KindBytes) {
		p.bad = true
		return KindBytes
	}
	return Kind(s[0])
}

func (p *pieces) value() []byte {
	s := p.take(4)
	if s == nil {
		return nil
	}
	n := binary.LittleEndian.Uint32(s)
	if n > MaxValue {
		p.bad = true
		return nil
	}
	return p.take(int(n))
}
