package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was written with a file that must never change; rows of zeros are left out.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	var s strings.Builder
	squeezed := false
	for _, line := range strings.SplitAfter(hex.Dump(b), "\n") {
		if zero := strings.Contains(line, strings.Repeat("00 ", 8)+" "+strings.Repeat("00 ", 8)); zero {
			if !squeezed {
				s.WriteString("*\n")
			}
			squeezed = true
			continue
		}
		squeezed = false
		s.WriteString(line)
	}
	fmt.Fprintf(&s, "%d bytes\n", len(b))
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, []byte(s.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if s.String() != string(want) {
		t.Errorf("%s: the format has changed:\n%s", path, s.String())
	}
}

func TestGoldenReceiver(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	var gate sync.RWMutex // held so that the marks in the bundles do not depend on the writer's speed
	o.Host.Failpoint = func(string) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}
	j := active(t, o)
	deposit(t, j, 3, 2, 5)
	flush(t, j)
	gate.Lock()
	_, err := j.ChangeReceiver(3)
	must(t, err)
	deposit(t, j, 4, 1, 3)
	gate.Unlock()
	must(t, j.Close())
	golden(t, "receiver.hex", readFile(t, fs, receiverPath(2)))
}

func testHeader() ReceiverHeader {
	return ReceiverHeader{
		Cluster: "0f8fad5b-d9cb-469f-a165-70867728950e", ID: ident.JournalID{Group: "orders", Node: "a"}, Number: 7,
		First: 1000, Start: pos(3, 900), Chain: 0x1122334455667788, Created: time.Unix(1_700_000_000, 5),
		Run: Run{Epoch: 3, From: 801, To: 900, Before: pos(2, 800), First: 850, Last: 990},
	}
}

func TestGoldenHeader(t *testing.T) {
	h := testHeader()
	raw, err := h.encode()
	must(t, err)
	golden(t, "header.hex", raw)
	got, err := DecodeReceiverHeader(raw)
	if err != nil || got != h {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range raw {
		if _, err := DecodeReceiverHeader(raw[:n]); err == nil {
			t.Fatalf("cut at %d", n)
		}
		flipped := bytes.Clone(raw)
		flipped[n] ^= 0x20
		if _, err := DecodeReceiverHeader(flipped); err == nil {
			t.Fatalf("flipped at %d", n)
		}
	}
	h.Cluster = ident.ClusterID(strings.Repeat("x", 256))
	if _, err := h.encode(); err == nil {
		t.Error("a name that does not fit was taken")
	}
}

func TestGoldenState(t *testing.T) {
	r := record{state: Standby, authored: true, torn: true, rewinding: true, rewind: 19, mark: 19, count: 5}
	b := r.encode()
	golden(t, "state.hex", b)
	got, err := decodeRecord(b)
	if err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
	// The mark is written in turns; when one write is torn the other mark stands.
	next := r
	next.mark, next.count = 40, 6
	slot, at := next.slot()
	torn := bytes.Clone(b)
	copy(torn[at:], slot[:9])
	if got, err := decodeRecord(torn); err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
	copy(torn[at:], slot)
	if got, err := decodeRecord(torn); err != nil || got != next {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range stateSector {
		flipped := bytes.Clone(b)
		flipped[n] ^= 1
		if _, err := decodeRecord(flipped); err == nil {
			t.Fatalf("flipped at %d", n)
		}
	}
}

// Earlier releases wrote the mark alone into a slot; the first sector says the rest.
func TestStateOfEarlierReleases(t *testing.T) {
	r := record{state: Standby, authored: true, torn: true, rewinding: true, rewind: 19, mark: 19, count: 5}
	b := r.encode()
	clear(b[2*stateSector+20:]) // behind the mark
	golden(t, "state-bare.hex", b)
	if got, err := decodeRecord(b); err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
}

// A change is in place, and whichever sectors of it reach the disk before a crash, the record is the one before or the one after.
func TestStateIsWrittenInPlace(t *testing.T) {
	mem := vfs.NewMem()
	d := disk{fs: mem, dir: testDir}
	must(t, mem.MkdirAll(testDir, 0o755))
	r := record{state: Active, authored: true, mark: 7}
	must(t, d.save(&r))
	for round := range 4 {
		before, old := r, readFile(t, mem, testDir+"/"+stateName)
		r.rewinding, r.rewind, r.mark = round%2 == 0, ident.Sequence(round), ident.Sequence(7+round)
		file := &sectorFile{disk: bytes.Clone(old), cache: old}
		after := r
		must(t, after.overwrite(file))
		for i, b := range file.crashes {
			got, err := decodeRecord(b)
			must(t, err)
			was, is := got, got
			was.count, was.stale, is.count, is.stale = before.count, before.stale, after.count, after.stale
			if was != before && is != after {
				t.Fatalf("round %d, crash %d: %+v, neither %+v nor %+v", round, i, got, before, after)
			}
			// The next start writes all of it.
			crashed := vfs.NewMem()
			must(t, crashed.MkdirAll(testDir, 0o755))
			overwrite(t, crashed, testDir+"/"+stateName, 0, b)
			if got.stale {
				must(t, disk{fs: crashed, dir: testDir}.save(&got))
				again, err := readRecord(crashed, testDir)
				if err != nil || again != got || again.stale {
					t.Fatalf("%+v, want %+v: %v", again, got, err)
				}
			}
		}
		must(t, d.save(&r))
		now := readFile(t, mem, testDir+"/"+stateName)
		if got, err := decodeRecord(now); err != nil || got != r {
			t.Fatalf("%+v, want %+v: %v", got, r, err)
		}
		for slot := range 2 { // rot in one slot does not bring the record before back
			rotten := bytes.Clone(now)
			rotten[stateSector*(1+slot)+24] ^= 1
			got, err := decodeRecord(rotten)
			must(t, err)
			if got.count = r.count; got != r {
				t.Fatalf("%+v, want %+v", got, r)
			}
		}
	}
}

// sectorFile notes every image that a crash can leave of what is written to it, sector by sector.
type sectorFile struct {
	vfs.File
	disk, cache []byte
	crashes     [][]byte
}

func (f *sectorFile) WriteAt(b []byte, at int64) (int, error) {
	n := copy(f.cache[at:], b)
	f.crash()
	return n, nil
}

func (f *sectorFile) SyncData() error {
	f.crash()
	f.disk = bytes.Clone(f.cache)
	f.crash()
	return nil
}

func (f *sectorFile) crash() {
	for some := range 8 {
		b := bytes.Clone(f.disk)
		for s := range 3 {
			if some>>s&1 != 0 {
				copy(b[s*stateSector:][:stateSector], f.cache[s*stateSector:])
			}
		}
		f.crashes = append(f.crashes, b)
	}
}

// FuzzReceiverHeader: what is decoded encodes to the same bytes.
func FuzzReceiverHeader(f *testing.F) {
	raw, err := testHeader().encode()
	must(f, err)
	f.Add(raw[:1200])
	f.Fuzz(func(t *testing.T, front []byte) {
		b := make([]byte, HeaderSize)
		copy(b, front)
		seal(b)
		h, err := DecodeReceiverHeader(b)
		if err != nil {
			return
		}
		again, err := h.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%+v: %v\n%x\n%x", h, err, b[:1100], again[:1100])
		}
	})
}

// seal makes the checksum of a header fit.
func seal(b []byte) {
	copy(b, receiverMagic)
	binary.LittleEndian.PutUint32(b[headerCRCAt:], crc32.Checksum(b[:headerCRCAt], castagnoli))
}
