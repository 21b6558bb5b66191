package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// A node of another build is what needs attention, with both numbers; one from before there were any, too.
func TestBuildConcerns(t *testing.T) {
	st := client.Status{Protocol: 3, Knocking: []client.Knock{{Node: "b", Protocol: 4, Last: time.Now()}, {Node: "c", Last: time.Now()}}}
	got := buildConcerns(st)
	if len(got) != 2 || !strings.Contains(got[0], "node b runs another build") || !strings.Contains(got[0], "protocol 4, this cluster 3") || !strings.Contains(got[1], "protocol 0 (a build from before") {
		t.Errorf("%q", got)
	}
	if got := buildConcerns(client.Status{Protocol: 3}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
