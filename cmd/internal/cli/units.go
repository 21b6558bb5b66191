package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// humanBytes prints a size in binary units with three digits or so: 512 B, 1.5 KiB, 64 MiB.
func humanBytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < 5 {
		value /= 1024
		unit++
	}
	digits := 1
	if value >= 100 || value == float64(int64(value)) {
		digits = 0
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit]
}

// humanCount groups digits by thousands: 11,023.
func humanCount[T ~int | ~int64 | ~uint64 | ~uint32](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	start := len(s) % 3
	if s[0] == '-' {
		start = (len(s)-1)%3 + 1
	}
	out := s[:start]
	for i := start; i < len(s); i += 3 {
		if out != "" && out != "-" {
			out += ","
		}
		out += s[i : i+3]
	}
	return out
}

// humanDuration prints a duration with three digits or so and its unit: 850 µs, 12.3 ms, 1.25 s, 3m05s, 2h03m.
func humanDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + humanDuration(-d)
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return strconv.FormatInt(d.Nanoseconds(), 10) + " ns"
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < 100*time.Millisecond:
		return strconv.FormatFloat(float64(d)/1e6, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func humanSeconds(s float64) string { return humanDuration(time.Duration(s * float64(time.Second))) }

// humanRate prints events per second.
func humanRate(n int, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return humanCount(int(float64(n)/d.Seconds()+0.5)) + "/s"
}

// humanTime prints a moment in local time, with its zone; the zero time is empty.
func humanTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000 MST")
}

// humanSecond is humanTime without the fractions, for tables.
func humanSecond(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// printable shows bytes on one line of at most limit characters: as they are when they are clean text, else quoted.
func printable(b []byte, limit int) string {
	shown := b
	if len(shown) > 4*limit {
		shown = shown[:4*limit]
	}
	s := string(shown)
	clean := utf8.ValidString(s) || len(shown) < len(b) // a cut in the middle of a rune is not dirt
	for _, r := range s {
		if !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if !clean {
		s = strconv.QuoteToASCII(s)
	}
	if runes := []rune(s); len(runes) > limit || len(shown) < len(b) {
		s = string(runes[:min(limit, len(runes))]) + "…"
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanCount(n) + " " + many
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
