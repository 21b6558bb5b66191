package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// Proves S4 for scripts: an exit code that says that nothing was changed comes only with an error that says so, and a write
// whose outcome is unknown has a code of its own.
func TestExitCodesKeepOutcomesApart(t *testing.T) {
	nothing := []int{exitUsage, exitPrecondition, exitRolledBack}
	for _, code := range []client.Code{
		client.CodeInvalid, client.CodeNotFound, client.CodeUnknownPath, client.CodeMethodNotAllowed, client.CodeUnknownGroup, client.CodeUnknownNode,
		client.CodeTooLarge, client.CodeExists, client.CodeBusy, client.CodePrecondition, client.CodeNotPrimary, client.CodeNoPrimary,
		client.CodeNoQuorum, client.CodeNoSync, client.CodeUnavailable, client.CodeStale, client.CodeStorageFull, client.CodeUnknownOutcome,
		client.CodeCorrupt, client.CodeUnsupported, client.CodeInternal,
	} {
		err := &client.Error{Code: code}
		exit, outcome := exitCode(err), client.OutcomeOf(err)
		switch {
		case exit == exitDone:
			t.Errorf("%s ends with 0", code)
		case slices.Contains(nothing, exit) && outcome != client.OutcomeNotDone:
			t.Errorf("%s ends with %d although its outcome is %s", code, exit, outcome)
		case code == client.CodeUnknownOutcome && exit != exitRunning:
			t.Errorf("an unknown outcome ends with %d", exit)
		}
	}
}

// Proves TR-2 (receipts) for scripts: each outcome has its text and its exit code, and a problem goes through as ever.
func TestReceiptCommand(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := client.Receipt{Position: "orders@3.42", Committed: "orders@4.57", Epoch: 4, Node: "b"}
		switch r.URL.Path {
		case "/v1/receipts/orders@3.42":
			answer.Outcome = client.OutcomeDone
		case "/v1/receipts/orders@3.43":
			answer.Outcome = client.OutcomeNotDone
		case "/v1/receipts/orders@4.99":
			answer.Outcome = client.OutcomeUndecided
			if r.URL.Query().Get("wait") != "50ms" {
				t.Errorf("query %s", r.URL.RawQuery)
			}
		default:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(client.Error{Status: http.StatusBadRequest, Code: client.CodeInvalid, Detail: "position?"})
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	wantRun(t, server.URL, exitDone, []string{"was done", "orders@4.57"}, "receipt", "orders@3.42")
	wantRun(t, server.URL, exitPrecondition, []string{"was not done and never will be"}, "receipt", "orders@3.43")
	wantRun(t, server.URL, exitRunning, []string{"not decided yet"}, "receipt", "orders@4.99", "--wait", "50ms")
	wantRun(t, server.URL, exitDone, []string{`"outcome": "done"`}, "receipt", "orders@3.42", "-o", "json")
	wantRun(t, server.URL, exitUsage, []string{"position?"}, "receipt", "nonsense")
	wantRun(t, server.URL, exitUsage, []string{"must not be negative"}, "receipt", "orders@3.42", "--wait", "-1s")
}

// Events are filtered by the node that is asked.
func TestEventsAsksForWhatIsWanted(t *testing.T) {
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query().Encode()
		_ = json.NewEncoder(w).Encode(client.Items[client.Event]{Items: []client.Event{{ID: 7, Node: "a", Severity: "warning", Kind: "SRSHADOWLOST", Message: "alone"}}})
	}))
	defer server.Close()
	wantRun(t, server.URL, exitDone, []string{"SRSHADOWLOST", "alone"}, "events", "--severity", "warning", "--kind", "SRSHADOWLOST,SRPRIMARY", "--group", "orders")
	wantRun(t, server.URL, exitUsage, []string{"NOPE", "ROT_FOUND"}, "events", "--kind", "NOPE")
	wantRun(t, server.URL, exitUsage, []string{"did you mean SRPRIMARY?"}, "events", "--kind", "srprimery", "--follow")
	wantRun(t, server.URL, exitUsage, []string{"critical"}, "events", "--severity", "loud")
	if want := "group=orders&kind=SRSHADOWLOST%2CSRPRIMARY&severity=warning"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	wantRun(t, server.URL, exitUsage, []string{"want one of"}, "events", "--severity", "loud")
}
