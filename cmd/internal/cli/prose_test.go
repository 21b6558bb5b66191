package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// tooWide returns the lines that are wider than text for people may be.
func tooWide(text string) (all []string) {
	for _, line := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(line) > columns {
			all = append(all, line)
		}
	}
	return all
}

// A long sentence is broken between words, and a command in it is not.
func TestWrap(t *testing.T) {
	command := "`understudy failover default --to c --allow-data-loss --confirm default`"
	text := "ATTENTION: " + strings.Repeat("something is wrong here, ", 4) + "repeat it with " + command + " when you have looked"
	got := wrap(text, 2)
	if len(tooWide(got)) > 0 || !strings.Contains(got, command) {
		t.Errorf("got\n%s", got)
	}
	if back := strings.Join(strings.Fields(got), " "); back != text {
		t.Errorf("the words changed: %q", back)
	}
	lines := strings.Split(got, "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[1], "  ") || strings.HasPrefix(lines[1], "   ") {
		t.Errorf("the second line is not indented by two:\n%s", got)
	}
	for _, same := range []string{"short", "", "first\n   7 | " + strings.Repeat("x ", 80), "usage:   understudy " + strings.Repeat("x ", 60)} {
		if got := wrap(same, 2); got != same {
			t.Errorf("%q became %q", same, got)
		}
	}
}

// The help of no command is wider than a hundred columns.
func TestHelpFitsTheScreen(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" {
			return
		}
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Error(err)
		}
		for _, line := range tooWide(out.String()) {
			t.Errorf("%s --help: %d columns: %s", c.CommandPath(), utf8.RuneCountInString(line), line)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{}))
}

// A table that would be too wide cuts the column that says it may be cut, and breaks its last one; others stay.
func TestTableFitsTheScreen(t *testing.T) {
	cut := newTable("KEY", "~CONTENT")
	cut.add(strings.Repeat("k", 60), strings.Repeat("c", 60))
	last := newTable("CHECK", "DETAIL")
	last.add("target", strings.Repeat("words and ", 20))
	last.add("other", "short")
	for _, x := range []*table{cut, last} {
		var out strings.Builder
		x.indent = "  "
		x.write(&out)
		if len(tooWide(out.String())) > 0 {
			t.Errorf("too wide:\n%s", out.String())
		}
	}
	var out strings.Builder
	last.write(&out)
	if n := strings.Count(out.String(), "words"); n != 20 {
		t.Errorf("%d of 20 words are left:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "\n          and words") && !strings.Contains(out.String(), "\n          words") {
		t.Errorf("the second line is not below the first:\n%s", out.String())
	}
	out.Reset()
	last.whole = true
	last.write(&out)
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("rows that are to be whole stand in %d lines:\n%s", n, out.String())
	}
	out.Reset()
	narrow := newTable("A", "~B")
	narrow.add("1", fmt.Sprint(2))
	narrow.write(&out)
	if out.String() != "A  B\n1  2\n" {
		t.Errorf("got %q", out.String())
	}
}

// Remedies that nodes give for programs name, for people, the command and what it is about.
func TestRemediesAreCommands(t *testing.T) {
	for remedy, want := range map[string]string{
		"GET /v1/groups/orders/journals lists those it holds":                              "`understudy journal list orders` lists those it holds",
		"GET /v1/groups/GROUP/journals shows which":                                        "`understudy journal list GROUP` shows which",
		"GET /v1/groups lists the groups":                                                  "`understudy group list` lists the groups",
		"add a group (POST /v1/groups; that is all)":                                       "add a group (`understudy group create`; that is all)",
		"cancel it first (DELETE /v1/groups/default/switchover)":                           "cancel it first (`understudy cancel default`)",
		"Hand it over: POST /v1/groups/low/switchover, POST /v1/groups/high/switchover":    "Hand it over: `understudy switchover low`, `understudy switchover high`",
		"GET /v1/files/FILE/records lists the keys of a file":                              "`understudy list FILE` lists the keys of a file",
		"GET /v1/files/two%20words/records lists":                                          "`understudy list 'two words'` lists",
		"read or delete them at this node with ?group=local":                               "read or delete them at this node with --group local",
		"wait for it, or cancel a switch-over with DELETE /v1/groups/orders.eu/switchover": "wait for it, or cancel a switch-over with `understudy cancel orders.eu`",
	} {
		if got := asCommands(remedy); got != want {
			t.Errorf("%q became %q, want %q", remedy, got, want)
		}
	}
}
