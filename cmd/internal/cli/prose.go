package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// columns is how wide text for people may be. It does not depend on the terminal, so that what is saved reads like what was seen.
const columns = 100

// writeProse prints a sentence in lines of at most that width; those after the first are indented by indent more columns than the first.
// What stands between backticks is a command, and stays on one line, so that it can be copied.
func writeProse(w io.Writer, indent int, text string) {
	fmt.Fprintln(w, wrap(text, indent))
}

// wrap breaks each line of text that is too long. Lines that begin with a space or ">" are pictures, such as a cut-out of a file, and
// those that begin with "usage:" or "example:" are commands: they stay as they are.
func wrap(text string, indent int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) <= columns || i > 0 && strings.HasPrefix(line, " ") || strings.HasPrefix(line, ">") ||
			strings.HasPrefix(line, "usage:") || strings.HasPrefix(line, "example:") {
			continue
		}
		lead := len(line) - len(strings.TrimLeft(line, " "))
		lines[i] = strings.Join(broken(line[lead:], line[:lead], strings.Repeat(" ", lead+indent), columns), "\n")
	}
	return strings.Join(lines, "\n")
}

// brokenAt breaks a text that is wider than width; what fits stays as it is.
func brokenAt(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	return broken(text, "", "", width)
}

// broken sets a line anew, the first part behind one prefix, all others behind another. A word that is too long has a line of its own.
func broken(line, first, others string, width int) (out []string) {
	at, empty := first, true
	for _, word := range pieces(line) {
		if !empty && utf8.RuneCountInString(at)+1+utf8.RuneCountInString(word) > width {
			out, at, empty = append(out, at), others, true
		}
		if !empty {
			at += " "
		}
		at, empty = at+word, false
	}
	return append(out, at)
}

// pieces splits a line into words. Those of a command in backticks are one.
func pieces(line string) (all []string) {
	open := false
	for _, word := range strings.Fields(line) {
		if open {
			all[len(all)-1] += " " + word
		} else {
			all = append(all, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			open = !open
		}
	}
	return all
}

// reflow sets paragraphs anew to the width; a line that begins with a space stays as it is, and so does a list.
func reflow(text string) string {
	var out, paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			out = append(out, broken(strings.Join(paragraph, " "), "", "", columns)...)
		}
		paragraph = nil
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		switch {
		case line == "", strings.HasPrefix(line, " "), strings.HasPrefix(line, "- "), strings.HasPrefix(line, "* "):
			end()
			out = append(out, line)
		default:
			paragraph = append(paragraph, line)
		}
	}
	end()
	return strings.Join(out, "\n")
}
