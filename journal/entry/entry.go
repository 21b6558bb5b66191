package entry

import (
	"github.com/understudy-ha/understudy/internal/ident"
)

// Code says what kind of thing an entry tells.
type Code byte

// Codes, part of the format.
const (
	Record      Code = 'R' // a change of one record
	Transaction Code = 'C' // a mark of a transaction
	Journal     Code = 'J' // an event of the journal itself
	User        Code = 'U' // deposited by an application or by Understudy on behalf of its users
)

func (c Code) String() string { return string(rune(c)) }

// Type refines a Code: two capital letters or digits.
type Type [2]byte

func (t Type) String() string { return string(t[:]) }

// The types Understudy itself deposits, part of the format. Applications choose their own types under code U.
var (
	Put    = Type{'P', 'T'} // R: a record that was not there
	Update = Type{'U', 'P'} // R: a record that was there
	Delete = Type{'D', 'L'} // R: a record goes

	Previous = Type{'P', 'R'} // J: first entry of a receiver, Data names the previous one
	Next     = Type{'N', 'R'} // J: last entry of a receiver, Data names the next one
	IPL      = Type{'I', 'N'} // J: the node started
	BackOut  = Type{'B', 'O'} // J: changes were backed out
	Check    = Type{'C', 'K'} // J: sync-check point; a fact

	Switch    = Type{'S', 'W'} // U: an epoch begins
	Mark      = Type{'M', 'K'} // U: marked position
	Heartbeat = Type{'H', 'B'} // U: canary
)

// Limits of the format. Decoding refuses what lies beyond them.
const (
	MaxKey    = 4 << 10
	MaxValue  = 16 << 20 // of an image's value and of Data
	MaxFile   = 255
	MaxBundle = 64 << 20 // header and padding included
)

// Image is the content of a record with its attributes.
type Image struct {
	Position ident.Position // of the fact that made it
	Time     int64          // when that was, unix nanoseconds
	Expiry   int64          // unix nanoseconds; 0: none
	Kind     Kind           // what Value is
	Value    []byte
}

// Kind says what a record's value is, part of the format. Whoever stores and ships records keeps every kind as it is.
type Kind byte

// Kinds, part of the format. The others are reserved.
const (
	KindBytes Kind = 0 // what it means is the application's affair
	KindHash  Kind = 1 // named fields, as the Redis interface encodes them
)

// Known tells whether this version knows the kind: then it may be written.
func (k Kind) Known() bool { return k <= KindHash }

// Entry is one journaled fact or event. Slices of a decoded entry point into the bundle and must not be modified.
type Entry struct {
	Sequence    ident.Sequence // set on decoding
	Position    ident.Position // set on decoding; zero when the entry is no fact
	Time        int64          // unix nanoseconds; on sealing 0 means the time of the bundle
	Code        Code
	Type        Type
	Transaction ident.Sequence // decoded: first sequence of its transaction (its own when alone). See Seal for what it means there
	File        string
	Key         []byte // nil when empty

	Before        *Image // complete, with the attributes it had; nil when there was no record or images left it out
	BeforeOmitted bool   // there was a record, but its image was left out
	After         *Image // only Expiry, Kind and Value are encoded: Position and Time are those of the entry
	Data          []byte // payload of J, C and U; nil when empty
}

// Fact tells whether e takes a history position: R, C, U and J CK do.
func (e *Entry) Fact() bool { return fact(e.Code, e.Type) }

func fact(c Code, t Type) bool { return c != Journal || t == Check }
