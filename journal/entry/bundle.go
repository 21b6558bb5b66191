package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Flags of a bundle, part of the format.
type Flags uint16

// Flags, part of the format. Bits without a name must be zero.
const (
	FlagLocal      Flags = 1 << 0 // deposited without a lease: J PR, NR and IN of a journal that is not ACTIVE
	FlagEcho       Flags = 1 << 1 // what a backup replayed, recorded in its own journal: no facts
	FlagCompressed Flags = 1 << 2 // its entries are compressed by zstd. On sealing: they may be
)

// Constants of the format.
const (
	HeaderSize = 112 // of a bundle, in bytes

	magic   = uint32('U') | uint32('S')<<8 | uint32('B')<<16 | uint32('N')<<24
	version = 1
	align   = 8
)

// Magic is how every bundle begins. Whoever searches a damaged receiver looks for it at multiples of 8.
const Magic = "USBN"

// Header is the fixed part of a bundle.
type Header struct {
	Length    uint32 // whole bundle with padding, a multiple of 8
	Flags     Flags
	Count     uint32         // entries, at least 1
	Facts     uint32         // entries that take a history position
	Session   ident.Epoch    // the epoch in which the bundle was deposited
	First     ident.Sequence // of its first entry
	Before    ident.Position // the history before it; with Facts == 0 simply where the history stands
	Fact      ident.Position // its first fact: h is Before's + 1; zero when Facts == 0. Of an echo, which has no facts of its own: where its first entry stands in the history
	Origin    ident.Sequence // re-journaled: its first sequence in the journal it came from, else 0
	Time      int64          // unix nanoseconds
	Chain     ident.Chain    // over all bundles before it
	Durable   ident.Sequence // what was durable at the source when it was sealed
	Committed ident.Sequence // what was committed at the source when it was sealed
}

// Last returns the sequence of the bundle's last entry.
func (h Header) Last() ident.Sequence { return h.First + ident.Sequence(h.Count) - 1 }

// After returns where the history stands after the bundle: Before when it has no facts.
func (h Header) After() ident.Position {
	if h.Facts == 0 {
		return h.Before
	}
	return ident.Position{Epoch: h.Fact.Epoch, History: h.Fact.History + ident.History(h.Facts) - 1}
}

// Echo tells whether a backup recorded here what it replayed. An echo adds nothing to the history: it has no facts, but its
// entries keep the positions of the facts that they repeat.
func (h Header) Echo() bool { return h.Flags&FlagEcho != 0 }

// EchoEnd returns the position of the last fact that an echo repeats.
func (h Header) EchoEnd() ident.Position {
	return ident.Position{Epoch: h.Fact.Epoch, History: h.Fact.History + ident.History(h.Count) - 1}
}

// Bundle is a sealed bundle. Raw is never modified.
type Bundle struct {
	Header
	Raw []byte
}

// CorruptionError says where in a bundle the bytes stop making sense.
type CorruptionError struct {
	Offset int // in the bundle; of an entry in a compressed one: in what that expands to
	Err    error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("bundle is corrupt at byte %d: %v", e.Offset, e.Err)
}

func (e *CorruptionError) Unwrap() error { return e.Err }

// Why a bundle is corrupt.
var (
	ErrMagic    = errors.New("no bundle begins here")
	ErrVersion  = errors.New("unknown version of the bundle format; a newer Understudy wrote it")
	ErrChecksum = errors.New("checksum does not fit")
	ErrFormat   = errors.New("field out of its range")
)

func corrupt(offset int, err error) error { return &CorruptionError{Offset: offset, Err: err} }

// crcTable: the Castagnoli polynomial has an instruction of its own on amd64 and arm64.
var crcTable = crc32.MakeTable(crc32.Castagnoli)

// NextChain returns the chain after the bundle raw, where prev is the chain before it: the 64-bit xxHash, seed 0, of the 8
// bytes of prev and all of raw. Before the first bundle of a journal the chain is 0.
func NextChain(prev ident.Chain, raw []byte) ident.Chain {
	var d xxhash.Digest
	var b [8]byte
	d.Reset()
	binary.LittleEndian.PutUint64(b[:], uint64(prev))
	d.Write(b[:]) // never fails
	d.Write(raw)
	return ident.Chain(d.Sum64())
}

// DecodeHeader reads and checks the header at the start of b. The rest of the bundle need not be there.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) >= len(Magic) && binary.LittleEndian.Uint32(b) != magic {
		return Header{}, corrupt(0, ErrMagic)
	}
	if len(b) < HeaderSize {
		return Header{}, corrupt(len(b), io.ErrUnexpectedEOF)
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:108], crcTable) != le.Uint32(b[108:]) {
		return Header{}, corrupt(108, ErrChecksum)
	}
	if b[10] != version {
		return Header{}, corrupt(10, ErrVersion)
	}
	h := Header{
		Length:    le.Uint32(b[4:]),
		Flags:     Flags(le.Uint16(b[8:])),
		Count:     le.Uint32(b[12:]),
		Facts:     le.Uint32(b[16:]),
		Session:   ident.Epoch(le.Uint64(b[24:])),
		First:     ident.Sequence(le.Uint64(b[32:])),
		Before:    ident.Position{Epoch: ident.Epoch(le.Uint64(b[40:])), History: ident.History(le.Uint64(b[48:]))},
		Origin:    ident.Sequence(le.Uint64(b[64:])),
		Time:      int64(le.Uint64(b[72:])),
		Chain:     ident.Chain(le.Uint64(b[80:])),
		Durable:   ident.Sequence(le.Uint64(b[88:])),
		Committed: ident.Sequence(le.Uint64(b[96:])),
	}
	if e := le.Uint64(b[56:]); e != 0 {
		h.Fact = ident.Position{Epoch: ident.Epoch(e), History: h.Before.History + 1}
	}
	if h.Echo() {
		h.Fact.History, h.Origin = ident.History(h.Origin), 0
	}
	if b[11] != 0 || le.Uint32(b[104:]) != 0 {
		return Header{}, corrupt(11, ErrFormat)
	}
	if at := h.check(); at != 0 {
		return Header{}, corrupt(at, ErrFormat)
	}
	return h, nil
}

// check returns the offset of the first field that cannot be, or 0.
func (h *Header) check() int {
	switch {
	case h.Length%align != 0 || h.Length < HeaderSize+entrySize || h.Length > MaxBundle:
		return 4
	case h.Flags&^(FlagLocal|FlagEcho|FlagCompressed) != 0:
		return 8
	case h.Count == 0 || h.Count > h.Length-HeaderSize || h.Flags&FlagCompressed == 0 && h.Count > (h.Length-HeaderSize)/entrySize:
		return 12
	case h.Echo() && (h.Facts > 0 || h.Fact.Epoch == 0):
		return 16
	case h.Facts > h.Count || !h.Echo() && (h.Facts == 0) != (h.Fact.Epoch == 0):
		return 16
	case h.First == 0 || h.First > math.MaxInt64:
		return 32
	case (h.Before.Epoch == 0) != (h.Before.History == 0) || h.Before.History > math.MaxInt64:
		return 40
	case h.Facts > 0 && h.Fact.Epoch < h.Before.Epoch: // along a branch epochs never fall
		return 56
	case h.Echo() && (h.Fact.History == 0 || h.Fact.History > math.MaxInt64-ident.History(h.Count) || h.Origin != 0):
		return 64
	case h.Durable >= h.First:
		return 88
	case h.Committed >= h.First:
		return 96
	}
	return 0
}

func (h *Header) encode(b []byte) {
	le := binary.LittleEndian
	clear(b[:HeaderSize])
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], h.Length)
	le.PutUint16(b[8:], uint16(h.Flags))
	b[10] = version
	le.PutUint32(b[12:], h.Count)
	le.PutUint32(b[16:], h.Facts)
	le.PutUint32(b[20:], crc32.Checksum(b[HeaderSize:h.Length], crcTable))
	le.PutUint64(b[24:], uint64(h.Session))
	le.PutUint64(b[32:], uint64(h.First))
	le.PutUint64(b[40:], uint64(h.Before.Epoch))
	le.PutUint64(b[48:], uint64(h.Before.History))
	le.PutUint64(b[56:], uint64(h.Fact.Epoch))
	le.PutUint64(b[64:], uint64(h.Origin))
	if h.Echo() {
		le.PutUint64(b[64:], uint64(h.Fact.History))
	}
	le.PutUint64(b[72:], uint64(h.Time))
	le.PutUint64(b[80:], uint64(h.Chain))
	le.PutUint64(b[88:], uint64(h.Durable))
	le.PutUint64(b[96:], uint64(h.Committed))
	le.PutUint32(b[108:], crc32.Checksum(b[:108], crcTable))
}

// Size returns the length of the bundle that Seal makes of entries.
func Size(entries []Entry) int {
	n := HeaderSize
	for i := range entries {
		n += entries[i].size()
	}
	return padded(n)
}

func padded(n int) int { return (n + align - 1) &^ (align - 1) }

// Seal appends the bundle made of h and entries to dst and returns the longer slice and the completed header. It sets
// Length, Count, Facts and the h of Fact; of Fact only the epoch is taken, and it is ignored when there are no facts. An echo takes
// all of Fact, and facts only.
//
// Entry.Transaction is a label here: neighbouring entries with the same nonzero label form one transaction, zero means alone.
// So entries decoded from another journal can be sealed as they are. Sequence and Position are ignored. With room in dst Seal
// does not allocate, unless it compresses. With FlagCompressed the entries are compressed if that makes the bundle shorter, else
// the flag is taken away; J PR and J NR are never compressed. Errors are ErrTooLarge and ErrInvalid; dst is then returned as it was.
func Seal(dst []byte, h Header, entries []Entry) ([]byte, Header, error) {
	size := Size(entries)
	if size > MaxBundle {
		return dst, h, fmt.Errorf("bundle of %d bytes: %w (%d)", size, ErrTooLarge, MaxBundle)
	}
	start := len(dst)
	var room [HeaderSize]byte
	b := append(dst, room[:]...)
	h.Length, h.Count, h.Facts = uint32(size), uint32(len(entries)), 0
	var back uint32
	for i := range entries {
		e := &entries[i]
		if err := e.check(); err != nil {
			return dst, h, fmt.Errorf("entry %d of the bundle: %w", i+1, err)
		}
		back++
		if i == 0 || e.Transaction == 0 || e.Transaction != entries[i-1].Transaction {
			back = 0
		}
		if e.Fact() {
			h.Facts++
		}
		b = e.append(b, h.Time, back)
	}
	if h.Flags&FlagCompressed != 0 {
		packed := false
		if !links(entries) {
			b, packed = shrink(b, start, start+HeaderSize, h.Count)
		}
		if packed {
			size = len(b) - start
			h.Length = uint32(size)
		} else {
			h.Flags &^= FlagCompressed
		}
	}
	for len(b)-start < size {
		b = append(b, 0)
	}
	switch {
	case h.Echo():
		if h.Facts != h.Count {
			return dst, h, fmt.Errorf("an echo repeats facts only: %w", ErrInvalid)
		}
		h.Facts = 0
	case h.Facts == 0:
		h.Fact = ident.Position{}
	default:
		h.Fact.History = h.Before.History + 1
	}
	if at := h.check(); at != 0 {
		return dst, h, fmt.Errorf("bundle header, field at byte %d: %w", at, ErrInvalid)
	}
	h.encode(b[start:])
	return b, h, nil
}

// links tells whether an entry ties receivers together. Those are looked for in bundles without expanding them.
func links(entries []Entry) bool {
	for i := range entries {
		if entries[i].Code == Journal && (entries[i].Type == Previous || entries[i].Type == Next) {
			return true
		}
	}
	return false
}

// Decode checks everything about the bundle that raw holds, exactly: checksums, limits and the structure of all entries. The
// bundle keeps raw.
func Decode(raw []byte) (Bundle, error) {
	h, err := DecodeHeader(raw)
	if err != nil {
		return Bundle{}, err
	}
	if len(raw) < int(h.Length) {
		return Bundle{}, corrupt(len(raw), io.ErrUnexpectedEOF)
	}
	if len(raw) > int(h.Length) {
		return Bundle{}, corrupt(int(h.Length), fmt.Errorf("%w: bytes beyond the bundle", ErrFormat))
	}
	if crc32.Checksum(raw[HeaderSize:], crcTable) != binary.LittleEndian.Uint32(raw[20:]) {
		return Bundle{}, corrupt(HeaderSize, ErrChecksum)
	}
	b := Bundle{Header: h, Raw: raw}
	if err := b.checkEntries(); err != nil {
		return Bundle{}, err
	}
	return b, nil
}

// checkEntries checks the structure of all entries.
func (b Bundle) checkEntries() error {
	raw, at, err := b.body()
	if err != nil {
		return err
	}
	packed := b.Flags&FlagCompressed != 0
	c := cursor{raw: raw, offset: at}
	var facts uint32
	for range b.Count {
		from := c.offset
		f, err := c.next()
		if err != nil {
			return err
		}
		if fact(f.code, f.typ) {
			facts++
		}
		if packed && f.code == Journal && (f.typ == Previous || f.typ == Next) {
			return corrupt(from, fmt.Errorf("%w: J %s in a compressed bundle", ErrFormat, f.typ))
		}
	}
	if b.Echo() && facts == b.Count {
		facts = 0
	}
	if facts != b.Facts {
		return corrupt(16, fmt.Errorf("%w: %d facts counted", ErrFormat, facts))
	}
	if rest := len(raw) - c.offset; rest >= align || packed && rest > 0 {
		return corrupt(c.offset, fmt.Errorf("%w: bytes beyond the entries", ErrFormat))
	}
	for i, p := range raw[c.offset:] {
		if p != 0 {
			return corrupt(c.offset+i, fmt.Errorf("%w: padding", ErrFormat))
		}
	}
	return nil
}

// Entries yields the entries in order. A bundle that comes from Decode never yields an error. A compressed one is expanded anew
// each time; the entries then point into what it was expanded to.
func (b Bundle) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		raw, at, err := b.body()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		c := cursor{raw: raw, offset: at}
		position := b.Fact
		for i := range b.Count {
			f, err := c.next()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			sequence := b.First + ident.Sequence(i)
			e := Entry{
				Sequence: sequence, Time: f.time, Code: f.code, Type: f.typ,
				Transaction: sequence - ident.Sequence(f.back),
				File:        string(f.file), Key: f.key,
				BeforeOmitted: f.parts&partOmitted != 0, Data: f.data,
			}
			if e.Fact() {
				e.Position = position
				position.History++
			}
			if f.parts&partBefore != 0 {
				e.Before = &Image{Position: f.before.position, Time: f.before.time, Expiry: f.before.expiry, Kind: f.before.kind, Value: f.before.value}
			}
			if f.parts&partAfter != 0 {
				e.After = &Image{Position: e.Position, Time: e.Time, Expiry: f.after.expiry, Kind: f.after.kind, Value: f.after.value}
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// All returns the entries as a slice.
func (b Bundle) All() ([]Entry, error) {
	entries := make([]Entry, 0, b.Count)
	for e, err := range b.Entries() {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Holds tells whether the bundle's only entry has code c and type t. It does not look into compressed bundles, which have no J PR
// and no J NR.
func (b Bundle) Holds(c Code, t Type) bool {
	return b.Count == 1 && b.Flags&FlagCompressed == 0 && len(b.Raw) >= HeaderSize+entrySize &&
		b.Raw[HeaderSize+4] == byte(c) && b.Raw[HeaderSize+5] == t[0] && b.Raw[HeaderSize+6] == t[1]
}
