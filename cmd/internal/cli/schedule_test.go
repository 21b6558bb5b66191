package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

func scheduled(outcome string) client.Operation {
	at := time.Now().Add(10 * time.Minute)
	op := client.Operation{ID: 9, Kind: "switchover", Group: "default", From: "a", To: "b", State: client.OperationScheduled, Step: "scheduled", Started: at.Add(-time.Hour),
		Schedule: &client.Schedule{At: at, By: "ann", Outcome: outcome}}
	if outcome != "" {
		op.State, op.Ended, op.Error = client.OperationRolledBack, at, "because"
	}
	return op
}

// Proves what people and programs see of a scheduled switch-over, before, while it waits and after. Proves CL-5.
func TestScheduledSwitchoverOutput(t *testing.T) {
	when := humanTime(scheduled("").Schedule.At)[:10]
	st := someStatus()
	op := scheduled("")
	st.Groups[0].Scheduled = &op
	canceled := scheduled(client.ScheduleCanceled)
	missed := scheduled(client.ScheduleMissed)
	missed.ID = 8
	url := fakeNode(t, map[string]any{
		"GET /v1/status":                       st,
		"GET /v1/groups/default":               st.Groups[0],
		"POST /v1/groups/default/switchover":   scheduled(""),
		"DELETE /v1/groups/default/switchover": map[string]any{},
		"GET /v1/operations":                   map[string]any{"items": []client.Operation{scheduled(""), missed}},
		"GET /v1/operations/8":                 missed,
		"GET /v1/operations/9":                 canceled,
	})
	for _, tc := range []struct {
		args  string
		code  int
		holds []string
	}{
		{"switchover default --to b --at +10m", 0, []string{"Switch-over 9 of group default, a → b, is scheduled for " + when, "understudy cancel default"}},
		{"status", 0, []string{"All is well.", "switchover 9 a → b: scheduled for " + when, "by ann"}},
		{"group show default", 0, []string{"switchover 9 a → b: scheduled for " + when}},
		{"operation show", 0, []string{"scheduled ", "begins " + when, "missed: because"}},
		{"operation wait 8", exitRolledBack, []string{"did not begin, nothing changed: because"}},
		{"cancel default", 0, []string{"Switch-over 9 of group default, scheduled for " + when, "was called off. Nothing changed."}},
	} {
		wantRun(t, url, tc.code, tc.holds, strings.Fields(tc.args)...)
		_, out, errOut := run(t, url, append(strings.Fields(tc.args), "-o", "json")...)
		if !json.Valid([]byte(out)) || !strings.Contains(out, `"at":`) {
			t.Errorf("%s -o json:\n%s%s", tc.args, out, errOut)
		}
	}
	op.Schedule.Waits = "target_alive: b is not alive"
	url = fakeNode(t, map[string]any{"GET /v1/status": st, "GET /v1/operations/9": op})
	wantRun(t, url, 0, []string{"ATTENTION: group default: the scheduled switch-over 9 to b cannot begin: target_alive: b is not alive"}, "status")
	wantRun(t, url, exitRunning, []string{"has not begun: it is scheduled for " + when}, "operation", "wait", "9", "--wait", "1ms")
	wantRun(t, url, exitUsage, []string{"is over"}, "switchover", "default", "--at", "2020-01-01T00:00:00Z")
}
