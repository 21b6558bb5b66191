package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// unsureNode is a node whose Raft leader changes while it is asked for a switch-over. It knows operation 7 of before, and after some
// questions operation 8, if it began.
func unsureNode(t *testing.T, began *client.Operation, posts *atomic.Int32) *client.Client {
	t.Helper()
	old := client.Operation{ID: 7, Kind: "switchover", Group: demoGroup, To: "b", State: client.OperationDone}
	var asked atomic.Int32
	problem := func(w http.ResponseWriter, code client.Code) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(code.Status())
		_ = json.NewEncoder(w).Encode(&client.Error{Status: code.Status(), Code: code, Detail: "the Raft leader changed while it decided"})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/groups/"+demoGroup+"/switchover", func(w http.ResponseWriter, _ *http.Request) {
		posts.Add(1)
		problem(w, client.CodeUnknownOutcome)
	})
	mux.HandleFunc("GET /v1/operations", func(w http.ResponseWriter, _ *http.Request) {
		all := client.Items[client.Operation]{Items: []client.Operation{old}}
		if began != nil && asked.Add(1) > 3 {
			all.Items = append([]client.Operation{*began}, all.Items...)
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	mux.HandleFunc("GET /v1/operations/8", func(w http.ResponseWriter, _ *http.Request) {
		o := *began
		if asked.Add(1) > 6 {
			o.State, o.Committed = client.OperationDone, true
		}
		_ = json.NewEncoder(w).Encode(o)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return client.New(s.URL)
}

// Proves CL-5: when Raft's leader changes while a switch-over is asked for, it is followed to its end, and it is asked for once.
func TestSwitchoverIsFollowedThroughAChangeOfLeader(t *testing.T) {
	var posts atomic.Int32
	cl := unsureNode(t, &client.Operation{ID: 8, Kind: "switchover", Group: demoGroup, To: "b", State: client.OperationRunning}, &posts)
	op, err := switcher{cl, time.Minute}.run(t.Context(), demoGroup, client.SwitchoverRequest{To: "b"}, time.Minute)
	if err != nil || op.ID != 8 || op.State != client.OperationDone {
		t.Errorf("%+v, %v", op, err)
	}
	if posts.Load() != 1 {
		t.Errorf("asked for %d times", posts.Load())
	}
}

// What never began is told as before: the outcome is unknown.
func TestSwitchoverThatDidNotBegin(t *testing.T) {
	var posts atomic.Int32
	cl := unsureNode(t, nil, &posts)
	_, err := switcher{cl, 300 * time.Millisecond}.run(t.Context(), demoGroup, client.SwitchoverRequest{To: "b"}, time.Minute)
	if client.OutcomeOf(err) != client.OutcomeUndecided || posts.Load() != 1 {
		t.Errorf("%v after %d requests", err, posts.Load())
	}
}
