package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Proves TR-6: the computed number of receivers is what a journal really fills with those messages, for both settings of images.
func TestJournalSize(t *testing.T) {
	for _, images := range []string{"after", "both"} {
		s := sizing{MessageBytes: 500, KeyBytes: 16, FileBytes: 6, PerTransaction: 3, Rate: 20, Outage: 100 * time.Second, ReceiverBytes: 128 << 10}
		want, err := s.room(images)
		if err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(journal.Options{FS: vfs.NewMem(), Dir: "j", ID: ident.JournalID{Group: "orders", Node: "a"}, Cluster: "c", ReceiverBytes: s.ReceiverBytes})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.SetState(journal.Active); err != nil {
			t.Fatal(err)
		}
		value := make([]byte, s.MessageBytes)
		e := entry.Entry{Code: entry.Record, Type: entry.Update, File: "orders", Key: make([]byte, s.KeyBytes), After: &entry.Image{Value: value}, BeforeOmitted: true}
		if images == "both" {
			e.BeforeOmitted, e.Before = false, &entry.Image{Value: value}
		}
		for i := range int(s.Rate * s.Outage.Seconds()) {
			h, err := j.Deposit(journal.Draft{Entries: []entry.Entry{e, e, e}, Session: 1, Before: ident.Position{Epoch: min(1, ident.Epoch(i)), History: ident.History(3 * i)}, FactEpoch: 1})
			if err != nil {
				t.Fatal(err)
			}
			if int(h.Length) != want.BundleBytes {
				t.Fatalf("%s: a bundle of %d bytes, computed %d", images, h.Length, want.BundleBytes)
			}
		}
		if got := int64(len(j.Receivers())); got < want.Receivers-1 || got > want.Receivers+1 {
			t.Errorf("%s: %d receivers, computed %d", images, got, want.Receivers)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Proves TR-6: the command shows both settings, the formula, and says what is missing.
func TestJournalSizeCommand(t *testing.T) {
	run := func(args ...string) (string, int) {
		var out, failed bytes.Buffer
		code := Main(append([]string{"journal", "size"}, args...), strings.NewReader(""), &out, &failed)
		return out.String() + failed.String(), code
	}
	text, code := run("--message-bytes", "500", "--rate", "2000", "--outage", "8h")
	if code != 0 || !strings.Contains(text, "after") || !strings.Contains(text, "both") || !strings.Contains(text, "MAXIMUM_BLOCKS") || !strings.Contains(text, "receivers = rate") {
		t.Fatalf("%d: %s", code, text)
	}
	raw, code := run("--message-bytes", "500", "--rate", "2000", "--outage", "8h", "--images", "both", "-o", "json")
	var out sizes
	if err := json.Unmarshal([]byte(raw), &out); err != nil || code != 0 || len(out.Rooms) != 1 || out.Rooms[0].Images != "both" || out.Rooms[0].Blocks == 0 || out.OutageSeconds != 28800 {
		t.Fatalf("%d %v: %s", code, err, raw)
	}
	for _, args := range [][]string{
		{"--rate", "1", "--outage", "1h"}, {"--message-bytes", "1", "--outage", "1h"}, {"--message-bytes", "1", "--rate", "1"},
		{"--message-bytes", "1", "--rate", "1", "--outage", "1h", "--images", "x"}, {"--message-bytes", "16000000", "--rate", "1", "--outage", "1h", "--per-transaction", "10"},
	} {
		if text, code := run(args...); code != exitUsage {
			t.Errorf("%v: %d: %s", args, code, text)
		}
	}
}

func TestParsePatch(t *testing.T) {
	p, err := parsePatch([]string{"delivery=async", "blocks=64", "receiver_age=1h", "journal_full="})
	raw, _ := json.Marshal(p)
	if err != nil || string(raw) != `{"blocks":64,"delivery":"async","journal_full":null,"receiver_age":"1h"}` {
		t.Fatalf("%s %v", raw, err)
	}
	for _, bad := range [][]string{{"delivery"}, {"=x"}, {"blocks=many"}, {"blocks=1", "blocks=2"}, {"feeds=c"}, {"feeds=:b"}, {"feeds=c:b,c:d"}} {
		if _, err := parsePatch(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	for seconds, want := range map[float64]string{5: "5 s", 65: "1 min", 12000: "3 h 20 min", 100000: "1 d 3 h", 1e8: "1157 d"} {
		if got := longDuration(seconds); got != want {
			t.Errorf("%v: %s, want %s", seconds, got, want)
		}
	}
}
