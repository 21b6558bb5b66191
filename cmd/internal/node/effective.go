package node

import (
	"cmp"
	"slices"

	"github.com/understudy-ha/understudy/fsm"
)

// Effective returns the configuration with what its groups get where their keys say nothing. Where several words mean the same as
// none, it has the one that an operator would write.
func (c Config) Effective() Config {
	auto := fsm.GroupSpec{Switchback: fsm.SwitchbackAuto}.Normalize()
	c.Groups = slices.Clone(c.Groups)
	for i, g := range c.Groups {
		g = g.Normalize()
		g.Preferred = cmp.Or(g.Preferred, c.Node)
		g.Switchback = cmp.Or(g.Switchback, fsm.SwitchbackManual)
		g.SwitchbackAfter = cmp.Or(g.SwitchbackAfter, auto.SwitchbackAfter)
		g.Compression = cmp.Or(g.Compression, fsm.CompressionNone)
		g.JournalFull = cmp.Or(g.JournalFull, fsm.JournalFullStall)
		c.Groups[i] = g
	}
	return c
}

// OverrideNames lists the environment variables that set something of the configuration.
func OverrideNames() (names []string) {
	for _, o := range overrides() {
		names = append(names, o.name)
	}
	return names
}
