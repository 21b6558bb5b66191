package resp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sort"
)

// A hash is one record, whose value is
//
//	version  1 byte, 1
//	then for each field, in ascending order of the names' bytes, each name once:
//	  name   uvarint length, bytes
//	  value  uvarint length, bytes
//
// A hash without fields is no record. The encoding is canonical: equal hashes are equal bytes. It is part of the format.
const hashVersion = 1

var errBadHash = errors.New("the value of the record is not a hash")

// field of a hash.
type field struct{ name, value []byte }

// hash is a list of fields in the order of their names.
type hash []field

// decodeHash reads a hash. The fields refer to value.
func decodeHash(value []byte) (hash, error) {
	if len(value) == 0 || value[0] != hashVersion {
		return nil, errBadHash
	}
	rest := value[1:]
	piece := func() ([]byte, bool) {
		n, used := binary.Uvarint(rest)
		if used <= 0 || n > uint64(len(rest)-used) || used > 1 && rest[used-1] == 0 { // cut off, or not the shortest form
			return nil, false
		}
		p := rest[used : used+int(n) : used+int(n)]
		rest = rest[used+int(n):]
		return p, true
	}
	var h hash
	for len(rest) > 0 {
		name, ok1 := piece()
		v, ok2 := piece()
		if !ok1 || !ok2 || len(h) > 0 && bytes.Compare(h[len(h)-1].name, name) >= 0 {
			return nil, errBadHash
		}
		h = append(h, field{name, v})
	}
	return h, nil
}

// encode returns the record's value.
func (h hash) encode() []byte {
	b := append(make([]byte, 0, h.size()), hashVersion)
	for _, f := range h {
		b = append(binary.AppendUvarint(b, uint64(len(f.name))), f.name...)
		b = append(binary.AppendUvarint(b, uint64(len(f.value))), f.value...)
	}
	return b
}

// size is the length of the encoding.
func (h hash) size() int {
	n := 1
	for _, f := range h {
		n += uvarintSize(len(f.name)) + len(f.name) + uvarintSize(len(f.value)) + len(f.value)
	}
	return n
}

func uvarintSize(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// find returns where name is, or would be.
func (h hash) find(name []byte) (int, bool) {
	i := sort.Search(len(h), func(i int) bool { return bytes.Compare(h[i].name, name) >= 0 })
	return i, i < len(h) && bytes.Equal(h[i].name, name)
}

// get returns the value of a field.
func (h hash) get(name []byte) ([]byte, bool) {
	i, found := h.find(name)
	if !found {
		return nil, false
	}
	return h[i].value, true
}

// merge returns the hash with fields set, the last of several with one name, and tells how many are new.
func (h hash) merge(fields hash) (hash, int) {
	more := append(hash(nil), fields...)
	sort.SliceStable(more, func(i, j int) bool { return bytes.Compare(more[i].name, more[j].name) < 0 })
	all, added := make(hash, 0, len(h)+len(more)), 0
	for i := 0; len(h) > 0 || i < len(more); {
		if i+1 < len(more) && bytes.Equal(more[i].name, more[i+1].name) {
			i++
			continue
		}
		order := -1
		switch {
		case len(h) == 0:
			order = 1
		case i < len(more):
			order = bytes.Compare(h[0].name, more[i].name)
		}
		if order >= 0 {
			all = append(all, more[i])
			i++
		} else {
			all = append(all, h[0])
		}
		if order <= 0 {
			h = h[1:]
		} else {
			added++
		}
	}
	return all, added
}

// without returns the hash without the named fields, and tells how many there were.
func (h hash) without(names [][]byte) (hash, int) {
	gone := make(map[string]bool, len(names))
	for _, n := range names {
		gone[string(n)] = true
	}
	left := make(hash, 0, len(h))
	for _, f := range h {
		if !gone[string(f.name)] {
			left = append(left, f)
		}
	}
	return left, len(h) - len(left)
}
