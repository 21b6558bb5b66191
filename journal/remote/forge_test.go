package remote

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// sound makes the lengths and checksums of the frames in b fit as far as there are frames, so that what is in them is looked at.
func sound(b []byte) []byte {
	out := append([]byte(nil), b...)
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	for rest := out; len(rest) >= wire.HeaderSize; {
		n := min(int(le.Uint32(rest)), len(rest)-wire.HeaderSize)
		le.PutUint32(rest, uint32(n))
		rest[5], rest[6], rest[7] = wire.Version, 0, 0
		payload := rest[wire.HeaderSize : wire.HeaderSize+n]
		le.PutUint32(rest[16:], crc32.Checksum(payload, table))
		le.PutUint32(rest[20:], crc32.Checksum(rest[:20], table))
		skip := wire.HeaderSize + n
		if wire.Type(rest[4]) == wire.TypeRange && n >= 8 {
			skip = min(skip+int(min(le.Uint32(payload[4:]), wire.MaxRange)), len(rest))
		}
		rest = rest[skip:]
	}
	return out
}
