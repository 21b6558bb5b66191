package archive

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-ha/understudy/internal/ident"
)

// suffix of all objects, part of the format.
const suffix = ".rcv.zst"

// Name says what an object holds: one detached receiver.
type Name struct {
	Cluster     ident.ClusterID
	Journal     ident.JournalID
	Number      ident.ReceiverNumber
	First, Last ident.Sequence
	Chain       ident.Chain // after Last
}

// String returns the key of the object.
func (n Name) String() string {
	return fmt.Sprintf("%s%s-%020d-%020d-%s%s", prefixOf(n.Cluster, n.Journal), n.Number, uint64(n.First), uint64(n.Last), n.Chain, suffix)
}

func prefixOf(c ident.ClusterID, j ident.JournalID) string {
	return fmt.Sprintf("%s/%s/%s/", c, j.Group, j.Node)
}

// ParseName reads what String writes. ok is false for anything else, which is no object of an archive.
func ParseName(key string) (n Name, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return Name{}, false
	}
	stem, found := strings.CutSuffix(parts[3], suffix)
	fields := strings.Split(stem, "-")
	if !found || len(fields) != 4 {
		return Name{}, false
	}
	number, err1 := strconv.ParseUint(fields[0], 10, 32)
	first, err2 := strconv.ParseUint(fields[1], 10, 64)
	last, err3 := strconv.ParseUint(fields[2], 10, 64)
	chain, err4 := strconv.ParseUint(fields[3], 16, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || number == 0 || first == 0 || last < first {
		return Name{}, false
	}
	n = Name{
		Cluster: ident.ClusterID(parts[0]), Journal: ident.JournalID{Group: ident.GroupName(parts[1]), Node: ident.NodeID(parts[2])},
		Number: ident.ReceiverNumber(number), First: ident.Sequence(first), Last: ident.Sequence(last), Chain: ident.Chain(chain),
	}
	return n, n.String() == key
}

// order is by journal, then by number; of one number the longer one comes last.
func order(a, b Name) int {
	switch {
	case a.Journal.Node != b.Journal.Node:
		return strings.Compare(string(a.Journal.Node), string(b.Journal.Node))
	case a.Number != b.Number:
		return int(int64(a.Number) - int64(b.Number))
	}
	return strings.Compare(a.String(), b.String())
}

// MissingError names the receiver that a chain lacks.
type MissingError struct {
	Journal ident.JournalID
	Number  ident.ReceiverNumber
	Last    ident.Sequence // where it ends
	Chain   ident.Chain
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("receiver %s of journal %s, which ends at sequence %s with chain %s, is not in the archive", e.Number, e.Journal, e.Last, e.Chain)
}

// Way returns the receivers from the one that holds sequence from up to the one that ends with end, oldest first: each continues
// the one before. names are those of one journal in any order; start returns the chain at the beginning of a receiver, and is
// asked only where more than one receiver could stand before it. *MissingError names what is not there.
func Way(names []Name, end Name, from ident.Sequence, start func(Name) (ident.Chain, error)) ([]Name, error) {
	at := make(map[ident.ReceiverNumber][]Name)
	for _, n := range names {
		at[n.Number] = append(at[n.Number], n)
	}
	var way []Name
	want, known := end, true // known: the chain at the end of want is
	for want.Last >= from && want.Last > 0 {
		fits := slices.DeleteFunc(slices.Clone(at[want.Number]), func(n Name) bool {
			return n.Last != want.Last || known && n.Chain != want.Chain
		})
		if len(fits) > 1 { // not known, so something was found before
			chain, err := start(way[len(way)-1])
			if err != nil {
				return nil, err
			}
			fits = slices.DeleteFunc(fits, func(n Name) bool { return n.Chain != chain })
			want.Chain = chain
		}
		if len(fits) == 0 {
			return nil, &MissingError{Journal: end.Journal, Number: want.Number, Last: want.Last, Chain: want.Chain}
		}
		found := fits[0]
		way = append(way, found)
		want, known = Name{Journal: end.Journal, Number: found.Number - 1, Last: found.First - 1}, false
	}
	slices.Reverse(way)
	return way, nil
}
