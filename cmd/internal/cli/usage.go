package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// explainUsage gives every command below root its example, and words for a wrong command line that say what is wrong with it and how a
// right one looks.
func explainUsage(root *cobra.Command) {
	root.SetFlagErrorFunc(flagError)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if text := examples[c.CommandPath()]; c.Example == "" && len(text) > 0 {
			c.Example = "  " + strings.Join(text, "\n  ")
		}
		c.Long = reflow(c.Long)
		if check := c.Args; check != nil && !c.HasSubCommands() {
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return argumentError(cmd, args)
				}
				return nil
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	cobra.AddTemplateFunc("narrow", func(f *pflag.FlagSet) string { return f.FlagUsagesWrapped(columns) })
	root.SetUsageTemplate(strings.NewReplacer(".LocalFlags.FlagUsages", "narrow .LocalFlags", ".InheritedFlags.FlagUsages", "narrow .InheritedFlags").Replace(root.UsageTemplate()))
}

// positional is an argument that a command's line of usage names.
type positional struct {
	name     string
	optional bool
}

// positionals reads them from the line of usage. What stands there behind a flag is the flag's.
func positionals(use string) (all []positional) {
	words := strings.Fields(use)[1:]
	for i := 0; i < len(words); i++ {
		w := words[i]
		if strings.HasPrefix(w, "--") {
			i++ // its value
			continue
		}
		if strings.HasPrefix(w, "(") {
			break // flags of which one is wanted
		}
		p := positional{name: w}
		if inner, is := strings.CutPrefix(w, "["); is {
			p.name, p.optional = strings.TrimSuffix(inner, "]"), true
		}
		all = append(all, p)
	}
	return all
}

// argumentError says which argument is missing, or which is one too many.
func argumentError(cmd *cobra.Command, args []string) error {
	want := positionals(cmd.Use)
	var names, missing []string
	for i, p := range want {
		if names = append(names, p.name); i >= len(args) && !p.optional {
			missing = append(missing, p.name)
		}
	}
	what := ""
	switch {
	case len(missing) == 1:
		what = missing[0] + " is missing"
	case len(missing) > 1:
		what = strings.Join(missing[:len(missing)-1], ", ") + " and " + missing[len(missing)-1] + " are missing"
	case len(want) == 0:
		what = fmt.Sprintf("unexpected argument %q: %q takes none", args[0], cmd.CommandPath())
	case len(args) > len(want):
		what = fmt.Sprintf("unexpected argument %q: after %s nothing follows", args[len(want)], strings.Join(names, " "))
	default:
		what = "the arguments are not what " + cmd.CommandPath() + " takes"
	}
	return usagef("%s\nusage:   %s%s\nrun `%s --help` for what it takes", what, cmd.UseLine(), exampleLine(cmd), cmd.CommandPath())
}

// exampleLine shows the first example of a command; "" when it has none.
func exampleLine(cmd *cobra.Command) string {
	first, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
	if first == "" {
		return ""
	}
	return "\nexample: " + first
}

// otherNames are flags that people take for others of ours.
var otherNames = map[string][]string{
	"node": {"on", "to", "target"}, "host": {"addr"}, "address": {"addr"}, "json": {"output"}, "format": {"output"}, "file": {"config", "data"},
	"target": {"to", "on"}, "force": {"allow-data-loss"}, "follow": {"watch"}, "watch": {"follow"}, "timeout": {"wait"}, "dir": {"data", "to", "out"}, "on": {"to", "target"},
}

// flagError is what is told of flags that cannot be understood, with the flag that was meant if one is near.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if name, found := strings.CutPrefix(text, "unknown flag: --"); found {
		if near := nearFlags(cmd, name); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
	}
	if name, found := strings.CutPrefix(text, "flag needs an argument: "); found {
		text = "the value of " + name + " is missing"
	}
	return usagef("%s%s\nrun `%s --help` for what it takes", text, exampleLine(cmd), cmd.CommandPath())
}

// nearFlags lists flags of a command whose names are like name.
func nearFlags(cmd *cobra.Command, name string) (near []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if distance(name, f.Name) <= 2 && len(name) > 2 || len(name) > 2 && strings.HasPrefix(f.Name, name) || slices.Contains(otherNames[name], f.Name) {
			near = append(near, "--"+f.Name)
		}
	})
	return near
}

// distance is how many letters have to be put in, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// unknownCommand is what is told of a command that a family does not have.
func unknownCommand(cmd *cobra.Command, name string) error {
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	hint := ""
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	} else {
		var has []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				has = append(has, c.Name())
			}
		}
		hint = "; it has " + strings.Join(has, ", ")
	}
	return usagef("unknown command %q for %q%s\nrun `%s --help` for what it takes", name, cmd.CommandPath(), hint, cmd.CommandPath())
}
