package replica

import (
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
)

// A compressed group: the same records everywhere, the same bytes in every copy, also after a failover that journals anew.
func TestCompressedGroup(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{Compression: fsm.CompressionZstd, Images: fsm.ImagesBoth}, "a", "b", "c")
	a := c.nodes["a"]
	c.keepInSync("a", "b")
	value := func(i int) string { return fmt.Sprint(i, strings.Repeat(" and so on", 50)) }
	for i := range 30 {
		a.mustPut(fmt.Sprint("k", i%7), value(i))
	}
	c.level("b", "c")
	count := func(id string) (compressed int) {
		j, ok := c.nodes["b"].rep.shelf.get("a")
		if id == "b" {
			j, ok = c.nodes["b"].rep.shelf.get("b")
		}
		if !ok {
			return 0
		}
		r, err := j.Reader(0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			item, ok, err := r.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return compressed
			}
			if item.Raw != nil && item.Header.Flags&entry.FlagCompressed != 0 {
				compressed++
			}
		}
	}
	if n := count("a"); n < 20 {
		t.Errorf("%d bundles of the copy are compressed", n)
	}
	a.stop()
	c.failover("b", false)
	c.serves("b")
	b := c.nodes["b"]
	for i := range 7 {
		b.mustPut(fmt.Sprint("k", i), value(100+i))
	}
	c.level("c")
	for i := range 7 {
		c.nodes["c"].mustGet(fmt.Sprint("k", i), value(100+i), true)
	}
	if n := count("b"); n < 5 {
		t.Errorf("%d bundles of the new primary are compressed", n)
	}
}
