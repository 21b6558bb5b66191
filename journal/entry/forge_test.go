package entry

import (
	"encoding/binary"
	"hash/crc32"
)

// forge makes magic, length and checksums of raw fit.
func forge(raw []byte) {
	le := binary.LittleEndian
	copy(raw, Magic)
	le.PutUint32(raw[4:], uint32(len(raw)))
	raw[10] = version
	le.PutUint32(raw[20:], crc32.Checksum(raw[HeaderSize:], crcTable))
	le.PutUint32(raw[108:], crc32.Checksum(raw[:108], crcTable))
}
