package client

import "fmt"

// KeyRange are the keys from From on, up to and without To; an empty bound is open. A bound is the key itself, or `hex:` and its
// bytes in hexadecimal digits when it is not valid UTF-8.
type KeyRange struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

func (r KeyRange) String() string {
	switch {
	case r == KeyRange{}:
		return "all"
	case r.To == "":
		return fmt.Sprintf("from %s", r.From)
	case r.From == "":
		return fmt.Sprintf("below %s", r.To)
	}
	return fmt.Sprintf("from %s, below %s", r.From, r.To)
}

// RecordPart is what one group gave to a page of a file that several groups own.
type RecordPart struct {
	Group   string   `json:"group"`
	Keys    KeyRange `json:"keys,omitzero"` // of the file, that the group owns here
	Node    string   `json:"node"`          // whose copy was read
	Applied string   `json:"applied"`       // position of that copy
	Age     float64  `json:"age_seconds"`
}

// PlannedGroup is a group that will be created: its records are kept for it, and nobody takes writes of them yet.
type PlannedGroup struct {
	Spec GroupSpec `json:"spec"`
	Asks []string  `json:"asks"` // groups whose primaries have yet to say that they hold none of its records; none: it waits for its preferred node
}
