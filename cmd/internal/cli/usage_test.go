package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// leaves are the commands that do something.
func leaves(root *cobra.Command) (all []*cobra.Command) {
	if !root.HasSubCommands() {
		return append(all, root)
	}
	for _, c := range root.Commands() {
		if c.Name() != "help" && c.Name() != "completion" {
			all = append(all, leaves(c)...)
		}
	}
	return all
}

// words splits an example as a shell does, as far as examples go: quotes, a pipe into the program, an input file.
func words(line string) (all []string) {
	if _, after, found := strings.Cut(line, "| "); found {
		line = after
	}
	line, _, _ = strings.Cut(line, " < ")
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// Every command has an example in --help, and each example is a command line that is understood.
func TestEveryCommandHasAnExampleThatWorks(t *testing.T) {
	known := map[string]bool{}
	for _, c := range leaves(newRoot(&app{})) {
		known[c.CommandPath()] = true
		if strings.TrimSpace(c.Example) == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			args := words(strings.TrimSpace(line))
			if len(args) == 0 || args[0] != "understudy" {
				t.Errorf("%s: the example %q does not call the program", c.CommandPath(), line)
				continue
			}
			found, rest, err := newRoot(&app{}).Find(args[1:])
			if err != nil || found.CommandPath() != c.CommandPath() {
				t.Errorf("%s: the example %q is of another command: %v", c.CommandPath(), line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
			}
		}
	}
	for path := range examples {
		if !known[path] && path != "understudy" {
			t.Errorf("there are examples of %q, which is no command", path)
		}
	}
}

// Whoever types something wrong is told what, how it is right, and gets exit code 2.
func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"why":                           "understudy: GROUP is missing\nusage:   understudy why GROUP [flags]\nexample: understudy why default\nrun `understudy why --help` for what it takes\n",
		"get f":                         "KEY is missing",
		"get":                           "FILE and KEY are missing",
		"put f":                         "KEY is missing",
		"put f k v x":                   `unexpected argument "x": after FILE KEY VALUE nothing follows`,
		"status a b":                    `unexpected argument "b": after GROUP nothing follows`,
		"resume now":                    `unexpected argument "now": "understudy resume" takes none`,
		"group set default":             "KEY=VALUE... is missing",
		"journal save default/a":        "NUMBER and FILE are missing",
		"journal dump":                  "FILE|DIR|GROUP[/NODE] is missing",
		"operation wait":                "ID is missing\nusage:   understudy operation wait ID [flags]\nexample: understudy operation wait 7",
		"maintenance b":                 "on|off is missing",
		"failover":                      "GROUP is missing",
		"statsu":                        `unknown command "statsu" for "understudy"; did you mean status?`,
		"journal lst":                   `unknown command "lst" for "understudy journal"; did you mean list?`,
		"group wonder":                  `unknown command "wonder" for "understudy group"; it has create, delete, list, readmit,`,
		"journal":                       `"journal" needs a command after it`,
		"status --watc":                 "unknown flag: --watc; did you mean --watch?\nexample: understudy status\n",
		"backout list default --node a": "unknown flag: --node; did you mean --on?",
		"status --format json":          "did you mean --output?",
		"switchover default --target b": "did you mean --to?",
		"status --wonder":               "unknown flag: --wonder\n",
		"status -z":                     "unknown shorthand flag",
		"history default --epoch":       "the value of --epoch is missing",
		"history default --epoch x":     `invalid argument "x" for "--epoch"`,
	} {
		var out, errOut bytes.Buffer
		code := Main(append(strings.Fields(line), "--addr", "127.0.0.1:1"), strings.NewReader(""), &out, &errOut)
		if strings.HasSuffix(line, "--epoch") { // the address would be its value
			errOut.Reset()
			code = Main(strings.Fields(line), strings.NewReader(""), &out, &errOut)
		}
		got := errOut.String()
		if code != exitUsage || !strings.Contains(got, want) || !strings.Contains(got, "--help") || strings.Contains(got, "arg(s)") {
			t.Errorf("understudy %s: exit code %d\n%s\nwant %q", line, code, got, want)
		}
		if strings.Count(got, "for what it takes") != 1 {
			t.Errorf("understudy %s: says it twice\n%s", line, got)
		}
	}
}
