package entry

import (
	"fmt"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

// benchEntries are changes of records of 256 bytes.
func benchEntries(n int) []Entry {
	all := make([]Entry, n)
	for i := range all {
		all[i] = Entry{Code: Record, Type: Put, File: "bench", Key: fmt.Appendf(nil, "key%06d", i), After: &Image{Value: make([]byte, 256)}}
	}
	return all
}

// BenchmarkEncode encodes bundles of 100 entries with checksums and chain, into a buffer that is there.
func BenchmarkEncode(b *testing.B) {
	entries := benchEntries(100)
	buffer := make([]byte, 0, Size(entries))
	var chain ident.Chain
	b.ReportAllocs()
	b.SetBytes(int64(cap(buffer)))
	for b.Loop() {
		raw, h, err := Seal(buffer, Header{Session: 1, First: 1, Time: 1, Fact: ident.Position{Epoch: 1}, Chain: chain}, entries)
		if err != nil {
			b.Fatal(err)
		}
		chain = NextChain(h.Chain, raw)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/entry")
}

// BenchmarkDecode checks everything about such bundles.
func BenchmarkDecode(b *testing.B) {
	raw, _, err := Seal(nil, Header{Session: 1, First: 1, Time: 1, Fact: ident.Position{Epoch: 1}}, benchEntries(100))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
		NextChain(0, raw)
	}
}
