package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// HeaderSize is the size of a receiver header in bytes; the first bundle stands behind it.
const HeaderSize = 4096

// Constants of the receiver header, part of the format.
const (
	receiverMagic   = "USRECEIV"
	receiverVersion = 1
	nameSlot        = 256 // bytes per name: one for its length, the rest for the name
	clusterAt       = 256
	groupAt         = clusterAt + nameSlot
	nodeAt          = groupAt + nameSlot
	namesEnd        = nodeAt + nameSlot
	headerCRCAt     = HeaderSize - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why a receiver header or a receiver is refused.
var (
	errHeaderMagic    = errors.New("no receiver header")
	errHeaderVersion  = errors.New("unknown version of the receiver format; a newer Understudy wrote it")
	errHeaderChecksum = errors.New("checksum of the receiver header does not fit")
	errHeaderFormat   = errors.New("field of the receiver header out of its range")
)

// ReceiverHeader is what the first bytes of a receiver say. Run is the run in progress where the receiver starts, from its very
// beginning even when that receiver is gone; zero when there is none.
type ReceiverHeader struct {
	Cluster ident.ClusterID
	ID      ident.JournalID
	Number  ident.ReceiverNumber
	First   ident.Sequence // of its first bundle, which holds J PR
	Start   ident.Position // history at the start
	Chain   ident.Chain    // over all bundles before
	Created time.Time
	Run     Run
}

// encode returns the header's bytes.
func (h ReceiverHeader) encode() ([]byte, error) {
	b := make([]byte, HeaderSize)
	le := binary.LittleEndian
	copy(b, receiverMagic)
	le.PutUint32(b[8:], receiverVersion)
	le.PutUint32(b[12:], uint32(h.Number))
	le.PutUint64(b[16:], uint64(h.First))
	le.PutUint64(b[24:], uint64(h.Start.Epoch))
	le.PutUint64(b[32:], uint64(h.Start.History))
	le.PutUint64(b[40:], uint64(h.Chain))
	le.PutUint64(b[48:], uint64(h.Created.UnixNano()))
	le.PutUint64(b[56:], uint64(h.Run.First))
	le.PutUint64(b[64:], uint64(h.Run.Last))
	le.PutUint64(b[72:], uint64(h.Run.Before.Epoch))
	le.PutUint64(b[80:], uint64(h.Run.Before.History))
	for _, n := range []struct {
		at   int
		name string
	}{{clusterAt, string(h.Cluster)}, {groupAt, string(h.ID.Group)}, {nodeAt, string(h.ID.Node)}} {
		if len(n.name) >= nameSlot {
			return nil, fmt.Errorf("name %q is longer than %d bytes", n.name, nameSlot-1)
		}
		b[n.at] = byte(len(n.name))
		copy(b[n.at+1:], n.name)
	}
	le.PutUint32(b[headerCRCAt:], crc32.Checksum(b[:headerCRCAt], castagnoli))
	return b, nil
}

// DecodeReceiverHeader reads and checks the header at the start of b.
func DecodeReceiverHeader(b []byte) (ReceiverHeader, error) {
	if len(b) < HeaderSize || string(b[:8]) != receiverMagic {
		return ReceiverHeader{}, errHeaderMagic
	}
	b = b[:HeaderSize]
	le := binary.LittleEndian
	if crc32.Checksum(b[:headerCRCAt], castagnoli) != le.Uint32(b[headerCRCAt:]) {
		return ReceiverHeader{}, errHeaderChecksum
	}
	if le.Uint32(b[8:]) != receiverVersion {
		return ReceiverHeader{}, errHeaderVersion
	}
	names := [3]string{}
	for i, at := range []int{clusterAt, groupAt, nodeAt} {
		n := int(b[at])
		names[i] = string(b[at+1 : at+1+n])
		if !allZero(b[at+1+n : at+nameSlot]) {
			return ReceiverHeader{}, errHeaderFormat
		}
	}
	position := func(at int) ident.Position {
		return ident.Position{Epoch: ident.Epoch(le.Uint64(b[at:])), History: ident.History(le.Uint64(b[at+8:]))}
	}
	h := ReceiverHeader{
		Cluster: ident.ClusterID(names[0]),
		ID:      ident.JournalID{Group: ident.GroupName(names[1]), Node: ident.NodeID(names[2])},
		Number:  ident.ReceiverNumber(le.Uint32(b[12:])),
		First:   ident.Sequence(le.Uint64(b[16:])),
		Start:   position(24),
		Chain:   ident.Chain(le.Uint64(b[40:])),
		Created: time.Unix(0, int64(le.Uint64(b[48:]))),
	}
	if first := ident.Sequence(le.Uint64(b[56:])); first != 0 {
		before := position(72)
		h.Run = Run{
			Epoch: h.Start.Epoch, From: before.History + 1, To: h.Start.History, Before: before,
			First: first, Last: ident.Sequence(le.Uint64(b[64:])),
		}
	}
	r := h.Run
	switch {
	case h.Number == 0 || h.First == 0 || !allZero(b[88:clusterAt]) || !allZero(b[namesEnd:headerCRCAt]):
	case h.Start.IsZero() != (r.First == 0) || r.First == 0 && !allZero(b[56:88]):
	case r.First > r.Last || r.Last >= h.First || r.From > r.To:
	case h.First == 1 && (h.Chain != 0 || h.Number != 1):
	default:
		return h, nil
	}
	return ReceiverHeader{}, errHeaderFormat
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
