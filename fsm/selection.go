package fsm

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/understudy-ha/understudy/internal/ident"
)

// KeyBound is a key at which a range begins or ends; "" is open. As text it is the key itself, or `hex:` and its bytes in
// hexadecimal digits when it is not valid UTF-8 or would begin with that.
type KeyBound string

const (
	hexBound = "hex:"
	maxBound = 4 << 10 // bytes of a key
)

// MarshalText writes the bound such that UnmarshalText reads the same bytes.
func (b KeyBound) MarshalText() ([]byte, error) {
	if !utf8.ValidString(string(b)) || strings.HasPrefix(string(b), hexBound) {
		return []byte(hexBound + hex.EncodeToString([]byte(b))), nil
	}
	return []byte(b), nil
}

// UnmarshalText reads a key, or hexadecimal digits after `hex:`.
func (b *KeyBound) UnmarshalText(text []byte) error {
	digits, isHex := strings.CutPrefix(string(text), hexBound)
	if !isHex {
		*b = KeyBound(text)
		return nil
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("%q: want an even number of hexadecimal digits after %q", text, hexBound)
	}
	*b = KeyBound(raw)
	return nil
}

func (b KeyBound) String() string {
	text, _ := b.MarshalText() // never fails
	return string(text)
}

// KeyRange are the keys from From on, up to and without To. The zero value is all keys.
type KeyRange struct {
	From KeyBound `json:"from,omitempty" yaml:"from"`
	To   KeyBound `json:"to,omitempty" yaml:"to"`
}

// All tells whether the range holds every key.
func (r KeyRange) All() bool { return r == KeyRange{} }

// Contains tells whether a key lies in the range.
func (r KeyRange) Contains(key []byte) bool {
	return string(key) >= string(r.From) && (r.To == "" || string(key) < string(r.To))
}

// Overlaps tells whether a key can lie in both ranges.
func (r KeyRange) Overlaps(o KeyRange) bool {
	return (r.To == "" || o.From < r.To) && (o.To == "" || r.From < o.To)
}

func (r KeyRange) String() string {
	switch {
	case r.All():
		return "all keys"
	case r.To == "":
		return fmt.Sprintf("keys from %s", r.From)
	case r.From == "":
		return fmt.Sprintf("keys below %s", r.To)
	}
	return fmt.Sprintf("keys from %s, below %s", r.From, r.To)
}

func (r KeyRange) check() error {
	switch {
	case len(r.From) > maxBound || len(r.To) > maxBound:
		return fmt.Errorf("keys: a bound has more than %d bytes, as no key has", maxBound)
	case r.To != "" && r.From >= r.To:
		return fmt.Errorf("keys: from %q is not below to %q: no key lies between", r.From, r.To)
	}
	return nil
}

// excluding begins a pattern whose files are not selected, whatever the others say.
const excluding = "!"

// unselected begin the names of files that a pattern selects only when it begins with the same letters: what is kept on one
// node, and system accounts, are not shipped because somebody wrote "*".
var unselected = []string{"local.", "system."}

// apart returns the prefix of the above that a name or a pattern begins with, or "".
func apart(name string) string {
	for _, p := range unselected {
		if strings.HasPrefix(name, p) {
			return p
		}
	}
	return ""
}

// SelectsFile tells whether a pattern of the group matches the file and no excluding one does.
func (s *GroupSpec) SelectsFile(file string) bool {
	selected := false
	for _, p := range s.Files {
		if not, is := strings.CutPrefix(p, excluding); is {
			if globMatches(not, file) {
				return false
			}
			continue
		}
		if !selected && globMatches(p, file) {
			prefix := apart(file)
			selected = prefix == "" || strings.HasPrefix(p, prefix)
		}
	}
	return selected
}

// Selects tells whether the group's selection holds a record. Another group with the same record in its selection may own it.
func (s *GroupSpec) Selects(file string, key []byte) bool {
	return s.Keys.Contains(key) && s.SelectsFile(file)
}

// TakesAll tells whether one of the patterns is "*": such a group owns what no narrower one selects.
func (s *GroupSpec) TakesAll() bool { return slices.Contains(s.Files, "*") }

// checkFiles checks the patterns of a normalized spec.
func (s *GroupSpec) checkFiles() (errs []error) {
	selecting := 0
	for _, f := range s.Files {
		p, not := strings.CutPrefix(f, excluding)
		if !not {
			selecting++
		}
		if _, err := path.Match(p, ""); err != nil || p == "" {
			errs = append(errs, fmt.Errorf("files: %q is not a pattern", f))
		}
	}
	switch {
	case len(s.Files) == 0:
		errs = append(errs, errors.New("files: want at least one pattern, such as \"*\""))
	case selecting == 0:
		errs = append(errs, fmt.Errorf("files: %q only exclude: want at least one that selects, such as \"*\"", s.Files))
	}
	return errs
}

// CheckSelection checks files and keys of a spec, the empty ones too.
func (s GroupSpec) CheckSelection() error {
	s = s.Normalize()
	return errors.Join(append(s.checkFiles(), s.Keys.check())...)
}

// sameSelection tells whether two specs select the same records by the same words.
func sameSelection(a, b *GroupSpec) bool {
	return a.Name == b.Name && a.Order == b.Order && slices.Equal(a.Files, b.Files) && a.Keys == b.Keys
}

// Meet tells whether a record may be in the selections of both groups, and by which patterns. It may say so although there can
// be none, never the other way round.
func Meet(a, b *GroupSpec) (why string, may bool) {
	if !a.Keys.Overlaps(b.Keys) {
		return "", false
	}
	for _, p := range a.Files {
		for _, q := range b.Files {
			switch {
			case strings.HasPrefix(p, excluding), strings.HasPrefix(q, excluding), apart(p) != apart(q):
			case a.excludes(p) || a.excludes(q) || b.excludes(p) || b.excludes(q):
			case globsMeet(p, q):
				return fmt.Sprintf("%q of group %s and %q of group %s may match the same file", p, a.Name, q, b.Name), true
			}
		}
	}
	return "", false
}

// excludes tells whether every file that a pattern matches is surely excluded.
func (s *GroupSpec) excludes(pattern string) bool {
	for _, f := range s.Files {
		not, is := strings.CutPrefix(f, excluding)
		if !is {
			continue
		}
		if not == pattern {
			return true
		}
		if head, star := strings.CutSuffix(not, "*"); star && !strings.ContainsAny(head, `*?[\`) && strings.HasPrefix(pattern, head) {
			return true
		}
	}
	return false
}

// Ambiguous tells why it is not clear which of two groups owns a record: both select it, and neither or both of them take all.
func Ambiguous(a, b *GroupSpec) (why string, is bool) {
	if a.TakesAll() != b.TakesAll() {
		return "", false
	}
	return Meet(a, b)
}

// Rank is the place of a group in the order of starts and failovers; lower is earlier. The group "system" is before all others
// unless it has an order of its own.
func (s *GroupSpec) Rank() int {
	if s.Name == systemGroup && s.Order == 0 {
		return math.MinInt
	}
	return s.Order
}

const systemGroup ident.GroupName = "system"

// BySpec compares two groups by their place in the order of starts.
func BySpec(a, b *GroupSpec) int {
	return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a.Name, b.Name))
}

// InOrder returns the groups in the order in which they start.
func (s *State) InOrder() []*Group {
	groups := make([]*Group, 0, len(s.Groups))
	for _, g := range s.Groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *Group) int { return BySpec(&a.Spec, &b.Spec) })
	return groups
}

// Selecting returns the specs of all groups and of those that are planned, in the order in which they are asked for a record:
// narrower ones before those that take all, then by order and name. The first one that selects a record owns it.
func (s *State) Selecting() []*GroupSpec {
	specs := make([]*GroupSpec, 0, len(s.Groups)+len(s.Planned))
	for _, g := range s.Groups {
		specs = append(specs, &g.Spec)
	}
	for i := range s.Planned {
		specs = append(specs, &s.Planned[i].Spec)
	}
	slices.SortFunc(specs, func(a, b *GroupSpec) int {
		if x, y := a.TakesAll(), b.TakesAll(); x != y {
			if y {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	return specs
}
