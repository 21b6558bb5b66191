package node

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes; in the file a number, or one with a unit: 512KiB, 50MiB, 2GiB.
type ByteSize int64

// ParseByteSize reads what a configuration says.
func ParseByteSize(s string) (ByteSize, error) {
	bad := fmt.Errorf("%q is no number of bytes: want 1048576, 512KiB, 50MiB or 2GiB", s)
	text := strings.TrimSpace(s)
	unit := int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = strings.TrimSpace(rest), 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, bad
	}
	return ByteSize(n * unit), nil
}

// UnmarshalYAML reads the value of a key.
func (b *ByteSize) UnmarshalYAML(raw []byte) (err error) {
	*b, err = ParseByteSize(strings.Trim(strings.TrimSpace(string(raw)), `"'`))
	return err
}
