package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// First bytes of keys, part of the format.
const (
	kindFormat   = 0x01
	kindPosition = 0x02
	kindRecord   = 0x03
	kindExpiry   = 0x04
)

// formatVersion is the version of the key map and the value formats. Version 1 had neither kinds nor the index of expiries.
const formatVersion = 2

var formatKey = append([]byte{kindFormat}, "format"...)

// Bytes of the encoding of a name, part of the format.
const (
	nameZero   = 0x00 // introduces the two below
	nameEnd    = 0x01 // 00 01 closes a name
	nameEscape = 0xff // 00 FF stands for 00
)

// appendName appends a name such that names sort as their bytes do and none is a prefix of another.
func appendName(dst []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		if dst = append(dst, name[i]); name[i] == nameZero {
			dst = append(dst, nameEscape)
		}
	}
	return append(dst, nameZero, nameEnd)
}

var errName = errors.New("malformed name")

// cutName splits what appendName wrote off the front of b.
func cutName(b []byte) (name string, rest []byte, err error) {
	var out []byte
	for {
		i := bytes.IndexByte(b, nameZero)
		if i < 0 || i+1 >= len(b) {
			return "", nil, errName
		}
		out = append(out, b[:i]...)
		mark := b[i+1]
		b = b[i+2:]
		switch mark {
		case nameEnd:
			return string(out), b, nil
		case nameEscape:
			out = append(out, nameZero)
		default:
			return "", nil, errName
		}
	}
}

func positionKey(g ident.GroupName) []byte {
	return appendName([]byte{kindPosition}, string(g))
}

func groupPrefix(g ident.GroupName) []byte {
	return appendName([]byte{kindRecord}, string(g))
}

// after returns the lowest key above all keys that begin with prefix, nil when there is none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			out := append([]byte(nil), prefix[:i+1]...)
			out[i]++
			return out
		}
	}
	return nil
}

// positionBytes is the length of an encoded position.
const positionBytes = 16

func appendPosition(dst []byte, p ident.Position) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(p.Epoch))
	return binary.LittleEndian.AppendUint64(dst, uint64(p.History))
}

func decodePosition(b []byte) (ident.Position, error) {
	if len(b) != positionBytes {
		return ident.Position{}, fmt.Errorf("position of %d bytes, want %d", len(b), positionBytes)
	}
	return ident.Position{
		Epoch:   ident.Epoch(binary.LittleEndian.Uint64(b)),
		History: ident.History(binary.LittleEndian.Uint64(b[8:])),
	}, nil
}

func decodePositionRow(key, value []byte) (ident.GroupName, ident.Position, error) {
	name, rest, err := cutName(key[1:])
	if err == nil && len(rest) > 0 {
		err = errName
	}
	var p ident.Position
	if err == nil {
		p, err = decodePosition(value)
	}
	if err != nil {
		return "", p, &CorruptionError{Key: bytes.Clone(key), Err: err}
	}
	return ident.GroupName(name), p, nil
}

// recordHeader is the length of what stands before a record's value: position, time, expiry. One byte more, the kind, stands
// there when hasKind is set in the position's h, which is never that large.
const (
	recordHeader = positionBytes + 8 + 8
	hasKind      = uint64(1) << 63
)

func appendRecord(dst []byte, r *entry.Image) []byte {
	p := r.Position
	if r.Kind != entry.KindBytes {
		p.History |= ident.History(hasKind)
	}
	dst = appendPosition(dst, p)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Time))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Expiry))
	if r.Kind != entry.KindBytes {
		dst = append(dst, byte(r.Kind))
	}
	return append(dst, r.Value...)
}

// splitRecord checks what stands before a record's value and returns where the value begins.
func splitRecord(b []byte) (kind entry.Kind, value int, err error) {
	switch {
	case len(b) < recordHeader:
		return 0, 0, fmt.Errorf("record of %d bytes, want at least %d", len(b), recordHeader)
	case binary.LittleEndian.Uint64(b[8:])&hasKind == 0:
		return entry.KindBytes, recordHeader, nil
	case len(b) == recordHeader || b[recordHeader] == byte(entry.KindBytes):
		return 0, 0, errors.New("a record's kind is missing")
	}
	return entry.Kind(b[recordHeader]), recordHeader + 1, nil
}

// expiryOf returns the expiry of an encoded record.
func expiryOf(b []byte) (int64, error) {
	if _, _, err := splitRecord(b); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(b[positionBytes+8:])), nil
}

// decodeRecord copies: the result does not refer to b.
func decodeRecord(b []byte) (entry.Image, error) {
	kind, value, err := splitRecord(b)
	if err != nil {
		return entry.Image{}, err
	}
	p, err := decodePosition(b[:positionBytes])
	p.History &^= ident.History(hasKind)
	return entry.Image{
		Position: p,
		Time:     int64(binary.LittleEndian.Uint64(b[positionBytes:])),
		Expiry:   int64(binary.LittleEndian.Uint64(b[positionBytes+8:])),
		Kind:     kind,
		Value:    cloneValue(b[value:]),
	}, err
}
