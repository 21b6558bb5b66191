package fsm

import (
	"path"
	"strings"
	"unicode/utf8"
)

// glob is one piece of a pattern: a star, any one character, a class, or one character.
type glob struct {
	star, any bool
	class     string // "[…]"
	char      rune
}

// cutGlob returns the first piece of a valid pattern and the rest.
func cutGlob(p string) (glob, string) {
	switch p[0] {
	case '*':
		return glob{star: true}, strings.TrimLeft(p, "*")
	case '?':
		return glob{any: true}, p[1:]
	case '[':
		end := 1
		for end < len(p) && (p[end] != ']' || end == 1) {
			if p[end] == '\\' {
				end++
			}
			end++
		}
		if end < len(p) {
			return glob{class: p[:end+1]}, p[end+1:]
		}
	case '\\':
		p = p[1:]
	}
	r, n := utf8.DecodeRuneInString(p)
	return glob{char: r}, p[n:]
}

// takes tells whether a piece that is no star matches a character.
func (g glob) takes(r rune) bool {
	switch {
	case g.any:
		return true
	case g.class != "":
		ok, err := path.Match(g.class, string(r))
		return err == nil && ok
	}
	return g.char == r
}

// globMatches is path.Match but for slashes, which are characters like any other: a file is no path.
func globMatches(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	retry, at := "", -1 // after the last star: what follows it, and where in name it was tried
	p, i := pattern, 0
	for {
		if p == "" {
			if i == len(name) {
				return true
			}
		} else if g, rest := cutGlob(p); g.star {
			if rest == "" {
				return true
			}
			retry, at = rest, i
			p = rest
			continue
		} else if i < len(name) {
			r, n := utf8.DecodeRuneInString(name[i:])
			if g.takes(r) {
				p, i = rest, i+n
				continue
			}
		}
		if at < 0 || at >= len(name) {
			return false
		}
		_, n := utf8.DecodeRuneInString(name[at:])
		at += n
		p, i = retry, at
	}
}

// globsMeet tells whether there may be a name that both patterns match. Of two classes it assumes that they share a character. It takes a step
// for each pair of their pieces.
func globsMeet(a, b string) bool {
	x, y := cutGlobs(a), cutGlobs(b)
	below, row := make([]bool, len(y)+1), make([]bool, len(y)+1) // at j: whether x from i on (below: i+1) and y from j on meet
	for i := len(x); i >= 0; i-- {
		for j := len(y); j >= 0; j-- {
			switch {
			case i < len(x) && x[i].star:
				row[j] = below[j] || j < len(y) && row[j+1]
			case j < len(y) && y[j].star:
				row[j] = row[j+1] || i < len(x) && below[j]
			case i < len(x) && j < len(y):
				row[j] = below[j+1] && x[i].shares(y[j])
			default:
				row[j] = i == len(x) && j == len(y)
			}
		}
		below, row = row, below
	}
	return below[0]
}

func cutGlobs(p string) (all []glob) {
	for p != "" {
		var g glob
		g, p = cutGlob(p)
		all = append(all, g)
	}
	return all
}

// shares tells whether a character may be taken by both.
func (g glob) shares(o glob) bool {
	switch {
	case g.any || o.any, g.class != "" && o.class != "":
		return true
	case g.class != "":
		return g.takes(o.char)
	}
	return o.takes(g.char)
}
