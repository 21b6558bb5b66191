package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// Proves BX-7: of the receivers that two nodes hold, the first that does not begin alike is named, and whether they agree later: then
// one of them is rotten there.
func TestDifferenceOfChains(t *testing.T) {
	list := func(from ident.ReceiverNumber, chains ...ident.Chain) (here []journal.ReceiverInfo, there []client.Receiver) {
		for i, c := range chains {
			n := from + ident.ReceiverNumber(i)
			here = append(here, journal.ReceiverInfo{Number: n, First: ident.Sequence(n * 10), Chain: c})
			there = append(there, client.Receiver{Number: uint32(n), First: uint64(n * 10), Chain: c.String()})
		}
		return here, there
	}
	mine, _ := list(3, 30, 40, 50, 60)
	for name, c := range map[string]struct {
		from   ident.ReceiverNumber
		chains []ident.Chain
		want   divergence
	}{
		"the same":            {3, []ident.Chain{30, 40, 50, 60}, divergence{}},
		"shorter":             {3, []ident.Chain{30, 40}, divergence{}},
		"longer":              {3, []ident.Chain{30, 40, 50, 60, 70}, divergence{}},
		"begins earlier":      {1, []ident.Chain{1, 2, 30, 40, 50}, divergence{}},
		"begins later":        {5, []ident.Chain{50, 60}, divergence{}},
		"nothing in common":   {9, []ident.Chain{1}, divergence{}},
		"another end":         {3, []ident.Chain{30, 40, 51, 61}, divergence{number: 5}},
		"all others":          {3, []ident.Chain{31, 41, 51, 61}, divergence{number: 3}},
		"one in the middle":   {3, []ident.Chain{30, 41, 50, 60}, divergence{number: 4, middle: true}},
		"some, then the same": {3, []ident.Chain{31, 41, 51, 60}, divergence{number: 3, middle: true}},
	} {
		_, far := list(c.from, c.chains...)
		if have := difference(mine, far); have != c.want {
			t.Errorf("%s: %+v, want %+v", name, have, c.want)
		}
	}
	_, far := list(3, 30, 40, 50, 60)
	far[1].First++
	if have := difference(mine, far); have != (divergence{number: 4, middle: true}) {
		t.Errorf("another sequence: %+v", have)
	}
	far[1].First = 0 // empty
	if have := difference(mine, far); have != (divergence{}) {
		t.Errorf("an empty receiver: %+v", have)
	}
}

func TestScrubRates(t *testing.T) {
	for text, want := range map[string]Rate{"0": 0, "8MiB/s": 8 << 20, "512KiB/s": 512 << 10, "1GiB": 1 << 30, "100000": 100000, " 3 MB/s ": 3e6, "65536B/s": 65536} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q: %d, %v", text, r, err)
		}
		var again Rate
		if b, err := r.MarshalText(); err != nil || again.UnmarshalText(b) != nil || again != r {
			t.Errorf("%q is written as %s and read as %d, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "fast", "-1", "8MiB/h", "99999999GiB/s"} {
		if err := new(Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	for _, s := range []Scrub{{Rate: 1000, Every: time.Hour}, {Rate: 1 << 20}} {
		if len(s.check()) != 1 {
			t.Errorf("%+v: %v", s, s.check())
		}
	}
}

// The configuration takes rates as text and as numbers.
func TestScrubInTheConfiguration(t *testing.T) {
	for text, want := range map[string]Scrub{
		"scrub:\n  rate: 0\n":                     {Every: 24 * time.Hour},
		"scrub:\n  rate: 64KiB/s\n  every: 10m\n": {Rate: 64 << 10, Every: 10 * time.Minute},
		"scrub:\n  every: 1h\n":                   {Rate: 8 << 20, Every: time.Hour},
		"log_level: info\n":                       {Rate: 8 << 20, Every: 24 * time.Hour},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte("node: a\ncluster: x\ndata: d\nbootstrap: true\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig(path, func(string) (string, bool) { return "", false })
		if err != nil || c.Scrub != want {
			t.Errorf("%q: %+v, %v", text, c.Scrub, err)
		}
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("node: a\ncluster: x\ndata: d\nbootstrap: true\nscrub:\n  rate: 10B/s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(path, func(string) (string, bool) { return "", false }); err == nil {
		t.Error("a rate below the least was taken")
	}
	env := map[string]string{"UNDERSTUDY_SCRUB_RATE": "1MiB/s", "UNDERSTUDY_SCRUB_EVERY": "2h"}
	if err := os.WriteFile(path, []byte("node: a\ncluster: x\ndata: d\nbootstrap: true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := readConfig(path, func(k string) (string, bool) { v, ok := env[k]; return v, ok }); err != nil || c.Scrub != (Scrub{Rate: 1 << 20, Every: 2 * time.Hour}) {
		t.Errorf("from the environment: %+v, %v", c.Scrub, err)
	}
}
