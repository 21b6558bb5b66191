package api

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

const switchover = "/v1/groups/default/switchover"

// Proves CL-5 over HTTP: one request, and its four answers.
func TestSwitchoverAnswers(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)

	resp := n.send(t, "POST", switchover, nil) // as `curl -X POST` sends it
	var op client.Operation
	if err := json.NewDecoder(resp.Body).Decode(&op); err != nil || resp.StatusCode != 200 || op.State != client.OperationDone {
		t.Errorf("finished in time: %d %+v %v", resp.StatusCode, op, err)
	}
	if asked := strings.Join(f.take(), "; "); asked != `switchover default "" dry=false 0s; operation 7 30s` {
		t.Errorf("asked %s", asked)
	}

	f.later.State = client.OperationRunning
	resp = n.send(t, "POST", switchover+"?wait=10ms", nil)
	if resp.StatusCode != 202 || resp.Header.Get("Location") != "/v1/operations/7" {
		t.Errorf("still running: %d %v", resp.StatusCode, resp.Header)
	}

	f.later.State = client.OperationRolledBack
	if resp = n.send(t, "POST", switchover, nil); resp.StatusCode != 200 {
		t.Errorf("rolled back: %d", resp.StatusCode)
	}

	f.err = &client.Error{Code: client.CodeBusy}
	if p := problemOf(t, n.send(t, "POST", switchover, nil)); p.Status != 409 || p.Code != client.CodeBusy || p.Remedy == "" {
		t.Errorf("another runs: %+v", p)
	}

	f.err = &client.Error{Code: client.CodePrecondition, Detail: "b lags"}
	f.ready = &client.Readiness{Checks: []client.Check{{Name: "lag", Value: "5", Limit: "0", Detail: "entries"}}}
	if p := problemOf(t, n.send(t, "POST", switchover, nil)); p.Status != 412 || len(p.Checks) != 1 || p.Checks[0].Value != "5" {
		t.Errorf("checks failed: %+v", p)
	}
}

// One that is scheduled is answered at once with what was scheduled and where it is observed; the time and who asks arrive. Proves
// CL-5.
func TestScheduledSwitchoverAnswers(t *testing.T) {
	f := newFake()
	at := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	f.op = client.Operation{ID: 9, Kind: "switchover", Group: "default", To: "b", State: client.OperationScheduled, Schedule: &client.Schedule{At: at, By: "ann"}}
	n := start(t, f, nil)
	resp := n.send(t, "POST", switchover, strings.NewReader(`{"to":"b","at":"2026-03-01T02:00:00Z","by":"ann"}`))
	var op client.Operation
	if err := json.NewDecoder(resp.Body).Decode(&op); err != nil || resp.StatusCode != 202 || resp.Header.Get("Location") != "/v1/operations/9" ||
		op.State != client.OperationScheduled || !op.Schedule.At.Equal(at) || op.Finished() {
		t.Errorf("%d %v %+v %v", resp.StatusCode, resp.Header, op, err)
	}
	if asked := strings.Join(f.take(), "; "); asked != `switchover default "b" dry=false 0s` {
		t.Errorf("asked %s: it waited for the end", asked)
	}
	if r := f.lastSwitch(); !r.At.Equal(at) || r.By != "ann" {
		t.Errorf("what arrived: %+v", r)
	}
	n.send(t, "POST", switchover, nil)
	if by := f.lastSwitch().By; by != "127.0.0.1" {
		t.Errorf("by %q, want where the request came from", by)
	}
	if resp := n.send(t, "POST", switchover, strings.NewReader(`{"at":"tonight"}`)); resp.StatusCode != 400 {
		t.Errorf("a time that is none: %d", resp.StatusCode)
	}
	c := client.NewWith(client.Options{Addresses: []string{n.address}, Retry: -1})
	defer c.Close()
	began := time.Now()
	if op, err := c.Switchover(t.Context(), "default", client.SwitchoverRequest{At: at}, time.Hour); err != nil || op.State != client.OperationScheduled || time.Since(began) > time.Minute {
		t.Errorf("the client: %+v, %v", op, err)
	}
}

// Once an operation runs, no error hides it: the caller might start another one.
func TestStartedOperationIsNeverAnError(t *testing.T) {
	for name, err := range map[string]error{
		"lost":      errors.New("boom"),
		"elsewhere": &Elsewhere{},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			n := start(t, f, nil)
			started := 0
			f.ask = func(context.Context) error {
				if started++; started > 1 {
					return err
				}
				return nil
			}
			resp := n.send(t, "POST", switchover, nil)
			if resp.StatusCode != 202 || started != 2 {
				t.Errorf("status %d, the node was asked %d times", resp.StatusCode, started)
			}
		})
	}
}

func TestDryRun(t *testing.T) {
	f := newFake()
	c := start(t, f, nil).client(t)
	f.ready = &client.Readiness{Ready: true, Loss: "none", EstimatedPause: client.Duration(20 * time.Millisecond)}
	r, err := c.DryRun(t.Context(), "default", client.SwitchoverRequest{To: "b"})
	if err != nil || !r.Ready || r.EstimatedPause.String() != "20ms" {
		t.Errorf("ready: %+v, %v", r, err)
	}
	if asked := f.take(); len(asked) != 1 || asked[0] != `switchover default "b" dry=true 0s` {
		t.Errorf("asked %q", asked)
	}
	f.ready = &client.Readiness{Checks: []client.Check{{Name: "in_sync"}}}
	if r, err = c.DryRun(t.Context(), "default", client.SwitchoverRequest{}); err != nil || r.Ready || len(r.Checks) != 1 {
		t.Errorf("not ready: %+v, %v", r, err)
	}
	f.ready = nil
	if _, err = c.DryRun(t.Context(), "default", client.SwitchoverRequest{}); !errors.Is(err, client.ErrInternal) {
		t.Errorf("no result: %v", err)
	}
}

func TestSwitchbackPreconditions(t *testing.T) {
	f := newFake()
	c := start(t, f, nil).client(t)
	for _, preferred := range []string{"", "a"} { // a is the primary
		f.status.Groups[0].Spec.Preferred = preferred
		if _, err := c.Switchback(t.Context(), "default", client.SwitchoverRequest{}, 0); !errors.Is(err, client.ErrPrecondition) {
			t.Errorf("preferred %q: %v", preferred, err)
		}
	}
	for _, asked := range f.take() {
		if strings.HasPrefix(asked, "switchover") {
			t.Errorf("asked %s", asked)
		}
	}
}

// A failover by hand says where to: any candidate only when that is asked for.
func TestFailoverToAny(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	if resp := n.send(t, "POST", "/v1/groups/default/failover", strings.NewReader(`{"to":"*"}`)); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if asked := f.take(); len(asked) == 0 || asked[0] != `failover default "" loss=false` {
		t.Errorf("asked %q", asked)
	}
}

// Without a majority the answer says so when the time is over, and the time is kept.
func TestNoQuorumIsNamed(t *testing.T) {
	for name, ask := range map[string]func(context.Context) error{
		"nobody is primary": func(context.Context) error { return &Elsewhere{Retry: true} },
		"it waits inside": func(ctx context.Context) error {
			<-ctx.Done()
			return &client.Error{Code: client.CodeUnavailable, Detail: "too late"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.ask = ask
			f.notLive = &client.Error{Code: client.CodeNoQuorum, Detail: "no Raft leader is known here", Remedy: "start the missing nodes"}
			n := start(t, f, nil)
			for _, method := range []string{"PUT", "GET"} {
				began := time.Now()
				p := problemOf(t, n.send(t, method, "/v1/files/f/records/k?wait=300ms", nil))
				if p.Code != client.CodeNoQuorum || p.Status != 503 || p.Remedy != "start the missing nodes" {
					t.Errorf("%s: %+v", method, p)
				}
				if took := time.Since(began); took < 300*time.Millisecond || took > 300*time.Millisecond+grace {
					t.Errorf("%s: took %s", method, took)
				}
			}
		})
	}
}
