package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The status has the fields that the design promises, by name.
func TestStatusJSON(t *testing.T) {
	s := Status{Node: "a", Nodes: []NodeStatus{{ID: "a"}}, Groups: []GroupStatus{{
		Name: "default", Primary: "a", InSync: []string{"b"}, Roles: map[string]string{"a": RolePrimary}, Targets: []Target{{Node: "b"}},
	}}}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(`"node":"a" "cluster": "raft_leader": "nodes":[{"id":"a" "kind": "state": "lease": "http": "groups":[{"name":"default"
		"primary":"a" "epoch": "in_sync":["b"] "roles":{"a":"primary"} "sequence": "confirmed": "applied": "targets":[{"node":"b" "delivery": "received":
		"durable": "lag_entries": "lag_bytes": "lag_seconds": "resync":null "operation":null`) {
		if !strings.Contains(string(raw), field) {
			t.Errorf("%s is missing in %s", field, raw)
		}
	}
	raw, err = json.Marshal(WriteResult{Position: "default@3.42", Journal: "default/a", Sequence: 42, Created: true})
	if want := `{"position":"default@3.42","journal":"default/a","sequence":42}`; err != nil || string(raw) != want {
		t.Errorf("receipt %s, %v", raw, err)
	}
}

func TestKeyJSON(t *testing.T) {
	for _, key := range []string{"", "k", "a/b", "ä\x00<\u2028\ufffd", "\xff", "a\xc3", "\xed\xa0\x80"} {
		raw, err := json.Marshal(Entry{Key: MakeKey([]byte(key))})
		if err != nil {
			t.Fatal(err)
		}
		var back Entry
		if err := json.Unmarshal(raw, &back); err != nil || string(back.Key.Bytes()) != key {
			t.Errorf("%q came back as %q from %s (%v)", key, back.Key.Bytes(), raw, err)
		}
	}
}

func TestDurationJSON(t *testing.T) {
	var r SwitchoverRequest
	if err := json.Unmarshal([]byte(`{"max_pause":"1m30s"}`), &r); err != nil || time.Duration(r.MaxPause) != 90*time.Second {
		t.Errorf("%v, %v", r.MaxPause, err)
	}
	if raw, err := json.Marshal(SwitchoverRequest{}); err != nil || string(raw) != "{}" {
		t.Errorf("%s, %v", raw, err)
	}
	for _, bad := range []string{`"-1s"`, `"soon"`, `5`} {
		if err := json.Unmarshal([]byte(`{"max_pause":`+bad+`}`), &r); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestEscape(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	for _, s := range []string{string(all), "a/b", "..", ".", "...", "a.b", "", "%2F", "+ "} {
		e := escape(s)
		if back, err := url.PathUnescape(e); err != nil || back != s {
			t.Errorf("%q became %q, and that %q (%v)", s, e, back, err)
		}
		if e == "." || e == ".." || strings.ContainsAny(e, "/?#") {
			t.Errorf("%q became %q", s, e)
		}
	}
}

// Codes, sentinels and statuses belong together, and only what surely was not done counts as such.
func TestCodes(t *testing.T) {
	for _, c := range []Code{CodeNotPrimary, CodeNoPrimary, CodeNoQuorum, CodeUnavailable} {
		if !c.NotDone() {
			t.Errorf("%s", c)
		}
	}
	for _, c := range []Code{CodeUnknownOutcome, CodeInternal, CodeCorrupt, "", "new"} {
		if c.NotDone() {
			t.Errorf("%s counts as not done", c)
		}
	}
	err := fmt.Errorf("write order 7: %w", &Error{Code: CodeNoSync, Detail: "b is lost", Reason: "on_no_sync is refuse", Remedy: "start b"})
	if CodeOf(err) != CodeNoSync || !errors.Is(err, ErrNoSync) || errors.Is(err, ErrNoPrimary) || err.Error() != "write order 7: b is lost: on_no_sync is refuse (start b)" {
		t.Errorf("got %v", err)
	}
	if CodeOf(fmt.Errorf("x: %w", ErrStale)) != CodeStale || CodeOf(errors.New("x")) != CodeInternal {
		t.Error("CodeOf")
	}
}

// Nothing a server sends makes the client panic or allocate out of proportion.
func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"code":"busy","checks":[{"ok":false}]}`), 409)
	f.Add([]byte(`<html>`), 502)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		a := answer{status: status, header: map[string][]string{"Content-Type": {"application/problem+json"}}, body: body}
		e := a.failure(exchange{method: "PUT", path: "/"})
		if e.Code == "" || e.Status != status || e.Error() == "" && e.Detail != "" {
			t.Errorf("%+v", e)
		}
	})
}
