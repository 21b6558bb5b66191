package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// Groups are listed in start order, planned ones behind them, and each with what an operator wants to see first.
func TestGroupList(t *testing.T) {
	st := someStatus()
	alone := st.Groups[0]
	alone.Name, alone.InSync, alone.Spec.Files = "orders", nil, []string{"orders", "orders-*"}
	st.Groups = append(st.Groups, alone)
	st.Planned = []client.PlannedGroup{{Spec: client.GroupSpec{Name: "later", Preferred: "z", Files: []string{"later"}}}}
	url := fakeNode(t, map[string]any{"GET /v1/status": st})
	code, out, errOut := run(t, url, "group", "list")
	want := `GROUP    PRIMARY  IN SYNC  EPOCH  STATE              PREFERRED  DELIVERY  SELECTS
default  a        b            3  opened             a          -         files 
orders   a        -            3  opened, ATTENTION  a          -         files orders orders-*
later    -        -            -  planned            z          -         files later
` + "`understudy status orders` says what needs attention.\n"
	if trim(out) != trim(want) || code != 0 || errOut != "" {
		t.Errorf("exit code %d, got\n%s%s\nwant\n%s", code, out, errOut, want)
	}
	var all []listedGroup
	if _, out, _ := run(t, url, "group", "list", "-o", "json"); json.Unmarshal([]byte(out), &all) != nil || len(all) != 3 || !all[2].Planned || all[1].Concerns != 1 {
		t.Errorf("as JSON: %s", out)
	}
	wantRun(t, url, 0, []string{"group later is planned and waits for its node z, which is not a member (the members are a, b, c)"}, "status")
	wantRun(t, fakeNode(t, map[string]any{"GET /v1/status": client.Status{}}), 0, []string{"There is no group yet."}, "group", "list")
}

// trim takes the blanks at the ends of lines away.
func trim(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// The status is that of the node that is asked for, and names a node that is being stopped.
func TestStatusOfAChosenNode(t *testing.T) {
	own := someStatus()
	own.Node = "c"
	own.Nodes[1].Leaving = true
	c := fakeNode(t, map[string]any{"GET /v1/status": own, "GET /v1/groups/default": own.Groups[0]})
	nodes := someStatus().Nodes
	nodes[2].HTTP = c
	url := fakeNode(t, map[string]any{"GET /v1/nodes": map[string]any{"items": nodes}})
	wantRun(t, url, 0, []string{"as node c sees it", "b     alive, leaving", "ATTENTION: node b is being stopped"}, "status", "--on", "c")
	wantRun(t, url, 0, []string{"Group default: primary a"}, "status", "default", "--on", "c")
	wantRun(t, url, exitUsage, []string{"--on z: no such node; there are a, b, c"}, "status", "--on", "z")
}
