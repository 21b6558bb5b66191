package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Version is the version that stands in every frame, the only one that this package writes and reads. It is part of the format.
const Version = 1

// Newest is the version that a source names in Hello. Since version 2 a target may say in Start that it takes Range, and
// bundles that are compressed; the frames are those of version 1 otherwise. To a target that does not say so nothing of the kind
// is sent. It is part of the format.
const Newest = 2

// Sizes in bytes. They are part of the format.
const (
	HeaderSize         = 24                   // frame header
	ReceiverHeaderSize = 4096                 // payload of Receiver
	MaxBundle          = 64 << 20             // payload of Bundle
	MaxFrame           = 64<<20 + 64<<10      // header and payload
	MaxBeforeHello     = 4 << 10              // header and payload, until Hello was accepted
	MaxRange           = 16 << 20             // bytes announced by one Range
	MaxOffer           = 512                  // points in one Offer
	MaxText            = 1024                 // text of Refuse
	maxString          = 255                  // one string
	maxHello           = 35 + 5*(1+maxString) // payload of Hello
)

// Type says what a frame holds. The numbers are part of the format; zero is invalid.
type Type uint8

// The types of frames, with who sends them.
const (
	TypeHello     Type = 1  // source: who it is and what it wants to ship
	TypeOffer     Type = 2  // target: ends of bundles that it has, descending
	TypeMatch     Type = 3  // source: the highest of them that it has too
	TypeStart     Type = 4  // target: ready, send from here
	TypeReceiver  Type = 5  // source: a receiver begins
	TypeBundle    Type = 6  // source: the next bundle
	TypeProgress  Type = 7  // source: how far it is durable and committed
	TypeHeartbeat Type = 8  // both: still here
	TypeAck       Type = 9  // target: how far it got
	TypeRefuse    Type = 10 // target: why it ends the session
	TypeCredit    Type = 11 // target: bytes that may be sent on top
	TypeEnd       Type = 12 // source: why it ends the session
	TypeLevel     Type = 13 // source: nothing committed lies beyond what it said
	TypeRange     Type = 14 // source: bundles follow as they stand in a receiver's file, outside of frames
	TypeBegin     Type = 15 // source, instead of a match: the copy is to begin with another receiver
)

var typeNames = [...]string{
	TypeHello: "hello", TypeOffer: "offer", TypeMatch: "match", TypeStart: "start", TypeReceiver: "receiver",
	TypeBundle: "bundle", TypeProgress: "progress", TypeHeartbeat: "heartbeat", TypeAck: "ack", TypeRefuse: "refuse",
	TypeCredit: "credit", TypeEnd: "end", TypeLevel: "level", TypeRange: "range", TypeBegin: "begin",
}

func (t Type) String() string {
	if t > 0 && int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// payloadRange returns the shortest and longest payload of t in bytes; ok is false when t is not a type.
func (t Type) payloadRange() (least, most int, ok bool) {
	switch t {
	case TypeHello:
		return 40, maxHello, true
	case TypeOffer:
		return 3, 3 + 16*MaxOffer, true
	case TypeMatch:
		return 25, 25, true
	case TypeStart:
		return 17, 17, true
	case TypeReceiver:
		return ReceiverHeaderSize, ReceiverHeaderSize, true
	case TypeBundle:
		return 1, MaxBundle, true
	case TypeProgress:
		return 32, 32, true
	case TypeHeartbeat:
		return 0, 0, true
	case TypeAck:
		return 48, 48, true
	case TypeRefuse:
		return 2, 2 + MaxText, true
	case TypeCredit:
		return 8, 8, true
	case TypeEnd:
		return 2, 2, true
	case TypeLevel:
		return 24, 24, true
	case TypeRange:
		return 24, 24, true
	case TypeBegin:
		return 33, 33, true
	}
	return 0, 0, false
}

// Header is what stands before every payload.
type Header struct {
	Length  uint32 // of the payload, in bytes
	Type    Type
	Version uint8
	Epoch   ident.Epoch // of the session
	Sum     uint32      // CRC32C of the payload
}

// FormatError says that bytes are no frame, or that a frame's payload is not what its type demands. The connection is of
// no further use.
type FormatError struct {
	Type   Type // zero: the frame header itself
	Reason string
}

func (e *FormatError) Error() string {
	if e.Type == 0 {
		return "malformed frame: " + e.Reason
	}
	return "malformed " + e.Type.String() + " frame: " + e.Reason
}

// VersionError says that the peer speaks another version of the format.
type VersionError struct{ Have, Want uint16 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("peer speaks wire version %d, this node %d: run the same release on both nodes", e.Want, e.Have)
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // package crc32 makes it once

// appendHeader appends the 24 bytes of h.
func appendHeader(dst []byte, h Header) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, h.Length)
	dst = append(dst, byte(h.Type), h.Version, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Epoch))
	dst = binary.LittleEndian.AppendUint32(dst, h.Sum)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli()))
}

// DecodeHeader reads a frame header from the first HeaderSize bytes of b and checks everything that can be checked before
// the payload is there: checksum, type and length, and the version unless the frame is a Refuse.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, &FormatError{Reason: fmt.Sprintf("%d bytes are too few for a header", len(b))}
	}
	if got, want := crc32.Checksum(b[:20], castagnoli()), binary.LittleEndian.Uint32(b[20:]); got != want {
		return Header{}, &FormatError{Reason: fmt.Sprintf("header checksum %08x, want %08x", got, want)}
	}
	h := Header{
		Length:  binary.LittleEndian.Uint32(b),
		Type:    Type(b[4]),
		Version: b[5],
		Epoch:   ident.Epoch(binary.LittleEndian.Uint64(b[8:])),
		Sum:     binary.LittleEndian.Uint32(b[16:]),
	}
	if h.Version != Version && h.Type != TypeRefuse {
		return Header{}, &VersionError{Have: Version, Want: uint16(h.Version)}
	}
	if b[6] != 0 || b[7] != 0 {
		return Header{}, &FormatError{Reason: "reserved bytes are set"}
	}
	least, most, ok := h.Type.payloadRange()
	if !ok {
		return Header{}, &FormatError{Reason: h.Type.String() + " is not known"}
	}
	if int64(h.Length) < int64(least) || int64(h.Length) > int64(most) {
		return Header{}, &FormatError{Type: h.Type, Reason: fmt.Sprintf("payload of %d bytes, want %d to %d", h.Length, least, most)}
	}
	return h, nil
}

// AppendFrame appends the frame of m in a session of epoch e to dst. It fails when m has no form in the format, such as a
// name that is too long.
func AppendFrame(dst []byte, e ident.Epoch, m Message) ([]byte, error) {
	at := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	dst, err := m.appendPayload(dst)
	if err != nil {
		return dst[:at], err
	}
	payload := dst[at+HeaderSize:]
	if err := checkLength(m.Type(), len(payload)); err != nil {
		return dst[:at], err
	}
	appendHeader(dst[:at], Header{
		Length: uint32(len(payload)), Type: m.Type(), Version: Version, Epoch: e, Sum: crc32.Checksum(payload, castagnoli()),
	})
	return dst, nil
}

func checkLength(t Type, n int) error {
	least, most, _ := t.payloadRange()
	if n < least || n > most {
		return &FormatError{Type: t, Reason: fmt.Sprintf("payload of %d bytes, want %d to %d", n, least, most)}
	}
	return nil
}

// DecodePayload reads the payload that belongs to h and checks its checksum. Receiver and Bundle point into b; the other
// messages do not.
func DecodePayload(h Header, b []byte) (Message, error) {
	if len(b) != int(h.Length) {
		return nil, &FormatError{Type: h.Type, Reason: fmt.Sprintf("payload of %d bytes, header says %d", len(b), h.Length)}
	}
	if got := crc32.Checksum(b, castagnoli()); got != h.Sum {
		return nil, &FormatError{Type: h.Type, Reason: fmt.Sprintf("payload checksum %08x, want %08x", got, h.Sum)}
	}
	m, err := decodeMessage(h.Type, b)
	if err != nil {
		return nil, &FormatError{Type: h.Type, Reason: err.Error()}
	}
	return m, nil
}
