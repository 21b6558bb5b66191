package testcluster

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
)

// The examples of package client say of three whole nodes what they say of the little one that they bring: package client imports nothing of
// ours, so they run as a program of their own. Proves CL-5 and TR-3.
func TestExamplesOfTheClient(t *testing.T) {
	c := Start(t, Options{Timing: steady(), Group: fsm.GroupSpec{Preferred: "a"}})
	if p := c.primary(); p.ID != "a" {
		c.switchTo("a")
	}
	var at []string
	for _, n := range c.all() {
		at = append(at, n.config.Listen.HTTP)
	}
	run := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^Example", "-v", "../../../client")
	run.Env = append(os.Environ(), "UNDERSTUDY_EXAMPLES_AT="+strings.Join(at, ","))
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS: Example"); n < 9 {
		t.Errorf("%d examples were run:\n%s", n, out)
	}
	p := c.primary()
	if g, err := p.client.Group(t.Context(), "default"); err != nil || g.Primary != "b" || g.Epoch < 2 {
		t.Errorf("the switch-over of the example met other nodes: %+v, %v", g, err)
	}
}
