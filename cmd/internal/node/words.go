package node

import (
	"fmt"
	"strings"
)

// list writes names for people: a, b, c.
func list[T ~string](names []T) string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = fmt.Sprint(n)
	}
	return strings.Join(all, ", ")
}
