package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Proves that an order needs a reason, and that its end is said in one way.
func TestOrdersAreChecked(t *testing.T) {
	n := start(t, newFake(), nil)
	for _, c := range []struct{ method, path, body, part string }{
		{"PUT", "/v1/pause", ``, "reason is missing"},
		{"PUT", "/v1/pause", `{"reason":""}`, "reason is missing"},
		{"PUT", "/v1/pause", `{"reason":"r","for":"1h","until":"2026-11-22T15:04:05Z"}`, "both for and until"},
		{"PUT", "/v1/pause", `{"reason":"r","for":"9000h"}`, "too long"},
		{"PUT", "/v1/pause", `{"reason":"r","for":"-1h"}`, "negative"},
		{"PUT", "/v1/pause", `{"reason":"r","fro":"1h"}`, `unknown field "fro"`},
		{"PUT", "/v1/nodes/b/maintenance", `{}`, "reason is missing"},
	} {
		if p := problemOf(t, n.send(t, c.method, c.path, strings.NewReader(c.body))); p.Status != 400 || !strings.Contains(p.Detail, c.part) || p.Remedy == "" {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, p)
		}
	}
}

// Proves that loss is allowed only by an operator who typed the group's name and a position, for one named node.
func TestLossIsConfirmed(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	const path = "/v1/groups/default/failover"
	for _, c := range []struct{ body, part string }{
		{`{"to":"b","allow_data_loss":true}`, "not confirmed"},
		{`{"to":"b","allow_data_loss":true,"confirm":"orders","accept_loss_beyond":"3.40"}`, "not confirmed"},
		{`{"to":"b","allow_data_loss":true,"confirm":"default"}`, "not accepted"},
		{`{"to":"*","allow_data_loss":true,"confirm":"default","accept_loss_beyond":"3.40"}`, "one named node"},
		{`{"to":"*","allow_data_loss":true,"dry_run":true}`, "one named node"},
		{`{"to":"b","dry_run":true}`, "forecast of loss"},
		{`{"to":"b","confirm":"default"}`, "not allowed"},
		{`{"to":"b","accept_loss_highest":"3.40"}`, "not allowed"},
		{`{"allow_data_loss":true,"dry_run":true}`, "where to"},
	} {
		if p := problemOf(t, n.send(t, "POST", path, strings.NewReader(c.body))); p.Status != 400 || !strings.Contains(p.Detail, c.part) || p.Remedy == "" {
			t.Errorf("%s: %+v", c.body, p)
		}
	}
	if asked := f.take(); len(asked) != 0 {
		t.Fatalf("asked for %v", asked)
	}

	resp := n.send(t, "POST", path, strings.NewReader(`{"to":"b","allow_data_loss":true,"dry_run":true}`))
	var forecast client.LossForecast
	if err := json.NewDecoder(resp.Body).Decode(&forecast); err != nil || resp.StatusCode != 200 || forecast.Beyond != "default@3.40" {
		t.Errorf("forecast: %d %+v %v", resp.StatusCode, forecast, err)
	}
	if asked := strings.Join(f.take(), "; "); asked != `forecast default "b"` {
		t.Errorf("a dry run asked %s", asked)
	}

	// What would be lost now comes back with the refusal.
	f.err = &client.Error{Code: client.CodePrecondition, Detail: "more would be lost", Forecast: &client.LossForecast{Beyond: "default@3.39"}}
	p := problemOf(t, n.send(t, "POST", path, strings.NewReader(`{"to":"b","allow_data_loss":true,"confirm":"default","accept_loss_beyond":"3.40"}`)))
	if p.Status != 412 || p.Forecast == nil || p.Forecast.Beyond != "default@3.39" {
		t.Errorf("refused: %+v", p)
	}
}

// Proves that a monitor that only asks for the health hears of a pause and of maintenance.
func TestHealthWarns(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	read := func() (h client.Health) {
		t.Helper()
		resp := n.send(t, "GET", "/livez", nil)
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		resp = n.send(t, "GET", "/health", nil)
		if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := read()
	if len(before.Warnings) != 0 {
		t.Fatalf("%+v", before)
	}
	f.status.Pause = &client.Order{Reason: "new switches", Since: time.Unix(1, 0)}
	f.status.Nodes = []client.NodeStatus{{ID: "a"}, {ID: "b", Maintenance: &client.Order{Reason: "disk"}}}
	h := read()
	if h.Holds != before.Holds || strings.Join(h.Warnings, "; ") != "automatic failover is paused: new switches; node b is in maintenance: disk" {
		t.Fatalf("%+v", h)
	}
}

// Proves that a witness is no place to read from, whatever a load balancer asks it.
func TestHealthOfAWitness(t *testing.T) {
	f := newFake()
	f.status.RaftLeader = "a"
	for i := range f.status.Groups {
		g := &f.status.Groups[i]
		g.Phase, g.Primary, g.Local = "opened", "a", client.Copy{Role: client.RoleWitness}
	}
	n := start(t, f, nil)
	for path, want := range map[string]int{"/primary": 503, "/secondary": 503, "/standby": 503, "/replica": 503, "/health": 200, "/readyz": 200, "/livez": 200} {
		if resp := n.send(t, "GET", path, nil); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}
