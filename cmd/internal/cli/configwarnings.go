package cli

import (
	"fmt"

	"github.com/understudy-ha/understudy/cmd/internal/node"
)

// checkedConfig is a configuration with what it means, and what may be meant otherwise.
type checkedConfig struct {
	node.Config `yaml:",inline"`
	Warnings    []string `yaml:"warnings"`
}

// configWarnings lists what is no mistake for certain: nobody but the cluster knows its nodes, and platforms set names of their own.
func configWarnings(c node.Config, environ []string) []string {
	all := []string{}
	for _, name := range node.UnknownOverrides(environ) {
		text := name + " is set in the environment, and sets nothing of the configuration"
		if near := nearest(name, node.OverrideNames()); near != "" {
			text += "; did you mean " + near + "?"
		}
		all = append(all, text)
	}
	for _, g := range c.Groups {
		if c.Bootstrap && g.Preferred != "" && g.Preferred != c.Node {
			all = append(all, fmt.Sprintf("group %s is preferred at %s, not at this node %s: it is created when a data node of that name has joined, not before", g.Name, g.Preferred, c.Node))
		}
	}
	return all
}

// nearest returns the name that is most like a mistyped one; "" when none is like it.
func nearest(name string, names []string) string {
	best, least := "", 4
	for _, n := range names {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}
