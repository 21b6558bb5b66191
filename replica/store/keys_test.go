package store

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-ha/understudy/journal/entry"
)

// TestGolden holds the bytes of the format. They never change: what version 1 wrote, and what version 2 has added.
func TestGolden(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{string(formatKey), "\x01format"},
		{string(positionKey("g\x00x")), "\x02g\x00\xffx\x00\x01"},
		{string(newGroup(nil, "g").appendFile(nil, "f")), "\x03g\x00\x01f\x00\x01"},
		{hex.EncodeToString(appendPosition(nil, at(3, 0x1234))), "0300000000000000" + "3412000000000000"},
		{hex.EncodeToString(appendRecord(nil, &entry.Image{Position: at(1, 2), Time: -1, Expiry: 3, Value: []byte("v")})),
			"0100000000000000" + "0200000000000000" + "ffffffffffffffff" + "0300000000000000" + "76"},
		{hex.EncodeToString(appendRecord(nil, &entry.Image{Position: at(1, 2), Time: -1, Expiry: 3, Kind: entry.KindHash, Value: []byte("v")})),
			"0100000000000000" + "0200000000000080" + "ffffffffffffffff" + "0300000000000000" + "01" + "76"},
		{string(newGroup(nil, "g").expiryKey(nil, 1, []byte("\x03g\x00\x01f\x00\x01k"))), "\x04g\x00\x01\x80\x00\x00\x00\x00\x00\x00\x01f\x00\x01k"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	name := rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 0x7f, 'a'}), 0, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b, rest := name.Draw(t, "a"), name.Draw(t, "b"), name.Draw(t, "rest")
		x, y := appendName(nil, a), appendName(nil, b)
		if got, left, err := cutName(append(bytes.Clone(x), rest...)); got != a || string(left) != rest || err != nil {
			t.Fatalf("cut %q, %q, %v", got, left, err)
		}
		if bytes.Compare(x, y) != strings.Compare(a, b) {
			t.Fatalf("%q and %q sort as %x and %x", a, b, x, y)
		}
		if a != b && bytes.HasPrefix(x, y) {
			t.Fatalf("%x is a prefix of %x", y, x)
		}
		for i := range x {
			if _, _, err := cutName(x[:i]); err == nil {
				t.Fatalf("%x was cut from %x", x[:i], x)
			}
		}
	})
	if _, _, err := cutName([]byte("a\x00\x02")); err == nil {
		t.Error("a zero byte followed by 02 was read")
	}
}

func TestAfter(t *testing.T) {
	for in, want := range map[string]string{"a": "b", "a\xff": "b", "a\x00": "a\x01"} {
		if got := after([]byte(in)); string(got) != want {
			t.Errorf("after(%q) = %q", in, got)
		}
	}
	if after([]byte("\xff\xff")) != nil || after(nil) != nil {
		t.Error("there is nothing after ff ff")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x02g\x00\x01"), appendPosition(nil, at(1, 2)))
	f.Add([]byte("\x02"), appendRecord(nil, &entry.Image{Value: []byte("v")}))
	f.Add([]byte("\x02"), appendRecord(nil, &entry.Image{Kind: entry.KindHash, Value: []byte("v")}))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if r, err := decodeRecord(value); err == nil && !bytes.Equal(appendRecord(nil, &r), value) {
			t.Fatalf("record %x decodes to %+v", value, r)
		}
		if len(key) == 0 {
			return
		}
		if g, p, err := decodePositionRow(key, value); err == nil && (!bytes.Equal(positionKey(g)[1:], key[1:]) || !bytes.Equal(appendPosition(nil, p), value)) {
			t.Fatalf("row %x %x decodes to %q %s", key, value, g, p)
		}
	})
}
