package node

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Scrub configures the check of the journals in the background.
type Scrub struct {
	Rate  Rate          `yaml:"rate"`  // how fast journals are read; 0 switches the check off
	Every time.Duration `yaml:"every"` // a pass over all journals begins so often
}

// Rate is a number of bytes per second, written such as 8MiB/s.
type Rate int64

// UnmarshalText reads 8MiB/s, 512KiB/s, 1000000 or 0.
func (r *Rate) UnmarshalText(b []byte) error {
	text := strings.TrimSuffix(strings.TrimSpace(string(b)), "/s")
	unit := int64(1)
	for _, u := range []struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}} {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = number, u.size
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 || n > (1<<40)/unit {
		return fmt.Errorf("%q is not a rate: want bytes per second such as 8MiB/s, or 0", b)
	}
	*r = Rate(n * unit)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) {
	switch {
	case r == 0:
		return []byte("0"), nil
	case r%(1<<20) == 0:
		return fmt.Appendf(nil, "%dMiB/s", r>>20), nil
	case r%(1<<10) == 0:
		return fmt.Appendf(nil, "%dKiB/s", r>>10), nil
	}
	return fmt.Appendf(nil, "%dB/s", int64(r)), nil
}

func (s Scrub) check() (p []error) {
	if s.Rate != 0 && s.Rate < 64<<10 {
		p = append(p, fmt.Errorf("scrub.rate: %d: want at least 64KiB/s, or 0 to switch the check off", s.Rate))
	}
	if s.Every < time.Second {
		p = append(p, fmt.Errorf("scrub.every: %s: want at least 1s", s.Every))
	}
	return p
}
