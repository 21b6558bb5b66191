package entry

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// What stands before the compressed entries, part of the format: how long they are when expanded, and how long they are.
const packSize = 8

// A block of zstd takes so many bytes at least, and expands to so many at most: what claims more is refused before it costs memory.
const (
	leastBlock  = 4
	mostOfBlock = 128 << 10
)

// ErrExpand says that compressed entries are not what their bundle says.
var ErrExpand = errors.New("compressed entries do not expand to what was sealed")

// pack and unpack have no state that a caller could see: every call stands for itself, and they may be called at the same time.
var (
	pack   = newPacker()
	unpack = newUnpacker()
)

func newPacker() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(4), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("options of the compressor: " + err.Error()) // they are constants
	}
	return e
}

func newUnpacker() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxBundle), zstd.WithDecoderConcurrency(4), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("options of the decompressor: " + err.Error()) // as above
	}
	return d
}

// shrink replaces the entries at the end of b, from at on, by their compressed form with padding, if that makes the bundle
// shorter. Every entry takes a byte at least: whoever searches a damaged receiver relies on it.
func shrink(b []byte, start, at int, count uint32) ([]byte, bool) {
	plain := b[at:]
	packed := pack.EncodeAll(plain, nil)
	size := padded(at - start + packSize + len(packed))
	if size >= padded(len(b)-start) || size < HeaderSize+entrySize || int64(size) < HeaderSize+int64(count) {
		return b, false
	}
	expanded := len(plain)
	b = binary.LittleEndian.AppendUint32(b[:at], uint32(expanded))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(packed)))
	b = append(b, packed...)
	for len(b)-start < size {
		b = append(b, 0)
	}
	return b, true
}

// Expanded returns how many bytes the entries take, without header and padding; the length of a bundle says nothing about that when
// it is compressed. What it says of a bundle that does not come from Decode is only claimed.
func (b Bundle) Expanded() int {
	if b.Flags&FlagCompressed == 0 || len(b.Raw) < HeaderSize+packSize {
		return len(b.Raw)
	}
	return int(binary.LittleEndian.Uint32(b.Raw[HeaderSize:]))
}

// body returns the bytes in which the entries stand, and where they begin there: those of the bundle, or those that it expands to.
// Nothing is allocated for more than a bundle may hold.
func (b Bundle) body() (raw []byte, at int, err error) {
	if b.Flags&FlagCompressed == 0 {
		return b.Raw, HeaderSize, nil
	}
	le := binary.LittleEndian
	if len(b.Raw) < HeaderSize+packSize {
		return nil, 0, corrupt(HeaderSize, ErrFormat)
	}
	expanded, stored := int64(le.Uint32(b.Raw[HeaderSize:])), int64(le.Uint32(b.Raw[HeaderSize+4:]))
	end := HeaderSize + packSize + stored
	switch {
	case expanded > MaxBundle-HeaderSize || expanded > (stored/leastBlock+1)*mostOfBlock || int64(b.Count)*entrySize > expanded || padded(HeaderSize+int(expanded)) <= len(b.Raw):
		return nil, 0, corrupt(HeaderSize, ErrFormat)
	case int64(len(b.Raw)) < end || padded(int(end)) != len(b.Raw):
		return nil, 0, corrupt(HeaderSize+4, ErrFormat)
	case !allZero(b.Raw[end:]):
		return nil, 0, corrupt(int(end), fmt.Errorf("%w: padding", ErrFormat))
	}
	var frame zstd.Header
	packed := b.Raw[HeaderSize+packSize : end]
	if err := frame.Decode(packed); err != nil || !frame.HasFCS || frame.FrameContentSize != uint64(expanded) || frame.Skippable || frame.DictionaryID != 0 {
		return nil, 0, corrupt(HeaderSize+packSize, ErrExpand)
	}
	raw, err = unpack.DecodeAll(packed, make([]byte, 0, expanded))
	if err != nil || int64(len(raw)) != expanded {
		return nil, 0, corrupt(HeaderSize+packSize, errors.Join(ErrExpand, err))
	}
	return raw, 0, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
