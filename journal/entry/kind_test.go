package entry

import (
	"bytes"
	"errors"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

func kindHeader() Header {
	return Header{Session: 7, First: 1, Fact: ident.Position{Epoch: 7}, Time: 1_700_000_000_000_000_001}
}

// kindEntries have images with kinds, reserved ones too.
func kindEntries() []Entry {
	image := func(k Kind, v string) *Image {
		return &Image{Position: ident.Position{Epoch: 2, History: 9}, Time: 5, Expiry: 6, Kind: k, Value: []byte(v)}
	}
	return []Entry{
		{Code: Record, Type: Put, File: "f", Key: []byte("k1"), After: image(KindHash, "h")},
		{Code: Record, Type: Update, File: "f", Key: []byte("k1"), Before: image(KindHash, "h"), After: image(KindBytes, "b")},
		{Code: Record, Type: Update, File: "f", Key: []byte("k1"), Before: image(KindBytes, "b"), After: image(255, "")},
		{Code: Record, Type: Delete, File: "f", Key: []byte("k1"), Before: image(255, "")},
	}
}

// A kind stands in the image, whatever it is, and comes back; bytes are what they were before there were kinds.
func TestKinds(t *testing.T) {
	h, e := kindHeader(), kindEntries()
	b, err := Decode(seal(t, h, e).Raw)
	if err != nil || len(b.Raw) != Size(e) {
		t.Fatalf("%d bytes, Size says %d: %v", len(b.Raw), Size(e), err)
	}
	all, err := b.All()
	if err != nil {
		t.Fatal(err)
	}
	for i := range e {
		for _, pair := range [][2]*Image{{e[i].Before, all[i].Before}, {e[i].After, all[i].After}} {
			if (pair[0] == nil) != (pair[1] == nil) || pair[0] != nil && (pair[0].Kind != pair[1].Kind || !bytes.Equal(pair[0].Value, pair[1].Value)) {
				t.Errorf("entry %d: %+v, want %+v", i, pair[1], pair[0])
			}
		}
	}
	again, _, err := Seal(nil, b.Header, all) // deposited again by a node that does not know them
	if err != nil || !bytes.Equal(again, b.Raw) {
		t.Fatalf("sealed again: %v", err)
	}
	if !KindBytes.Known() || !KindHash.Known() || Kind(2).Known() {
		t.Error("which kinds are known")
	}
}

// What announces a kind must have one, and nothing else may announce one.
func TestKindHasOneEncoding(t *testing.T) {
	h, e := kindHeader(), kindEntries()
	raw := seal(t, h, e[:1]).Raw
	at := HeaderSize + entrySize + len("f") + len("k1") + 8 // of the kind, after the expiry
	if raw[at] != byte(KindHash) {
		t.Fatalf("the kind does not stand at %d: % x", at, raw[HeaderSize:])
	}
	decode := func(change func(raw []byte)) error {
		raw := bytes.Clone(raw)
		change(raw)
		forge(raw)
		_, err := Decode(raw)
		return err
	}
	if err := decode(func(raw []byte) { raw[at] = 9 }); err != nil {
		t.Fatalf("a reserved kind: %v", err)
	}
	parts := HeaderSize + 7
	for name, change := range map[string]func([]byte){
		"kind zero written out":       func(raw []byte) { raw[at] = 0 },
		"kind of no before-image":     func(raw []byte) { raw[parts] |= partBeforeKind },
		"kind of no after-image":      func(raw []byte) { raw[parts] = partAfterKind },
		"a part nobody knows":         func(raw []byte) { raw[parts] |= 64 },
		"as long as without its kind": func(raw []byte) { raw[parts] &^= partAfterKind },
	} {
		if err := decode(change); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
