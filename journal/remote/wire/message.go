package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Message is the content of one frame.
type Message interface {
	Type() Type
	appendPayload(dst []byte) ([]byte, error)
}

// Hello opens a session: the source says who it is, which journal it serves, and in which epoch.
type Hello struct {
	Version  uint16 // the source's ident.Protocol; below that: highest version of the format that it speaks, a build from before the protocol
	Cluster  ident.ClusterID
	Journal  ident.JournalID
	From, To ident.NodeID
	Epoch    ident.Epoch       // of the session; every further frame carries it too
	Session  uint64            // counter of the source's life: of two sessions of one life the higher wins
	Life     ident.Incarnation // of the source
	End      ident.Sequence    // last sequence that the source had in this journal
	Free     bool              // the serving primary has opened, and the target is neither in its set nor proposed for it
}

// Point is the end of a bundle: its last sequence and the chain after it.
type Point struct {
	Sequence ident.Sequence
	Chain    ident.Chain
}

// Offer lists ends of bundles that the target has, highest first.
type Offer struct {
	Points  []Point // at most MaxOffer
	Last    bool    // the target has none below
	Checked bool    // the target has compared the protocols; builds from before them do not
}

// Match answers an Offer: the highest offered point that the source has with the same chain.
type Match struct {
	Found   bool // else none of these: go on below
	Point        // the common end; zero unless Found
	Shorter bool // the source's journal ends at the common point and the source did not write it: remove nothing
	End     ident.Sequence
}

// Begin answers an Offer where somebody said with which receiver the copy is to begin. A copy that holds that receiver's start
// goes on from the common end; any other is removed as a whole, and begins after After.
type Begin struct {
	Found bool           // there is a common end
	Point                // that; zero unless Found
	After ident.Sequence // the receiver begins behind it
	First ident.Sequence // the oldest that the source, which wrote the journal, holds
}

// Start says that the target is ready.
type Start struct {
	From   ident.Sequence // first sequence that it wants
	Window uint64         // bytes of Receiver and Bundle payload that may be under way; Credit gives them back
	Idle   bool           // it has all that the source has, and more: nothing is to be sent
	Ranges bool           // it takes Range and compressed bundles; said to sources of version 2 only
}

// Receiver begins the next receiver with exactly these bytes.
type Receiver struct{ Header []byte }

// Bundle is the next bundle, as it stands in the journal.
type Bundle struct{ Raw []byte }

// Range announces the next bundles: after this frame come Length bytes outside of any frame, whole bundles as they stand from
// Offset on in the file of the attached receiver. No checksum but those of the bundles covers them.
type Range struct {
	Receiver ident.ReceiverNumber
	Length   uint32 // a multiple of 8, at most MaxRange
	Offset   uint64 // a multiple of 8, not within the receiver's header
	First    ident.Sequence
}

// Progress says how far the source is. It never runs ahead of the bundles that were sent before it.
type Progress struct {
	Durable   ident.Sequence // confirmed: on the disk of the node that wrote the journal
	Committed ident.Sequence
	Position  ident.Position // history position after Committed
}

// Level says that nothing that was committed at a moment lies beyond what Progress said last. The moment is not before the source
// had read Heard frames of the target in this session: by its own clock the target knows when it wrote them.
type Level struct {
	Position ident.Position // as of the last Progress
	Heard    uint64
}

// Heartbeat is sent when there was nothing else to say.
type Heartbeat struct{}

// Ack says how far the target is. All four are ends, not differences, so the newest one counts.
type Ack struct {
	Received, Durable ident.Sequence // in this journal: in memory, on the target's own disk
	Held              ident.Position // durable without a hole, over all journals that the target holds
	Applied           ident.Position // of the target's store
}

// Refuse ends a session from the target's side.
type Refuse struct {
	Code Code
	Text string // for the operator; cut to MaxText bytes
}

// Credit gives back bytes that are durable at the target.
type Credit struct{ Bytes uint64 }

// End ends a session from the source's side.
type End struct{ Code Code }

// Type returns TypeHello.
func (Hello) Type() Type { return TypeHello }

// Type returns TypeOffer.
func (Offer) Type() Type { return TypeOffer }

// Type returns TypeMatch.
func (Match) Type() Type { return TypeMatch }

// Type returns TypeBegin.
func (Begin) Type() Type { return TypeBegin }

// Type returns TypeStart.
func (Start) Type() Type { return TypeStart }

// Type returns TypeReceiver.
func (Receiver) Type() Type { return TypeReceiver }

// Type returns TypeBundle.
func (Bundle) Type() Type { return TypeBundle }

// Type returns TypeRange.
func (Range) Type() Type { return TypeRange }

// Type returns TypeProgress.
func (Progress) Type() Type { return TypeProgress }

// Type returns TypeLevel.
func (Level) Type() Type { return TypeLevel }

// Type returns TypeHeartbeat.
func (Heartbeat) Type() Type { return TypeHeartbeat }

// Type returns TypeAck.
func (Ack) Type() Type { return TypeAck }

// Type returns TypeRefuse.
func (Refuse) Type() Type { return TypeRefuse }

// Type returns TypeCredit.
func (Credit) Type() Type { return TypeCredit }

// Type returns TypeEnd.
func (End) Type() Type { return TypeEnd }

func (m Hello) appendPayload(dst []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint16(dst, m.Version)
	dst = appendFlags(dst, m.Free)
	dst = appendWords(dst, uint64(m.Epoch), m.Session, uint64(m.Life), uint64(m.End))
	names := []string{string(m.Cluster), string(m.Journal.Group), string(m.Journal.Node), string(m.From), string(m.To)}
	for _, s := range names {
		if len(s) > maxString {
			return dst, &FormatError{Type: TypeHello, Reason: fmt.Sprintf("name of %d bytes, at most %d", len(s), maxString)}
		}
		dst = append(dst, byte(len(s)))
		dst = append(dst, s...)
	}
	return dst, nil
}

func (m Offer) appendPayload(dst []byte) ([]byte, error) {
	if len(m.Points) > MaxOffer {
		return dst, &FormatError{Type: TypeOffer, Reason: fmt.Sprintf("%d points, at most %d", len(m.Points), MaxOffer)}
	}
	dst = appendFlags(dst, m.Last, m.Checked)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.Points)))
	for _, p := range m.Points {
		dst = appendWords(dst, uint64(p.Sequence), uint64(p.Chain))
	}
	return dst, nil
}

func (m Match) appendPayload(dst []byte) ([]byte, error) {
	dst = appendFlags(dst, m.Found, m.Shorter)
	return appendWords(dst, uint64(m.Sequence), uint64(m.Chain), uint64(m.End)), nil
}

func (m Begin) appendPayload(dst []byte) ([]byte, error) {
	dst = appendFlags(dst, m.Found)
	return appendWords(dst, uint64(m.Sequence), uint64(m.Chain), uint64(m.After), uint64(m.First)), nil
}

func (m Start) appendPayload(dst []byte) ([]byte, error) {
	dst = appendFlags(dst, m.Idle, m.Ranges)
	return appendWords(dst, uint64(m.From), m.Window), nil
}

func (m Receiver) appendPayload(dst []byte) ([]byte, error) { return append(dst, m.Header...), nil }

func (m Bundle) appendPayload(dst []byte) ([]byte, error) { return append(dst, m.Raw...), nil }

func (m Range) appendPayload(dst []byte) ([]byte, error) {
	if err := m.check(); err != nil {
		return dst, &FormatError{Type: TypeRange, Reason: err.Error()}
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(m.Receiver))
	dst = binary.LittleEndian.AppendUint32(dst, m.Length)
	return appendWords(dst, m.Offset, uint64(m.First)), nil
}

// check returns why no such range can be, or nil.
func (m Range) check() error {
	switch {
	case m.Length == 0 || m.Length > MaxRange || m.Length%8 != 0:
		return fmt.Errorf("%d bytes, want a multiple of 8 up to %d", m.Length, MaxRange)
	case m.Offset < ReceiverHeaderSize || m.Offset%8 != 0 || m.Offset > 1<<62:
		return fmt.Errorf("offset %d is none of a bundle", m.Offset)
	case m.Receiver == 0 || m.First == 0:
		return errors.New("receiver or sequence zero")
	}
	return nil
}

func (m Progress) appendPayload(dst []byte) ([]byte, error) {
	return appendWords(dst, uint64(m.Durable), uint64(m.Committed), uint64(m.Position.Epoch), uint64(m.Position.History)), nil
}

func (m Level) appendPayload(dst []byte) ([]byte, error) {
	return appendWords(dst, uint64(m.Position.Epoch), uint64(m.Position.History), m.Heard), nil
}

func (m Heartbeat) appendPayload(dst []byte) ([]byte, error) { return dst, nil }

func (m Ack) appendPayload(dst []byte) ([]byte, error) {
	return appendWords(dst, uint64(m.Received), uint64(m.Durable), uint64(m.Held.Epoch), uint64(m.Held.History),
		uint64(m.Applied.Epoch), uint64(m.Applied.History)), nil
}

func (m Refuse) appendPayload(dst []byte) ([]byte, error) {
	text := strings.ToValidUTF8(m.Text, "?")
	for len(text) > MaxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return append(binary.LittleEndian.AppendUint16(dst, uint16(m.Code)), text...), nil
}

func (m Credit) appendPayload(dst []byte) ([]byte, error) { return appendWords(dst, m.Bytes), nil }

func (m End) appendPayload(dst []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint16(dst, uint16(m.Code)), nil
}

func appendWords(dst []byte, words ...uint64) []byte {
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}

func appendFlags(dst []byte, flags ...bool) []byte {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(dst, b)
}

// Reasons for which a payload is refused.
var (
	errTrailing = errors.New("bytes beyond its end")
	errFlags    = errors.New("unknown flags")
	errShort    = errors.New("too short")
	errCode     = errors.New("code zero")
)

// decodeMessage reads a payload whose length is within the range of its type.
func decodeMessage(t Type, b []byte) (Message, error) {
	d := decoder{b: b}
	var m Message
	switch t {
	case TypeHello:
		m = d.hello()
	case TypeOffer:
		m = d.offer()
	case TypeMatch:
		f := d.flags(2)
		m = Match{Found: f&1 != 0, Shorter: f&2 != 0, Point: d.point(), End: ident.Sequence(d.word())}
	case TypeBegin:
		m = Begin{Found: d.flags(1) != 0, Point: d.point(), After: ident.Sequence(d.word()), First: ident.Sequence(d.word())}
	case TypeStart:
		f := d.flags(2)
		m = Start{Idle: f&1 != 0, Ranges: f&2 != 0, From: ident.Sequence(d.word()), Window: d.word()}
	case TypeReceiver:
		return Receiver{Header: b}, nil
	case TypeBundle:
		return Bundle{Raw: b}, nil
	case TypeProgress:
		m = Progress{Durable: ident.Sequence(d.word()), Committed: ident.Sequence(d.word()), Position: d.position()}
	case TypeRange:
		r := Range{Receiver: ident.ReceiverNumber(d.four()), Length: d.four(), Offset: d.word(), First: ident.Sequence(d.word())}
		if d.err == nil {
			d.err = r.check()
		}
		m = r
	case TypeLevel:
		m = Level{Position: d.position(), Heard: d.word()}
	case TypeHeartbeat:
		m = Heartbeat{}
	case TypeAck:
		m = Ack{
			Received: ident.Sequence(d.word()), Durable: ident.Sequence(d.word()), Held: d.position(), Applied: d.position(),
		}
	case TypeRefuse:
		m = Refuse{Code: d.code(), Text: strings.ToValidUTF8(string(d.take(len(d.b))), "?")}
	case TypeCredit:
		m = Credit{Bytes: d.word()}
	case TypeEnd:
		m = End{Code: d.code()}
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = errTrailing
	}
	return m, d.err
}

// decoder takes fields from the front of b; after the first failure it yields zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || len(d.b) < n {
		if d.err == nil {
			d.err = errShort
		}
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) word() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) four() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) half() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) flags(known int) byte {
	b := d.take(1)
	if b == nil {
		return 0
	}
	if b[0]>>known != 0 {
		d.err = errFlags
	}
	return b[0]
}

func (d *decoder) code() Code {
	c := Code(d.half())
	if c == 0 && d.err == nil {
		d.err = errCode
	}
	return c
}

func (d *decoder) str() string {
	if n := d.take(1); n != nil {
		return string(d.take(int(n[0])))
	}
	return ""
}

func (d *decoder) point() Point {
	return Point{Sequence: ident.Sequence(d.word()), Chain: ident.Chain(d.word())}
}

func (d *decoder) position() ident.Position {
	return ident.Position{Epoch: ident.Epoch(d.word()), History: ident.History(d.word())}
}

func (d *decoder) hello() Hello {
	m := Hello{Version: d.half(), Free: d.flags(1) != 0}
	m.Epoch, m.Session = ident.Epoch(d.word()), d.word()
	m.Life, m.End = ident.Incarnation(d.word()), ident.Sequence(d.word())
	m.Cluster = ident.ClusterID(d.str())
	m.Journal = ident.JournalID{Group: ident.GroupName(d.str()), Node: ident.NodeID(d.str())}
	m.From, m.To = ident.NodeID(d.str()), ident.NodeID(d.str())
	return m
}

func (d *decoder) offer() Offer {
	f := d.flags(2)
	m := Offer{Last: f&1 != 0, Checked: f&2 != 0}
	n := int(d.half())
	if n > MaxOffer || len(d.b) != 16*n { // the points are there before room is made for them
		if d.err == nil {
			d.err = fmt.Errorf("%d points in %d bytes", n, len(d.b))
		}
		return m
	}
	if n > 0 {
		m.Points = make([]Point, 0, n)
	}
	for range n {
		p := d.point()
		if k := len(m.Points); k > 0 && p.Sequence >= m.Points[k-1].Sequence && d.err == nil {
			d.err = errors.New("points do not descend")
		}
		m.Points = append(m.Points, p)
	}
	return m
}
