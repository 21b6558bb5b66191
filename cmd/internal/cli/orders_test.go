package cli

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

var ordered = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)

// Proves that pause, resume and maintenance say what they mean for the roles, and refuse what they would have to guess.
func TestOrders(t *testing.T) {
	order := &client.Order{Reason: "new switches", By: "ann", Since: ordered, Until: ordered.Add(time.Hour)}
	url := fakeNode(t, map[string]any{
		"PUT /v1/pause":                    client.PauseState{Pause: order, Note: "no automatic failover begins", Warning: "group default keeps 0 of 1"},
		"DELETE /v1/pause":                 client.PauseState{Note: "automatic failover may begin"},
		"PUT /v1/nodes/a/maintenance":      client.MaintenanceState{Node: "a", Maintenance: order, Primary: []string{"default"}, Note: "node a goes on as primary: hand the role over, POST /v1/groups/GROUP/switchover"},
		"DELETE /v1/nodes/a/maintenance":   client.MaintenanceState{Node: "a", Note: "node a may be chosen as every other"},
		"PUT /v1/nodes/x/maintenance":      &client.Error{Code: client.CodeUnknownNode, Detail: "there is no node \"x\""},
		"GET /v1/status":                   client.Status{Node: "a", RaftLeader: "a", Pause: order, Nodes: []client.NodeStatus{{ID: "a", State: "alive", Lease: "held", Maintenance: order}}},
		"GET /v1/groups/default/why":       client.Readiness{Group: "default", From: "a", To: "b", Ready: true, Notes: []string{"paused (new switches)"}},
		"POST /v1/groups/default/failover": &client.Error{Code: client.CodePrecondition, Detail: "more would be lost", Forecast: &forecastOfFive},
	})
	wantRun(t, url, 0, []string{"Paused: new switches, by ann, since ", "until ", "No automatic failover begins.", "WARNING: group default keeps 0 of 1."}, "pause", "--reason", "new switches", "--for", "1h")
	wantRun(t, url, 0, []string{`"reason": "new switches"`}, "pause", "--reason", "new switches", "-o", "json")
	wantRun(t, url, 0, []string{"Not paused: automatic failover may begin."}, "resume")
	wantRun(t, url, 0, []string{"Node a is in maintenance: new switches", "Node a goes on as primary", "`understudy switchover GROUP`"}, "maintenance", "a", "on", "--reason", "disk")
	wantRun(t, url, 0, []string{"Node a is not in maintenance."}, "maintenance", "a", "off")
	wantRun(t, url, 12, []string{"there is no node"}, "maintenance", "x", "on", "--reason", "disk")
	wantRun(t, url, 0, []string{"ATTENTION: automatic failover is paused: new switches", "ATTENTION: node a is in maintenance: new switches", "alive, maintenance"}, "status")
	wantRun(t, url, 0, []string{"note: paused (new switches)"}, "why", "default")
	for _, args := range [][]string{
		{"pause"}, {"pause", "--reason", "r", "--for", "-1h"}, {"pause", "now", "--reason", "r"}, {"maintenance", "a"}, {"maintenance", "a", "on"},
		{"maintenance", "a", "maybe"}, {"maintenance", "a", "off", "--reason", "r"}, {"resume", "now"},
	} {
		wantRun(t, url, 2, nil, args...)
	}
}

var forecastOfFive = client.LossForecast{
	Group: "default", To: "c", Epoch: 3, Loss: "what lies beyond default@3.40, the end of c: b holds 5 more", Beyond: "default@3.40", Highest: "default@3.45", Entries: 5,
	Nodes: []client.HeldPosition{
		{Node: "a", InSync: true, Told: "default/a up to 147", Error: "no answer"},
		{Node: "b", Answered: true, Position: "default@3.45", Beyond: 5},
		{Node: "c", Answered: true, Position: "default@3.40"},
	},
	First:   []client.EntryAtRisk{{Node: "b", Journal: "default/a", Sequence: 143, Position: "default@3.41", Code: "R", Type: "PT", File: "orders", Key: client.MakeKey([]byte("4711"))}},
	Fate:    "an entry beyond default@3.40 is listed in a back-out report",
	Confirm: "default",
}

// Proves that a failover that may lose entries names them first, is not done without a confirmation, and shows what would be
// lost now when it is refused. Proves BX-4.
func TestFailoverWithLoss(t *testing.T) {
	asked := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": forecastOfFive})
	shown := []string{"may lose at least, as far as is known, 5 entries", "beyond default@3.40, up to default@3.45", "its last lease: default/a up to 147", "default/a:143", "orders", "4711", "back-out report"}
	wantRun(t, asked, 0, shown, "failover", "default", "--to", "c", "--allow-data-loss", "--dry-run")
	wantRun(t, asked, 0, []string{`"beyond": "default@3.40"`}, "failover", "default", "--to", "c", "--allow-data-loss", "--dry-run", "-o", "json")
	// Standard input is no terminal here: nobody can be asked.
	wantRun(t, asked, 12, append(shown, "nothing was changed", "--confirm default --accept-loss-beyond default@3.40"), "failover", "default", "--to", "c", "--allow-data-loss")
	cannot := forecastOfFive
	cannot.Unable = "it needs priming"
	unable := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": cannot})
	wantRun(t, unable, 0, []string{"WARNING: c cannot serve: it needs priming"}, "failover", "default", "--to", "c", "--allow-data-loss", "--dry-run")
	wantRun(t, unable, 12, []string{"WARNING: c cannot serve", "nothing was changed", "--accept-unable"}, "failover", "default", "--to", "c", "--allow-data-loss")
	wantRun(t, unable, 2, []string{"belongs to --allow-data-loss"}, "failover", "default", "--to", "c", "--accept-unable")
	none := forecastOfFive
	none.Loss, none.Entries, none.Exact, none.First = "none", 0, true, nil
	level := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": none})
	wantRun(t, level, 0, []string{"loses nothing: nobody holds more than default@3.40"}, "failover", "default", "--to", "c", "--allow-data-loss", "--dry-run")

	none.Loss, none.Exact = "what lies beyond default@3.40", false
	unknown := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": none})
	wantRun(t, unknown, 0, []string{"may lose entries, but none is known now"}, "failover", "default", "--to", "c", "--allow-data-loss", "--dry-run")

	more := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": &client.Error{Code: client.CodePrecondition, Detail: "more would be lost than was accepted", Forecast: &forecastOfFive}})
	wantRun(t, more, 12, append(shown, "more would be lost than was accepted"), "failover", "default", "--to", "c", "--allow-data-loss", "--confirm", "default", "--accept-loss-beyond", "3.41")

	done := client.Operation{ID: 7, Kind: "failover", Group: "default", From: "a", To: "c", State: client.OperationDone, Committed: true}
	ok := fakeNode(t, map[string]any{"POST /v1/groups/default/failover": done})
	wantRun(t, ok, 0, []string{"failover 7 a → c: done"}, "failover", "default", "--to", "c", "--allow-data-loss", "--confirm", "default", "--accept-loss-beyond", "3.40", "--accept-loss-up-to", "3.45")
	wantRun(t, ok, 18, []string{"went to c, not to b"}, "failover", "default", "--to", "b")
	for _, args := range [][]string{
		{"--dry-run"}, {"--confirm", "default"}, {"--accept-loss-beyond", "3.40"},
		{"--allow-data-loss", "--confirm", "default"}, {"--allow-data-loss", "--accept-loss-beyond", "3.40"},
		{"--allow-data-loss", "--confirm", "orders", "--accept-loss-beyond", "3.40"},
	} {
		wantRun(t, ok, 2, nil, append([]string{"failover", "default", "--to", "c"}, args...)...)
	}
}

// Proves that history shows a certificate with everything it keeps.
func TestHistoryInFull(t *testing.T) {
	url := fakeNode(t, map[string]any{"GET /v1/groups/default/history": client.Items[client.Certificate]{Items: []client.Certificate{
		{Group: "default", Kind: "create", Epoch: 1, To: "a", InSync: []string{"a"}, SW: "default@1.1", Loss: "none", At: ordered, Opened: ordered.Add(time.Second), Reason: "group created"},
		{
			Group: "default", Kind: "failover", Operation: 7, OldEpoch: 1, Epoch: 2, From: "a", To: "c", InSync: []string{"a", "b"}, SW: "default@2.41", Loss: "what lies beyond default@1.40",
			Better: []string{"b"}, Started: ordered, At: ordered.Add(2 * time.Second), Opened: ordered.Add(3 * time.Second), Reason: "operator",
			Candidates: []client.Candidate{{Node: "b", Received: "1.45", Committed: "1.44", Applied: "1.44"}, {Node: "c", Received: "1.40", Torn: true, Unable: "its disk"}},
			PassedOver: []client.PassedOver{{Node: "b", Received: "default@1.45", Why: "the failover was to c"}, {Node: "a", Why: "a did not report"}},
			Accepted:   &client.AcceptedLoss{Beyond: "default@1.40", Highest: "default@1.45", Entries: 5, By: "ann"},
		},
	}}})
	wantRun(t, url, 0, []string{"create", "failover", "better: b"}, "history", "default")
	full := []string{"Epoch 2 of group default: failover, a → c", "follows      epoch 1", "after 2.00 s", "after 3.00 s", "in-sync set  a, b", "accepted     beyond default@1.40, 5 entries known, up to default@1.45, by ann",
		"b (held default@1.45): the failover was to c", "a: a did not report", "chosen, cut a torn tail, unable: its disk", "REPORTED BY"}
	wantRun(t, url, 0, append(full, "Epoch 1 of group default: create, a"), "history", "default", "--full")
	wantRun(t, url, 0, full, "history", "default", "--epoch", "2")
	wantRun(t, url, 12, []string{"no certificate of epoch 9"}, "history", "default", "--epoch", "9")
}
