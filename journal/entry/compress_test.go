package entry

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/understudy-ha/understudy/internal/ident"
)

// rows are n changes that look like each other.
func rows(n int) []Entry {
	var all []Entry
	for range n {
		all = append(all, Entry{
			Code: Record, Type: Put, File: "orders", Key: []byte("customer-0001"), Time: 7,
			After: &Image{Value: []byte(strings.Repeat("the same words ", 8))},
		})
	}
	return all
}

func packed(t testing.TB, h Header, e []Entry) Bundle {
	t.Helper()
	h.Flags |= FlagCompressed
	return seal(t, h, e)
}

// checkExpanded seals the entries of a compressed bundle again and compares what comes out.
func checkExpanded(t testing.TB, b Bundle, entries []Entry) {
	t.Helper()
	again, err := Decode(seal(t, b.Header, entries).Raw)
	if err != nil {
		t.Fatal(err)
	}
	have, err := again.All()
	if err != nil || !reflect.DeepEqual(have, entries) || again.Facts != b.Facts || again.Count != b.Count {
		t.Fatalf("sealed again: %+v, want %+v (%v)", have, entries, err)
	}
}

// A compressed bundle says the same as a plain one, in fewer bytes.
func TestCompressed(t *testing.T) {
	h := Header{Session: 7, First: 20, Before: ident.Position{Epoch: 3, History: 41}, Fact: ident.Position{Epoch: 4}, Time: 7, Chain: 5}
	entries := rows(50)
	plain, small := seal(t, h, entries), packed(t, h, entries)
	if small.Flags != FlagCompressed || small.Length >= plain.Length/4 || int(small.Length) != len(small.Raw) {
		t.Fatalf("%d bytes became %d, flags %d", plain.Length, small.Length, small.Flags)
	}
	want, err := plain.All()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Decode(small.Raw)
	if err != nil {
		t.Fatal(err)
	}
	have, err := b.All()
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Fatalf("%v\n have %+v\n want %+v", err, have, want)
	}
	if b.Facts != 50 || b.After() != plain.After() || b.Last() != plain.Last() {
		t.Errorf("header %+v, want as %+v", b.Header, plain.Header)
	}
	if n := b.Expanded(); n != Size(entries)-HeaderSize && padded(HeaderSize+n) != Size(entries) {
		t.Errorf("%d bytes expanded", n)
	}
}

// The bytes of a compressed bundle, once written, are read for ever, whatever a later compressor makes of the same entries.
func TestGoldenCompressed(t *testing.T) {
	h := Header{Session: 7, First: 20, Before: ident.Position{Epoch: 3, History: 41}, Fact: ident.Position{Epoch: 4}, Time: 7, Chain: 5}
	const path = "testdata/compressed.hex"
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(packed(t, h, rows(5)).Raw)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dump, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for _, line := range strings.Split(string(dump), "\n") {
		if len(line) > 58 {
			b, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, b...)
		}
	}
	b, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	want, err := seal(t, h, rows(5)).All()
	if err != nil {
		t.Fatal(err)
	}
	have, err := b.All()
	if err != nil || !reflect.DeepEqual(have, want) || b.Flags != FlagCompressed {
		t.Fatalf("%v: %+v", err, have)
	}
}

// What does not shrink, and what ties receivers together, stays plain: the bytes are those of a bundle that nobody wanted compressed.
func TestStaysPlain(t *testing.T) {
	noise := make([]byte, 2000)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	many := make([]Entry, 3000) // would take less than a byte each
	for i := range many {
		many[i] = Entry{Code: Record, Type: Delete, File: "f", Key: []byte("k"), Time: 1}
	}
	for name, entries := range map[string][]Entry{
		"small":    {{Code: User, Type: Mark}},
		"noise":    {{Code: Record, Type: Put, File: "f", Key: []byte("k"), After: &Image{Value: noise}}},
		"previous": {{Code: Journal, Type: Previous, Data: make([]byte, 4000)}},
		"next":     {{Code: Journal, Type: Next, Data: make([]byte, 4000)}},
		"many":     many,
	} {
		h := Header{First: 1, Fact: ident.Position{Epoch: 1}}
		plain, asked := seal(t, h, entries), packed(t, h, entries)
		if asked.Flags != 0 || !bytes.Equal(plain.Raw, asked.Raw) {
			t.Errorf("%s: flags %d, %d bytes, want %d", name, asked.Flags, len(asked.Raw), len(plain.Raw))
		}
	}
}

// compressedBy makes a bundle of h whose entries are what frame expands to, as it says.
func compressedBy(h Header, expanded uint32, frame []byte) []byte {
	raw := make([]byte, padded(HeaderSize+packSize+len(frame)))
	h.Flags, h.Length = FlagCompressed, uint32(len(raw))
	binary.LittleEndian.PutUint32(raw[HeaderSize:], expanded)
	binary.LittleEndian.PutUint32(raw[HeaderSize+4:], uint32(len(frame)))
	copy(raw[HeaderSize+packSize:], frame)
	h.encode(raw)
	return raw
}

// Bundles with sound checksums that claim what is not so are refused, and cost no memory for what they only claim.
func TestHostileCompression(t *testing.T) {
	body := func(e []Entry) []byte { // without padding
		size := 0
		for i := range e {
			size += e[i].size()
		}
		return seal(t, Header{First: 1, Fact: ident.Position{Epoch: 1}}, e).Raw[HeaderSize : HeaderSize+size]
	}
	plain := body(rows(50))
	exact := len(plain)
	frame := pack.EncodeAll(plain, nil)
	h := Header{First: 1, Count: 50, Facts: 50, Fact: ident.Position{Epoch: 1, History: 1}}
	if _, err := Decode(compressedBy(h, uint32(exact), frame)); err != nil {
		t.Fatal(err)
	}
	bomb := pack.EncodeAll(make([]byte, MaxBundle*2), nil)
	stream := new(bytes.Buffer)
	w, err := zstd.NewWriter(stream) // a stream does not say how long it will be
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(plain[:exact/2])
	_ = w.Flush()
	_, _ = w.Write(plain[exact/2:])
	_ = w.Close()
	link := rows(50)
	link[10] = Entry{Code: Journal, Type: Next, Time: 7, Data: []byte("000002")}
	linked := body(link)
	less := h
	less.Count, less.Facts = 49, 49
	for name, raw := range map[string][]byte{
		"more than it is":        compressedBy(h, uint32(exact+8), frame),
		"less than it is":        compressedBy(h, uint32(exact-8), frame),
		"64 MiB of nothing":      compressedBy(h, MaxBundle-HeaderSize, frame),
		"more than any bundle":   compressedBy(h, MaxBundle, frame),
		"4 GiB":                  compressedBy(h, 1<<32-1, frame),
		"a bomb":                 compressedBy(h, MaxBundle-HeaderSize, bomb),
		"two frames":             compressedBy(h, uint32(exact), append(bytes.Clone(frame), frame...)),
		"a frame of open length": compressedBy(h, uint32(exact), stream.Bytes()),
		"no frame":               compressedBy(h, uint32(exact), bytes.Repeat([]byte{7}, 200)),
		"a frame cut off":        compressedBy(h, uint32(exact), frame[:len(frame)-9]),
		"fewer entries":          compressedBy(less, uint32(exact), frame),
		"J NR":                   compressedBy(Header{First: 1, Count: 50, Facts: 49, Fact: ident.Position{Epoch: 1, History: 1}}, uint32(len(linked)), pack.EncodeAll(linked, nil)),
		"longer than plain":      compressedBy(h, uint32(exact), append(bytes.Clone(frame), make([]byte, exact)...)),
	} {
		var broken *CorruptionError
		if _, err := Decode(raw); !errors.As(err, &broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	forged := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, MaxBundle-HeaderSize) // the frame claims it, too
	claim := compressedBy(h, MaxBundle-HeaderSize, append(forged, make([]byte, 300)...))
	if n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Decode(claim)
		}
	}).AllocedBytesPerOp(); n > 4<<10 {
		t.Errorf("a claim of 64 MiB costs %d bytes", n)
	}
}

// Every bit of a compressed bundle counts.
func TestEveryBitOfACompressedBundle(t *testing.T) {
	raw := packed(t, Header{First: 1, Fact: ident.Position{Epoch: 1}}, rows(20)).Raw
	for bit := range 8 * len(raw) {
		b := bytes.Clone(raw)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(b); err == nil {
			t.Fatalf("bit %d flipped is not noticed", bit)
		}
		forge(b) // with checksums that fit it may be another bundle, but nothing may panic
		if d, err := Decode(b); err == nil {
			if _, err := d.All(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range raw {
		if _, err := Decode(raw[:n]); err == nil {
			t.Fatalf("cut at %d", n)
		}
	}
}

// FuzzCompressed expands anything, behind checksums that fit.
func FuzzCompressed(f *testing.F) {
	raw := packed(f, Header{First: 1, Fact: ident.Position{Epoch: 1}}, rows(20)).Raw
	f.Add(uint32(20), binary.LittleEndian.Uint32(raw[HeaderSize:]), raw[HeaderSize+packSize:])
	f.Fuzz(func(t *testing.T, count, expanded uint32, frame []byte) {
		if len(frame) > 1<<16 {
			return
		}
		h := Header{First: 1, Count: count, Facts: count, Fact: ident.Position{Epoch: 1, History: 1}}
		b, err := Decode(compressedBy(h, expanded, frame))
		if err != nil {
			return
		}
		entries, err := b.All()
		if err != nil || len(entries) != int(count) {
			t.Fatal(len(entries), err)
		}
		for i := range entries {
			if entries[i].Time == 0 {
				return // zero stands for the bundle's time when sealed
			}
		}
		checkExpanded(t, b, entries)
	})
}
