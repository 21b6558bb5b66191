package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// TestSelectionText: status shows what each group selects, and which groups are planned. Proves TR-7, HB-2.
func TestSelectionText(t *testing.T) {
	g := client.GroupStatus{Name: "low", Primary: "a", Phase: "opened", Spec: client.GroupSpec{Name: "low", Files: []string{"ledger", "!x"}, Keys: client.KeyRange{From: "b", To: "h"}}}
	var out strings.Builder
	writeStatus(&out, client.Status{RaftLeader: "a", Groups: []client.GroupStatus{g}, Planned: []client.PlannedGroup{
		{Spec: client.GroupSpec{Name: "high", Preferred: "c"}}, {Spec: client.GroupSpec{Name: "new"}, Asks: []string{"default", "low"}},
	}})
	for _, want := range []string{"files ledger !x, keys from b, below h", "group high is planned and waits for its node c", "group new is planned and waits until the primaries of default, low"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	for r, want := range map[client.KeyRange]string{{}: "all", {From: "b"}: "from b", {To: "h"}: "below h"} {
		if got := fmt.Sprint(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
