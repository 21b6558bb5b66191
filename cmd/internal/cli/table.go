package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows in aligned columns. A heading that begins with ">" makes its column right-aligned, for numbers.
type table struct {
	indent string
	head   []string
	right  []bool
	rows   [][]string
}

func newTable(head ...string) *table {
	t := &table{right: make([]bool, len(head))}
	for i, h := range head {
		h, t.right[i] = strings.CutPrefix(h, ">")
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

func (t *table) write(w io.Writer) {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{t.head}, t.rows...) {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if t.right[i] {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		fmt.Fprintln(w, t.indent+strings.TrimRight(b.String(), " "))
	}
}

// pairs prints "name  value" lines with the values aligned; pairs with an empty value are left out.
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
			fmt.Fprintf(w, "%s%s%s  %s\n", indent, kv[0], strings.Repeat(" ", width-utf8.RuneCountInString(kv[0])), kv[1])
		}
	}
}
