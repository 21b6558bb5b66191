package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StreamLine is one line of a stream of entries: an entry, or exactly one of the others.
type StreamLine struct {
	Entry
	Heartbeat *Heartbeat `json:"heartbeat,omitempty"`
	Rewound   *Rewound   `json:"rewound,omitempty"`
	End       *StreamEnd `json:"end,omitempty"`
}

// Heartbeat is a sign of life, every few seconds while nothing else is said.
type Heartbeat struct {
	Time  time.Time `json:"time"`
	After string    `json:"after"` // all entries up to here were given, or are not selected
}

// Rewound says that unconfirmed entries that were given have been removed from the journal.
type Rewound struct {
	After uint64 `json:"after"` // the last one that stays
}

// StreamEnd is the last line of a stream.
type StreamEnd struct {
	After string `json:"after"`           // where to go on
	Error *Error `json:"error,omitempty"` // why; none when the time is over that was asked for. Its Position, when set, is where this node can go on
}

// Receivers is what EntryFilter.Receiver names. The zero value means all that are held.
type Receivers struct {
	First, Last uint32 // both included
	Attached    bool
}

// ParseReceivers reads 3, 3-7, attached or chain.
func ParseReceivers(s string) (Receivers, error) {
	switch s {
	case "", "chain":
		return Receivers{}, nil
	case "attached":
		return Receivers{Attached: true}, nil
	}
	low, high, found := strings.Cut(s, "-")
	if !found {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 32)
	last, err2 := strconv.ParseUint(high, 10, 32)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return Receivers{}, &Error{Code: CodeInvalid, Detail: fmt.Sprintf("receiver %q", s), Remedy: "want a number such as 3, a range such as 3-7, attached or chain"}
	}
	return Receivers{First: uint32(first), Last: uint32(last)}, nil
}
