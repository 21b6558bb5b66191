package entry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

var update = flag.Bool("update", false, "write the golden files anew")

// story is a bundle with one entry of every kind. Its golden bytes must never change.
func story() (Header, []Entry) {
	h := Header{
		Flags: FlagLocal, Session: 7, First: 142,
		Before: ident.Position{Epoch: 3, History: 41}, Fact: ident.Position{Epoch: 4},
		Origin: 20, Time: 1_700_000_000_000_000_001, Chain: 0x1122334455667788, Durable: 141, Committed: 139,
	}
	image := func(v string) *Image {
		return &Image{Position: ident.Position{Epoch: 2, History: 9}, Time: 5, Expiry: 6, Value: []byte(v)}
	}
	return h, []Entry{
		{Code: Record, Type: Put, File: "orders", Key: []byte("k1"), After: &Image{Expiry: 77, Value: []byte("new")}},
		{Code: Record, Type: Update, Transaction: 5, File: "orders", Key: []byte("k2"), Before: image("old"), After: &Image{Value: []byte{}}},
		{Code: Record, Type: Update, Transaction: 5, File: "orders", Key: []byte("k3"), BeforeOmitted: true, After: &Image{Value: []byte("x")}},
		{Code: Record, Type: Delete, Transaction: 5, File: "orders", Key: []byte("k4"), Before: image("")},
		{Code: Record, Type: Delete, Transaction: 6, File: "orders", Key: []byte("k5")},
		{Code: Journal, Type: IPL, Time: 99},
		{Code: Journal, Type: Check, Data: []byte("digest")},
		{Code: Transaction, Type: Type{'C', 'M'}, Data: []byte{0}},
		{Code: User, Type: Switch, Data: []byte(`{"last":25}`)},
	}
}

// echoed is the header of an echo: at 3.41 in its own journal's history, it repeats what stands at 9.50 and after.
func echoed() Header {
	return Header{
		Flags: FlagEcho | FlagLocal, Session: 9, First: 7, Before: ident.Position{Epoch: 3, History: 41}, Fact: ident.Position{Epoch: 9, History: 50},
		Time: 1_700_000_000_000_000_001,
	}
}

func TestEcho(t *testing.T) {
	_, e := story()
	b, err := Decode(seal(t, echoed(), e[:5]).Raw)
	if err != nil {
		t.Fatal(err)
	}
	if b.Facts != 0 || b.After() != b.Before || b.EchoEnd() != (ident.Position{Epoch: 9, History: 54}) || !b.Echo() {
		t.Fatalf("%+v", b.Header)
	}
	all, err := b.All()
	if err != nil || len(all) != 5 || all[0].Position != (ident.Position{Epoch: 9, History: 50}) || all[4].Position != b.EchoEnd() || all[4].Sequence != 11 {
		t.Fatalf("%+v %v", all, err)
	}
	if _, _, err := Seal(nil, echoed(), e); !errors.Is(err, ErrInvalid) {
		t.Fatalf("an echo of something that is no fact: %v", err)
	}
	for _, h := range []Header{{Flags: FlagEcho, First: 1}, {Flags: FlagEcho, First: 1, Fact: ident.Position{Epoch: 1}}} {
		if _, _, err := Seal(nil, h, e[:1]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%+v: %v", h, err)
		}
	}
}

func seal(t testing.TB, h Header, e []Entry) Bundle {
	t.Helper()
	raw, h, err := Seal(nil, h, e)
	if err != nil {
		t.Fatal(err)
	}
	return Bundle{Header: h, Raw: raw}
}

func TestGolden(t *testing.T) {
	h, e := story()
	bundle := seal(t, h, e)
	smallest := seal(t, Header{First: 1}, []Entry{{Code: Journal, Type: Previous}})
	echo := seal(t, echoed(), e[:5])
	for name, b := range map[string]Bundle{"story": bundle, "smallest": smallest, "echo": echo, "kinds": seal(t, kindHeader(), kindEntries())} {
		path := filepath.Join("testdata", name+".hex")
		got := fmt.Sprintf("%schain after: %s\n", hex.Dump(b.Raw), NextChain(b.Chain, b.Raw))
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the format has changed:\n%s", path, got)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	h, e := story()
	b := seal(t, h, e)
	if len(b.Raw) != Size(e) || len(b.Raw)%8 != 0 {
		t.Fatalf("bundle of %d bytes, Size says %d", len(b.Raw), Size(e))
	}
	d, err := Decode(b.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if d.Header != b.Header {
		t.Fatalf("header\n%+v, want\n%+v", d.Header, b.Header)
	}
	if d.Facts != 8 || d.Last() != 150 || d.Fact != (ident.Position{Epoch: 4, History: 42}) || d.After() != (ident.Position{Epoch: 4, History: 49}) {
		t.Fatalf("facts %d, last %s, fact %s, after %s", d.Facts, d.Last(), d.Fact, d.After())
	}
	got, err := d.All()
	if err != nil {
		t.Fatal(err)
	}
	position, firsts := d.Fact, []ident.Sequence{142, 143, 143, 143, 146, 147, 148, 149, 150}
	for i := range e {
		want := e[i]
		want.Sequence = 142 + ident.Sequence(i)
		want.Transaction = firsts[i]
		if want.Time == 0 {
			want.Time = h.Time
		}
		if want.Fact() {
			want.Position = position
			position.History++
		}
		if want.After != nil {
			want.After = &Image{Position: want.Position, Time: want.Time, Expiry: want.After.Expiry, Value: want.After.Value}
		}
		if !reflect.DeepEqual(got[i], want) {
			t.Errorf("entry %d:\n%+v, want\n%+v", i, got[i], want)
		}
	}
	// Decoded entries go into another journal as they are.
	h.Before, h.First, h.Origin = b.Before, 1001, b.First
	h.Durable, h.Committed = 1000, 1000
	again, err := Decode(seal(t, h, got).Raw)
	if err != nil {
		t.Fatal(err)
	}
	moved, _ := again.All()
	for i := range moved {
		if moved[i].Position != got[i].Position || moved[i].Sequence-moved[i].Transaction != got[i].Sequence-got[i].Transaction {
			t.Errorf("re-journaled entry %d: %+v", i, moved[i])
		}
	}
}

// A bundle cut at any byte is refused as cut, and one with any byte changed is refused.
func TestCutAndFlippedAtEveryByte(t *testing.T) {
	h, e := story()
	raw := seal(t, h, e).Raw
	for n := range raw {
		_, err := Decode(raw[:n])
		var c *CorruptionError
		if !errors.As(err, &c) || c.Offset > n {
			t.Fatalf("cut at %d: %v", n, err)
		}
		flipped := bytes.Clone(raw)
		flipped[n] ^= 1 << (n % 8)
		if _, err := Decode(flipped); !errors.As(err, &c) {
			t.Fatalf("flipped at %d: %v", n, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(raw), 0)); err == nil {
		t.Fatal("a byte too many was taken")
	}
	if _, err := DecodeHeader(raw[:HeaderSize]); err != nil {
		t.Fatalf("header alone: %v", err)
	}
}

func TestZeroIsInvalid(t *testing.T) {
	if _, err := DecodeHeader(make([]byte, 4096)); !errors.Is(err, ErrMagic) {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	image := &Image{Value: []byte("v")}
	for name, c := range map[string]struct {
		e    Entry
		want error
	}{
		"key":                      {Entry{Code: Record, Type: Put, Key: make([]byte, MaxKey+1), After: image}, ErrTooLarge},
		"value":                    {Entry{Code: Record, Type: Put, After: &Image{Value: make([]byte, MaxValue+1)}}, ErrTooLarge},
		"file":                     {Entry{Code: Record, Type: Put, File: strings.Repeat("f", MaxFile+1), After: image}, ErrTooLarge},
		"data":                     {Entry{Code: User, Type: Mark, Data: make([]byte, MaxValue+1)}, ErrTooLarge},
		"code":                     {Entry{Code: 'X', Type: Put}, ErrInvalid},
		"type of R":                {Entry{Code: Record, Type: Type{'X', 'X'}, After: image}, ErrInvalid},
		"type of J":                {Entry{Code: Journal, Type: Type{'X', 'X'}}, ErrInvalid},
		"type of U":                {Entry{Code: User, Type: Type{'a', 0}}, ErrInvalid},
		"put without after-image":  {Entry{Code: Record, Type: Put}, ErrInvalid},
		"delete with after-image":  {Entry{Code: Record, Type: Delete, After: image}, ErrInvalid},
		"before-image and omitted": {Entry{Code: Record, Type: Update, Before: image, BeforeOmitted: true, After: image}, ErrInvalid},
		"data in R":                {Entry{Code: Record, Type: Put, After: image, Data: []byte("d")}, ErrInvalid},
		"image in U":               {Entry{Code: User, Type: Mark, After: image}, ErrInvalid},
	} {
		h := Header{First: 1, Fact: ident.Position{Epoch: 1}}
		dst := []byte("before")
		got, _, err := Seal(dst, h, []Entry{c.e})
		if !errors.Is(err, c.want) || string(got) != "before" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	largest := Entry{Code: Record, Type: Put, File: strings.Repeat("f", MaxFile), Key: make([]byte, MaxKey), After: &Image{Value: make([]byte, MaxValue)}}
	h := Header{First: 1, Fact: ident.Position{Epoch: 1}}
	if _, err := Decode(seal(t, h, []Entry{largest, largest, largest}).Raw); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Seal(nil, h, []Entry{largest, largest, largest, largest}); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	for name, h := range map[string]Header{
		"no first":           {Fact: ident.Position{Epoch: 1}},
		"no fact epoch":      {First: 1},
		"epoch falls":        {First: 1, Before: ident.Position{Epoch: 2, History: 1}, Fact: ident.Position{Epoch: 1}},
		"half a position":    {First: 1, Before: ident.Position{Epoch: 1}, Fact: ident.Position{Epoch: 1}},
		"durable too high":   {First: 5, Durable: 5, Fact: ident.Position{Epoch: 1}},
		"committed too high": {First: 5, Committed: 5, Fact: ident.Position{Epoch: 1}},
		"unknown flag":       {First: 5, Flags: FlagCompressed << 1, Fact: ident.Position{Epoch: 1}},
	} {
		if _, _, err := Seal(nil, h, []Entry{{Code: User, Type: Mark}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Seal(nil, Header{First: 1}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty bundle: %v", err)
	}
}

func TestSealDoesNotAllocate(t *testing.T) {
	h, e := story()
	dst := make([]byte, 0, Size(e))
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Seal(dst, h, e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	raw := seal(t, h, e).Raw
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Decode(raw); err != nil {
			t.Fatal(err)
		}
		NextChain(1, raw)
	}); n != 0 {
		t.Errorf("decoding: %v allocations", n)
	}
}

// FuzzDecode: whatever is decoded without error encodes to the same bytes, and nothing panics. The checksums are made to fit,
// so that the fuzzer gets behind them.
func FuzzDecode(f *testing.F) {
	h, e := story()
	f.Add(seal(f, h, e).Raw)
	f.Add(seal(f, Header{First: 1}, []Entry{{Code: Journal, Type: Previous}}).Raw)
	f.Add(seal(f, kindHeader(), kindEntries()).Raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		Decode(raw)
		if len(raw) < HeaderSize {
			return
		}
		raw = bytes.Clone(raw)
		forge(raw)
		b, err := Decode(raw)
		if err != nil {
			return
		}
		entries, err := b.All()
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			if entries[i].Time == 0 && b.Time != 0 {
				return // zero stands for the bundle's time when sealed
			}
		}
		if b.Flags&FlagCompressed != 0 { // there are many ways to compress
			checkExpanded(t, b, entries)
			return
		}
		again, h, err := Seal(nil, b.Header, entries)
		if err != nil || h != b.Header || !bytes.Equal(again, raw) {
			t.Fatalf("%v\n%x\n%x", err, raw, again)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	entries := make([]Entry, 100)
	for i := range entries {
		entries[i] = Entry{Code: Record, Type: Put, File: "orders", Key: []byte("customer-0001"), After: &Image{Value: make([]byte, 100)}}
	}
	h := Header{First: 1, Fact: ident.Position{Epoch: 1}}
	dst := make([]byte, 0, Size(entries))
	b.SetBytes(int64(cap(dst)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Seal(dst, h, entries); err != nil {
			b.Fatal(err)
		}
	}
}
