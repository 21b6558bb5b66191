package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows in aligned columns, at most as wide as the screen where that is possible. A heading that begins with ">" makes
// its column right-aligned, for numbers; in one that begins with "~" cells may be cut. Else the last column is broken into lines.
type table struct {
	indent string
	head   []string
	right  []bool
	cut    []bool
	whole  bool // each row is one line, however wide: for what is searched like a log
	rows   [][]string
}

func newTable(head ...string) *table {
	t := &table{right: make([]bool, len(head)), cut: make([]bool, len(head))}
	for i, h := range head {
		h, t.right[i] = strings.CutPrefix(h, ">")
		h, t.cut[i] = strings.CutPrefix(h, "~")
		t.head = append(t.head, h)
	}
	return t
}

// add appends a row. Empty cells print as "-", so that columns can be counted by eye and by awk.
func (t *table) add(cells ...any) {
	row := make([]string, len(t.head))
	for i := range row {
		row[i] = "-"
		if i < len(cells) {
			if s := fmt.Sprint(cells[i]); s != "" {
				row[i] = s
			}
		}
	}
	t.rows = append(t.rows, row)
}

// How few columns one that is cut, and the last one when it is broken into lines, may be left.
const (
	narrowest     = 16
	narrowestLast = 10
)

// widths are those of the columns; the second one is what the last column may take, 0 for as much as it likes.
func (t *table) widths() (width []int, last int) {
	width = make([]int, len(t.head))
	total := utf8.RuneCountInString(t.indent) + 2*(len(t.head)-1)
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, n := range width {
		total += n
	}
	for i := len(width) - 1; i >= 0 && total > columns; i-- {
		if t.cut[i] {
			less := max(0, min(total-columns, width[i]-narrowest))
			width[i], total = width[i]-less, total-less
		}
	}
	if end := len(width) - 1; total > columns && !t.right[end] && !t.cut[end] && !t.whole {
		last = max(narrowestLast, width[end]-(total-columns))
	}
	return width, last
}

func (t *table) write(w io.Writer) {
	width, last := t.widths()
	for _, row := range append([][]string{t.head}, t.rows...) {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			if cell := []rune(cell); len(cell) > width[i] {
				row[i] = string(cell[:width[i]-1]) + "…"
			}
			cell = row[i]
			if last > 0 && i == len(row)-1 {
				below := strings.Repeat(" ", utf8.RuneCountInString(b.String()))
				cell = strings.Join(brokenAt(cell, last), "\n"+t.indent+below)
			}
			pad := strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(cell)))
			if t.right[i] {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		fmt.Fprintln(w, t.indent+strings.TrimRight(b.String(), " "))
	}
}

// pairs prints "name  value" lines with the values aligned, and broken where they are too long; pairs with an empty value are left out.
type pairs [][2]string

func (p *pairs) add(name string, format string, args ...any) {
	*p = append(*p, [2]string{name, fmt.Sprintf(format, args...)})
}

func (p pairs) write(w io.Writer, indent string) {
	width := 0
	for _, kv := range p {
		if kv[1] != "" {
			width = max(width, utf8.RuneCountInString(kv[0]))
		}
	}
	for _, kv := range p {
		if kv[1] != "" {
			head := indent + kv[0] + strings.Repeat(" ", width-utf8.RuneCountInString(kv[0])) + "  "
			lines := brokenAt(kv[1], columns-utf8.RuneCountInString(head))
			fmt.Fprintln(w, head+strings.Join(lines, "\n"+strings.Repeat(" ", utf8.RuneCountInString(head))))
		}
	}
}
