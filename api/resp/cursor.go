package resp

import (
	"bytes"
	"hash/fnv"
	"strconv"
	"sync"
)

// A cursor of SCAN is a number that says by itself after which key a scan goes on, so that every node understands it and none has to
// remember it. It has 63 bits, since some clients read it as a signed number:
//
//	file    11 bits, 1…2047: a hash of the file's name; files are scanned in the order of these, then of their names
//	prefix  16 bits: the first two bytes of the key that was looked at last, filled with zeros; with sum 0 another hash of the file's name,
//	        or 0: the first file with this code
//	sum     36 bits, not 0: a hash of that key and the name; 0: the file is scanned from its beginning
//
// 0 is the beginning, and the end. Keys are scanned in their order. The key is found again among those with the same prefix; since that
// takes time when there are many, the node that gave a cursor remembers the key for a while (cursors). It gives none that it remembers for
// another key, but goes on by one: so two keys with one cursor cannot make a scan go round in circles.
const (
	fileBits   = 11
	prefixBits = 16
	sumBits    = 36

	lastCode = 1<<fileBits - 1

	maxCursors   = 512 // keys that are remembered
	maxCursorKey = 512 // bytes of one
)

func cursorOf(arg []byte) (uint64, bool) {
	if len(arg) == 0 || len(arg) > 21 {
		return 0, len(arg) == 0 // none is the beginning, as in Redis
	}
	digits, negative := string(arg), arg[0] == '-'
	if negative || arg[0] == '+' {
		digits = digits[1:]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if negative {
		n = -n
	}
	return n, err == nil
}

func makeCursor(code, prefix, sum uint64) uint64 {
	return code<<(prefixBits+sumBits) | prefix<<sumBits | sum
}

func splitCursor(c uint64) (code, prefix, sum uint64) {
	return c >> (prefixBits + sumBits), c >> sumBits & (1<<prefixBits - 1), c & (1<<sumBits - 1)
}

func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	n := h.Sum64()
	return n ^ n>>29 ^ n>>47 // its upper bits are the good ones
}

func fileCode(name string) uint64 { return 1 + hashOf([]byte(name))%lastCode }

// fileMark tells files with one code apart.
func fileMark(name string) uint64 { return 1 + hashOf([]byte(name))>>32%(1<<prefixBits-1) }

// keySum differs for the same key in two files, which may have one code.
func keySum(file string, key []byte) uint64 {
	return 1 + (hashOf(key)+fileMark(file))%(1<<sumBits-1)
}

func keyPrefix(key []byte) uint64 {
	var n uint64
	for i := range prefixBits / 8 {
		n <<= 8
		if i < len(key) {
			n |= uint64(key[i])
		}
	}
	return n
}

// prefixStart is not above any key with that prefix.
func prefixStart(prefix uint64) []byte {
	return bytes.TrimRight([]byte{byte(prefix >> 8), byte(prefix)}, "\x00")
}

// cursors remembers keys that cursors given here stand for. It only saves time.
type cursors struct {
	mu   sync.Mutex
	keys map[uint64]Key
	ring [maxCursors]uint64 // the oldest one is at next
	next int
}

// after returns the cursor for going on in a file; false when it stands for another key, too.
func (c *cursors) after(f file, from Bound) (uint64, bool) {
	if !from.After {
		return makeCursor(f.code, fileMark(f.name), 0), true
	}
	cursor := makeCursor(f.code, keyPrefix(from.Key), keySum(f.name, from.Key))
	if len(from.Key) > maxCursorKey {
		return cursor, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[uint64]Key{}
	}
	if k, known := c.keys[cursor]; known {
		return cursor, k.File == f.name && bytes.Equal(k.Key, from.Key)
	}
	delete(c.keys, c.ring[c.next])
	c.ring[c.next] = cursor
	c.next = (c.next + 1) % maxCursors
	c.keys[cursor] = Key{File: f.name, Key: bytes.Clone(from.Key)}
	return cursor, true
}

// get returns the key after which a cursor goes on.
func (c *cursors) get(cursor uint64) (Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, known := c.keys[cursor]
	return k, known
}
