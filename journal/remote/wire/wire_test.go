package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/understudy-ha/understudy/internal/ident"
)

func position(e, h uint64) ident.Position {
	return ident.Position{Epoch: ident.Epoch(e), History: ident.History(h)}
}

// samples holds one frame of each type with its bytes. The bytes are the format: a change here is a change of Version.
// The payloads of Receiver and Bundle are not this package's, so two are made up.
func samples() []struct {
	message Message
	golden  string
} {
	return []struct {
		message Message
		golden  string
	}{
		{
			Hello{
				Version: 1, Cluster: "c1", Journal: ident.JournalID{Group: "orders", Node: "a"}, From: "b", To: "c",
				Epoch: 7, Session: 3, Life: 0x1122334455667788, End: 142, Free: true,
			},
			"3300000001010000070000000000000032922ba64db7940f" + "0100" + "01" + "0700000000000000" + "0300000000000000" +
				"8877665544332211" + "8e00000000000000" + "026331" + "066f7264657273" + "0161" + "0162" + "0163",
		},
		{
			Offer{Points: []Point{{142, 0xdeadbeef}, {139, 1}}, Last: true},
			"23000000020100000700000000000000f4232c4d101a70e4" + "01" + "0200" +
				"8e00000000000000" + "efbeadde00000000" + "8b00000000000000" + "0100000000000000",
		},
		{
			Match{Found: true, Shorter: true, Point: Point{142, 0xdeadbeef}, End: 150},
			"19000000030100000700000000000000a7cde5dfa55ae3d4" + "03" + "8e00000000000000" + "efbeadde00000000" + "9600000000000000",
		},
		{
			Start{From: 143, Window: 1 << 24, Idle: true},
			"11000000040100000700000000000000ddb63050e82c085c" + "01" + "8f00000000000000" + "0000000100000000",
		},
		{
			Receiver{Header: bytes.Repeat([]byte{0xa5}, ReceiverHeaderSize)},
			"00100000050100000700000000000000d333c98a12580ba1" + strings.Repeat("a5", ReceiverHeaderSize),
		},
		{Bundle{Raw: []byte("bundle..")}, "0800000006010000070000000000000032c6f9baaa2513da" + "62756e646c652e2e"},
		{
			Progress{Durable: 142, Committed: 140, Position: position(7, 99)},
			"20000000070100000700000000000000deecad502ab34e50" + "8e00000000000000" + "8c00000000000000" +
				"0700000000000000" + "6300000000000000",
		},
		{Level{Position: position(7, 99), Heard: 12}, "180000000d0100000700000000000000912f2aa97b2f4ce1" + "0700000000000000" + "6300000000000000" + "0c00000000000000"},
		{Heartbeat{}, "000000000801000007000000000000000000000088a8fbc4"},
		{
			Ack{Received: 142, Durable: 141, Held: position(7, 98), Applied: position(6, 97)},
			"30000000090100000700000000000000858b554b1b277c50" + "8e00000000000000" + "8d00000000000000" +
				"0700000000000000" + "6200000000000000" + "0600000000000000" + "6100000000000000",
		},
		{
			Refuse{Code: CodeFenced, Text: "epoch 7 is fenced"},
			"130000000a0100000700000000000000ef371cc9e428d575" + "0500" + hex.EncodeToString([]byte("epoch 7 is fenced")),
		},
		{Credit{Bytes: 65536}, "080000000b010000070000000000000093d918635d86a1c0" + "0000010000000000"},
		{Start{From: 143, Window: 1 << 24, Ranges: true}, "110000000401000007000000000000003cd21db0dfaa164b" + "02" + "8f00000000000000" + "0000000100000000"},
		{
			Range{Receiver: 3, Length: 4096, Offset: 8192, First: 143},
			"180000000e0100000700000000000000b0644ab8beee678f" + "03000000" + "00100000" + "0020000000000000" + "8f00000000000000",
		},
		{
			Begin{Found: true, Point: Point{142, 0xdeadbeef}, After: 200, First: 101},
			"210000000f0100000700000000000000a0476219e462762b" + "01" + "8e00000000000000" + "efbeadde00000000" + "c800000000000000" + "6500000000000000",
		},
		{End{Code: CodeStopping}, "020000000c01000007000000000000008484304b8864bfc8" + "0a00"},
	}
}

func frame(t testing.TB, m Message) []byte {
	t.Helper()
	b, err := AppendFrame(nil, 7, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenBytes(t *testing.T) {
	seen := map[Type]bool{}
	for _, s := range samples() {
		b := frame(t, s.message)
		if got := hex.EncodeToString(b); got != s.golden {
			t.Errorf("%s:\n got %s\nwant %s", s.message.Type(), got, s.golden)
		}
		var streamed bytes.Buffer
		w := NewWriter(&streamed, 7)
		if err := errors.Join(w.Write(s.message), w.Flush()); err != nil || !bytes.Equal(streamed.Bytes(), b) {
			t.Errorf("%s: Writer and AppendFrame differ (%v)", s.message.Type(), err)
		}
		seen[s.message.Type()] = true
	}
	for n := range 256 {
		if _, _, known := Type(n).payloadRange(); known != seen[Type(n)] {
			t.Errorf("%s: has a format %v, has a sample %v", Type(n), known, seen[Type(n)])
		}
	}
}

func TestRoundTrip(t *testing.T) {
	var stream []byte
	raw := bytes.Repeat([]byte{0x5a}, 4096)
	for _, s := range samples() {
		stream = append(stream, frame(t, s.message)...)
		if s.message.Type() == TypeRange {
			stream = append(stream, raw...)
		}
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "bytewise": iotest.OneByteReader(bytes.NewReader(stream))} {
		reader := NewReader(r, MaxFrame)
		for _, s := range samples() {
			f, err := reader.Next()
			if err != nil {
				t.Fatalf("%s: %s: %v", name, s.message.Type(), err)
			}
			if f.Epoch != 7 || !reflect.DeepEqual(f.Message, s.message) {
				t.Errorf("%s: read %+v, wrote %+v", name, f.Message, s.message)
			}
			if s.message.Type() == TypeRange {
				got := make([]byte, len(raw))
				if err := errors.Join(reader.Raw(got[:10]), reader.Raw(got[10:])); err != nil || !bytes.Equal(got, raw) {
					t.Errorf("%s: bytes of the range: %v", name, err)
				}
			}
		}
		if _, err := reader.Next(); err != io.EOF {
			t.Errorf("%s: at the end %v, want io.EOF", name, err)
		}
	}
}

func TestCutAtEveryByte(t *testing.T) {
	for _, s := range samples() {
		b := frame(t, s.message)
		for n := 1; n < len(b); n++ {
			if n > 64 && n < len(b)-64 {
				continue // the inner bytes of the long samples are all alike
			}
			if f, err := NewReader(bytes.NewReader(b[:n]), MaxFrame).Next(); err != io.ErrUnexpectedEOF {
				t.Fatalf("%s cut at %d: %+v, %v", s.message.Type(), n, f, err)
			}
		}
	}
}

func TestFlipEveryBit(t *testing.T) {
	for _, s := range samples() {
		b := frame(t, s.message)
		for bit := range 8 * min(len(b), 128) {
			b[bit/8] ^= 1 << (bit % 8)
			_, err := NewReader(bytes.NewReader(b), MaxFrame).Next()
			var format *FormatError
			if !errors.As(err, &format) {
				t.Fatalf("%s with bit %d flipped: %v", s.message.Type(), bit, err)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// head makes a frame header with a good checksum.
func head(h Header) []byte { return appendHeader(nil, h) }

func TestHostileLengths(t *testing.T) {
	endless := iotest.ErrReader(io.ErrUnexpectedEOF)
	for _, typ := range []Type{0, TypeHello, TypeOffer, TypeMatch, TypeReceiver, TypeBundle, TypeRefuse, TypeEnd, TypeLevel, TypeRange, TypeBegin, 16, 255} {
		for _, length := range []uint32{0, 1, 1 << 10, 1 << 20, MaxBundle, MaxBundle + 1, 1<<32 - 1} {
			h := head(Header{Length: length, Type: typ, Version: Version})
			for _, limit := range []int{MaxBeforeHello, MaxFrame} {
				r := NewReader(io.MultiReader(bytes.NewReader(h), endless), limit)
				if _, err := r.Next(); err == nil {
					t.Errorf("%s of %d bytes within %d: accepted", typ, length, limit)
				}
				if cap(r.buf) > step {
					t.Errorf("%s of %d bytes: %d bytes of room for nothing", typ, length, cap(r.buf))
				}
				if limit == MaxBeforeHello && cap(r.buf) > MaxBeforeHello {
					t.Errorf("%s of %d bytes: %d bytes of room before hello", typ, length, cap(r.buf))
				}
			}
		}
	}
}

func TestLargeBundle(t *testing.T) {
	raw := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	f, err := NewReader(iotest.HalfReader(bytes.NewReader(frame(t, Bundle{raw}))), MaxFrame).Next()
	if err != nil || !bytes.Equal(f.Message.(Bundle).Raw, raw) {
		t.Fatalf("read %d bytes, %v", len(f.Message.(Bundle).Raw), err)
	}
	if _, err := AppendFrame(nil, 1, Bundle{make([]byte, MaxBundle+1)}); err == nil {
		t.Error("a bundle beyond the limit was written")
	}
	if err := NewWriter(io.Discard, 1).Write(Bundle{make([]byte, MaxBundle+1)}); err == nil {
		t.Error("a bundle beyond the limit was written")
	}
}

// The bytes of a range are taken whole before the next frame, and no more than there are.
func TestRangeIsTakenWhole(t *testing.T) {
	stream := append(frame(t, Range{Receiver: 1, Length: 16, Offset: 4096, First: 1}), "sixteen bytes..."...)
	r := NewReader(bytes.NewReader(append(stream, frame(t, Heartbeat{})...)), MaxFrame)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	var format *FormatError
	if _, err := r.Next(); !errors.As(err, &format) {
		t.Errorf("a frame before the bytes of the range: %v", err)
	}
	if err := r.Raw(make([]byte, 17)); !errors.As(err, &format) {
		t.Errorf("more than there is: %v", err)
	}
	if err := r.Raw(make([]byte, 16)); err != nil {
		t.Error(err)
	}
	if f, err := r.Next(); err != nil || f.Message != (Heartbeat{}) {
		t.Errorf("after the range %+v, %v", f, err)
	}
	r = NewReader(bytes.NewReader(stream[:len(stream)-1]), MaxFrame)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := r.Raw(make([]byte, 16)); err != io.ErrUnexpectedEOF {
		t.Errorf("cut range: %v", err)
	}
}

func TestVersions(t *testing.T) {
	other := func(m Message) []byte {
		b := frame(t, m)
		h, err := DecodeHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		h.Version = 9
		return append(head(h), b[HeaderSize:]...)
	}
	var version *VersionError
	_, err := NewReader(bytes.NewReader(other(Heartbeat{})), MaxFrame).Next()
	if !errors.As(err, &version) || version.Want != 9 {
		t.Errorf("frame of version 9: %v", err)
	}
	f, err := NewReader(bytes.NewReader(other(Refuse{CodeVersion, "too old"})), MaxFrame).Next()
	if err != nil || f.Message.(Refuse).Code != CodeVersion {
		t.Errorf("refuse of version 9: %+v, %v", f, err)
	}
}

func TestMalformedPayloads(t *testing.T) {
	for name, c := range map[string]struct {
		typ     Type
		payload string // hex
	}{
		"hello without strings":  {TypeHello, strings.Repeat("00", 35) + "ff" + strings.Repeat("00", 4)},
		"hello with a tail":      {TypeHello, strings.Repeat("00", 41)},
		"hello with a flag":      {TypeHello, "0100" + "02" + strings.Repeat("00", 37)},
		"offer with a count":     {TypeOffer, "00" + "0200" + strings.Repeat("00", 16)},
		"offer of 65535":         {TypeOffer, "00" + "ffff"},
		"offer that ascends":     {TypeOffer, "00" + "0200" + "0100000000000000" + strings.Repeat("00", 8) + "0200000000000000" + strings.Repeat("00", 8)},
		"offer of equals":        {TypeOffer, "00" + "0200" + strings.Repeat("00", 32)},
		"match with a flag":      {TypeMatch, "04" + strings.Repeat("00", 24)},
		"start with a flag":      {TypeStart, "04" + strings.Repeat("00", 16)},
		"refuse without a code":  {TypeRefuse, "0000"},
		"end without a code":     {TypeEnd, "0000"},
		"heartbeat with a byte":  {TypeHeartbeat, "00"},
		"ack that is short":      {TypeAck, strings.Repeat("00", 47)},
		"range of nothing":       {TypeRange, "01000000" + "00000000" + "0010000000000000" + "0100000000000000"},
		"range of odd length":    {TypeRange, "01000000" + "09000000" + "0010000000000000" + "0100000000000000"},
		"range too long":         {TypeRange, "01000000" + "08000001" + "0010000000000000" + "0100000000000000"},
		"range in the header":    {TypeRange, "01000000" + "08000000" + "f80f000000000000" + "0100000000000000"},
		"range at odd offset":    {TypeRange, "01000000" + "08000000" + "0410000000000000" + "0100000000000000"},
		"range far out":          {TypeRange, "01000000" + "08000000" + "0000000000000080" + "0100000000000000"},
		"range of no receiver":   {TypeRange, "00000000" + "08000000" + "0010000000000000" + "0100000000000000"},
		"range of no sequence":   {TypeRange, "01000000" + "08000000" + "0010000000000000" + "0000000000000000"},
		"receiver that is short": {TypeReceiver, strings.Repeat("00", 4095)},
		"empty bundle":           {TypeBundle, ""},
	} {
		payload, err := hex.DecodeString(c.payload)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := decodeMessage(c.typ, payload); err == nil && checkLength(c.typ, len(payload)) == nil {
			t.Errorf("%s: accepted as %+v", name, m)
		}
	}
}

func TestLimitsOfWriting(t *testing.T) {
	long := strings.Repeat("x", 256)
	if _, err := AppendFrame(nil, 1, Hello{Cluster: ident.ClusterID(long)}); err == nil {
		t.Error("a cluster name of 256 bytes was written")
	}
	if _, err := AppendFrame(nil, 1, Offer{Points: make([]Point, MaxOffer+1)}); err == nil {
		t.Error("an offer of 513 points was written")
	}
	if got := frame(t, Refuse{CodeBusy, strings.Repeat("ü", 1000)}); len(got) != HeaderSize+2+MaxText {
		t.Errorf("a long text gave a frame of %d bytes", len(got))
	}
	longest := long[:255]
	b := frame(t, Hello{
		Cluster: ident.ClusterID(longest), Journal: ident.JournalID{Group: ident.GroupName(longest), Node: ident.NodeID(longest)},
		From: ident.NodeID(longest), To: ident.NodeID(longest),
	})
	if len(b) > MaxBeforeHello || len(b) != HeaderSize+maxHello {
		t.Errorf("the longest hello has %d bytes", len(b))
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for c := CodeVersion; c <= CodeRematch; c++ {
		if s := c.String(); s == "" || seen[s] || strings.HasPrefix(s, "code_") {
			t.Errorf("code %d is called %q", c, s)
		} else {
			seen[s] = true
		}
	}
	if got := Code(999).String() + " " + Type(200).String(); got != "code_999 type 200" {
		t.Error(got)
	}
}

// FuzzNext feeds a reader with anything. What it accepts must be written back to the same bytes.
func FuzzNext(f *testing.F) {
	for _, s := range samples() {
		f.Add(frame(f, s.message))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), MaxFrame)
		for rest := b; ; {
			got, err := r.Next()
			if err != nil {
				return
			}
			again, err := AppendFrame(nil, got.Epoch, got.Message)
			if err != nil {
				t.Fatalf("%+v was read but cannot be written: %v", got, err)
			}
			if _, free := got.Message.(Refuse); !free && !bytes.HasPrefix(rest, again) { // Refuse: text and version may differ
				t.Fatalf("read %x, wrote %x", rest, again)
			}
			h, err := DecodeHeader(rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[HeaderSize+int(h.Length):]
			if m, ok := got.Message.(Range); ok {
				raw := make([]byte, min(int(m.Length), len(rest)))
				if r.Raw(raw) != nil || !bytes.Equal(raw, rest[:len(raw)]) {
					t.Fatal("the bytes of a range are not what was sent")
				}
				rest = rest[len(raw):]
			}
		}
	})
}

// FuzzPayload skips the checksums, which random bytes do not meet.
func FuzzPayload(f *testing.F) {
	for _, s := range samples() {
		f.Add(uint8(s.message.Type()), frame(f, s.message)[HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, typ uint8, payload []byte) {
		if _, _, ok := Type(typ).payloadRange(); !ok || checkLength(Type(typ), len(payload)) != nil {
			return
		}
		m, err := decodeMessage(Type(typ), payload)
		if err != nil {
			return
		}
		again, err := m.appendPayload(nil)
		if _, free := m.(Refuse); err != nil || !free && !bytes.Equal(again, payload) {
			t.Fatalf("%+v: read %x, wrote %x, %v", m, payload, again, err)
		}
	})
}
