package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/internal/ident"
)

func TestJudge(t *testing.T) {
	member := info{Node: "a", Directory: "dir-a", Name: "demo", Cluster: "1", Nodes: map[ident.NodeID]ident.DirectoryID{"a": "dir-a"}}
	with := func(f func(*info)) info {
		i := member
		f(&i)
		return i
	}
	empty := with(func(i *info) { i.Cluster, i.Nodes = "", nil })
	for _, c := range []struct {
		name      string
		bootstrap bool
		answers   map[string]info
		want      ident.ClusterID
		refused   string
	}{
		{name: "nobody answers"},
		{name: "peer without a cluster", answers: map[string]info{"p": empty}},
		{name: "peer knows it", answers: map[string]info{"p": member, "q": empty}, want: "1"},
		{name: "peer knows it, bootstrap is set", bootstrap: true, answers: map[string]info{"p": member}, want: "1"},
		{name: "own address", answers: map[string]info{"p": with(func(i *info) { i.Directory, i.Node, i.Cluster = "dir-b", "b", "" })}},
		{name: "same id", answers: map[string]info{"p": with(func(i *info) { i.Node = "b" })}, refused: "give each node its own"},
		{name: "other name", answers: map[string]info{"p": with(func(i *info) { i.Name = "other" })}, refused: `configured for "demo"`},
		{name: "two founders", bootstrap: true, answers: map[string]info{"p": with(func(i *info) { i.Cluster, i.Bootstrap = "", true })}, refused: "exactly one node"},
		{name: "peer that will found", answers: map[string]info{"p": with(func(i *info) { i.Cluster, i.Bootstrap = "", true })}},
		{name: "two clusters", answers: map[string]info{"p": member, "q": with(func(i *info) { i.Cluster, i.Node, i.Directory = "2", "c", "dir-c" })}, refused: "members of one cluster"},
		{name: "registered elsewhere", answers: map[string]info{"p": with(func(i *info) { i.Nodes = map[ident.NodeID]ident.DirectoryID{"b": "dir-old"} })}, refused: "data directory dir-old"},
		{name: "registered here", answers: map[string]info{"p": with(func(i *info) { i.Nodes = map[ident.NodeID]ident.DirectoryID{"b": "dir-b"} })}, want: "1"},
		{name: "another build", answers: map[string]info{"p": with(func(i *info) { i.Protocol = 4 }), "q": empty}, refused: "must not run in one cluster"},
		{name: "another build left running apart", answers: map[string]info{"p": with(func(i *info) { i.Protocol, i.Node, i.Directory = 4, "c", "dir-c" }), "q": member}, want: "1"},
		{name: "another build of another cluster", answers: map[string]info{"p": with(func(i *info) { i.Protocol, i.Node, i.Cluster = 4, "c", "2" }), "q": member}, refused: "must not run in one cluster"},
		{name: "another build, bootstrap is set", bootstrap: true, answers: map[string]info{"p": with(func(i *info) { i.Protocol = 4 })}, refused: "must not run in one cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &Cluster{o: Options{Node: "b", Directory: "dir-b", Name: "demo", Bootstrap: c.bootstrap}, log: testLogger(t, "b")}
			got, err := n.judge(c.answers)
			var r *refusal
			switch {
			case c.refused == "" && (err != nil || got != c.want):
				t.Fatalf("got %q %v, want %q", got, err, c.want)
			case c.refused != "" && (!errors.As(err, &r) || !strings.Contains(err.Error(), c.refused)):
				t.Fatalf("got %q %v, want a refusal with %q", got, err, c.refused)
			}
		})
	}
}
