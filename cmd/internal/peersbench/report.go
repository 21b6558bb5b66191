package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// median is the measurement in the middle by its rate; of two the slower one.
func median(all []rate) rate {
	s := slices.SortedFunc(slices.Values(all), func(a, b rate) int { return cmp.Compare(a.perSecond, b.perSecond) })
	return s[(len(s)-1)/2]
}

func printHead(out io.Writer) {
	fmt.Fprintf(out, "%-5s %8s %14s %10s %10s %14s %10s %10s %7s\n", "test", "pipeline", "Understudy/s", "p50 ms", "p99 ms", "Redis/s", "p50 ms", "p99 ms", "ratio")
}

func printRow(out io.Writer, test string, depth int, ours, theirs rate) {
	ms := func(d time.Duration) string {
		if d == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
	}
	ratio := "-"
	if theirs.perSecond > 0 {
		ratio = fmt.Sprintf("%.2f", ours.perSecond/theirs.perSecond)
	}
	fmt.Fprintf(out, "%-5s %8d %14.0f %10s %10s %14.0f %10s %10s %7s\n", strings.ToUpper(test), depth, ours.perSecond, ms(ours.p50), ms(ours.p99), theirs.perSecond, ms(theirs.p50), ms(theirs.p99), ratio)
}
