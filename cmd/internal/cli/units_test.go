package cli

import (
	"strings"
	"testing"
	"time"
)

func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10 << 10: "10 KiB", 123456: "121 KiB",
		64 << 20: "64 MiB", 3<<30 + 1<<29: "3.5 GiB", 1 << 62: "4 EiB",
	} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestHumanCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 11023: "11,023", 1234567: "1,234,567", -5: "-5", -1234: "-1,234", -123456: "-123,456"} {
		if got := humanCount(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestHumanDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 120: "120 ns", 850 * time.Microsecond: "850 µs", 12345 * time.Microsecond: "12.3 ms", 250 * time.Millisecond: "250 ms",
		1250 * time.Millisecond: "1.25 s", 12340 * time.Millisecond: "12.3 s", 185 * time.Second: "3m05s", 2*time.Hour + 3*time.Minute: "2h03m",
		-2 * time.Second: "-2.00 s",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: %q, want %q", time.Duration(d), got, want)
		}
	}
}

func TestHumanRate(t *testing.T) {
	if got := humanRate(1000, 500*time.Millisecond); got != "2,000/s" {
		t.Error(got)
	}
	if got := humanRate(1000, 0); got != "-" {
		t.Error(got)
	}
}

func TestPrintable(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  string
	}{
		{"three apples", 20, "three apples"},
		{"three apples", 5, "three…"},
		{"two\nlines", 20, `"two\nlines"`},
		{"\x00\xff", 20, `"\x00\xff"`},
		{"", 5, ""},
		{"grün", 3, "grü…"},
		{strings.Repeat("é", 1000), 3, "ééé…"},
		{"\x1b[2Jclear", 40, `"\x1b[2Jclear"`}, // a record must not drive the operator's terminal
	} {
		if got := printable([]byte(tc.in), tc.limit); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestTableAligns(t *testing.T) {
	var b strings.Builder
	x := newTable("NODE", ">COUNT", "STATE")
	x.add("a", humanCount(12345), "grün")
	x.add("bb", 7, "")
	x.write(&b)
	want := "NODE   COUNT  STATE\n" +
		"a     12,345  grün\n" +
		"bb         7  -\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestPairsLeaveOutEmptyValues(t *testing.T) {
	var p pairs
	p.add("name", "%s", "a")
	p.add("nothing", "")
	p.add("longer name", "%d", 2)
	var b strings.Builder
	p.write(&b, "  ")
	if want := "  name         a\n  longer name  2\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"": "''", "a/b-c": "a/b-c", "two words": "'two words'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                     {},
		"+10m":                 now.Add(10 * time.Minute),
		"13:30":                time.Date(2026, 3, 4, 13, 30, 0, 0, time.UTC),
		"11:30":                time.Date(2026, 3, 5, 11, 30, 0, 0, time.UTC), // over today: tomorrow
		"2026-03-04T12:00:01Z": now.Add(time.Second),
		"2026-03-05 02:00":     time.Date(2026, 3, 5, 2, 0, 0, 0, time.UTC),
	} {
		if got, err := parseMoment(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "+x", "+-5m", "25:00", "2026-03-04T11:00:00Z"} {
		if got, err := parseMoment(in, now); exitCode(err) != exitUsage {
			t.Errorf("%q: %v, %v, want a usage error", in, got, err)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "2026-03-04": time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := parsePast("since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	if _, err := parsePast("since", "soon", now); exitCode(err) != exitUsage {
		t.Errorf("got %v", err)
	}
}
