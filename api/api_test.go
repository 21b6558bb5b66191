package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a node behind the interface. It notes what it was asked; err and the functions change its answers.
type fake struct {
	mu      sync.Mutex
	calls   []string
	err     error                           // answered by everything
	ask     func(ctx context.Context) error // asked by everything before it answers
	status  client.Status
	ready   *client.Readiness
	op      client.Operation // what a switch-over or failover starts
	later   client.Operation // what Operation answers
	events  func(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error)
	notLive error
	stream  EntryStream // what a stream gives; nil: nothing

	switched client.SwitchoverRequest // the last one that arrived
}

func (f *fake) lastSwitch() client.SwitchoverRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.switched
}

func (f *fake) note(ctx context.Context, format string, args ...any) error {
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	err, ask := f.err, f.ask
	f.mu.Unlock()
	if ask != nil {
		return ask(ctx)
	}
	return err
}

// take returns the calls since the last take.
func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

var receipt = client.WriteResult{Position: "default@3.42", Journal: "default/a", Sequence: 42}

func (f *fake) Put(ctx context.Context, file string, key, value []byte, o WriteOptions) (client.WriteResult, error) {
	w := receipt
	w.Created, w.Replayed = string(key) == "new", o.IdempotencyKey == "again"
	if !o.Expiry.IsZero() {
		return w, f.note(ctx, "put %s %q until %s%s", file, key, o.Expiry.UTC().Format(time.RFC3339Nano), qualified(o))
	}
	return w, f.note(ctx, "put %s %q %q %s%s", file, key, value, o.Wait, qualified(o))
}

func (f *fake) Delete(ctx context.Context, file string, key []byte, o WriteOptions) (client.WriteResult, error) {
	return receipt, f.note(ctx, "delete %s %q%s", file, key, qualified(o))
}

func (f *fake) Transact(ctx context.Context, t client.Transaction, o WriteOptions) (client.TransactionResult, error) {
	call := fmt.Sprintf("transact %q", t.Group)
	for _, c := range t.Changes {
		call += fmt.Sprintf(" %s/%q=%q", c.File, c.Bytes(), c.Content())
		if c.Delete {
			call += " delete"
		}
		call += qualified(WriteOptions{WriteOptions: client.WriteOptions{IfAbsent: c.IfAbsent, IfExists: c.IfExists, IfPosition: c.IfPosition}})
	}
	for _, c := range t.Conditions {
		call += fmt.Sprintf(" if %s/%q", c.File, c.Bytes()) + qualified(WriteOptions{WriteOptions: client.WriteOptions{IfAbsent: c.IfAbsent, IfExists: c.IfExists, IfPosition: c.IfPosition}})
	}
	return client.TransactionResult{Position: receipt.Position, Journal: receipt.Journal, Sequence: receipt.Sequence, Changes: []client.ChangeResult{{Created: true}}, Replayed: o.IdempotencyKey == "again"},
		f.note(ctx, "%s", call+qualified(o))
}

// qualified shows the options of a write that are set.
func qualified(o WriteOptions) (s string) {
	if o.IfAbsent {
		s += " absent"
	}
	if o.IfExists {
		s += " exists"
	}
	if o.IfPosition != "" {
		s += " at " + o.IfPosition
	}
	if o.IdempotencyKey != "" {
		s += fmt.Sprintf(" once %q %x", o.IdempotencyKey, o.Request[:2])
	}
	return s
}

func (f *fake) Get(ctx context.Context, file string, key []byte, o client.ReadOptions) (client.Record, error) {
	return client.Record{
		File: file, Key: client.MakeKey(key), Value: []byte("3 apples"), Position: "default@3.41", Applied: "default@3.42", Age: 0.25,
		Time: time.Unix(1, 5).UTC(), Expiry: time.Unix(9, 0).UTC(), Kind: client.KindHash, Node: "b",
	}, f.note(ctx, "get %s %q local=%t lag=%s", file, key, o.Local, o.MaxLag)
}

func (f *fake) List(ctx context.Context, file string, o client.ListOptions) (client.RecordPage, error) {
	next := client.MakeKey([]byte{0xff, 'k'})
	return client.RecordPage{File: file, Records: []client.Record{{File: file, Key: next}}, Next: &next},
		f.note(ctx, "list %s %q %q %d group=%s local=%t", file, o.Prefix, o.From, o.Limit, o.Group, o.Local)
}

func (f *fake) Receipt(ctx context.Context, group ident.GroupName, at ident.Position, wait time.Duration) (client.Receipt, error) {
	return client.Receipt{Position: at.Format(group), Outcome: client.OutcomeNotDone}, f.note(ctx, "receipt %s %s", at.Format(group), wait.Round(time.Second))
}

func (f *fake) Status(ctx context.Context, local bool) (client.Status, error) {
	return f.status, f.note(ctx, "status local=%t", local)
}

func (f *fake) Group(ctx context.Context, name string) (client.GroupStatus, error) {
	g, _ := f.status.Group(name)
	return g, f.note(ctx, "group %s", name)
}

func (f *fake) Resync(ctx context.Context, name string) (client.Resync, error) {
	return client.Resync{Phase: client.ResyncReplay, Percent: 50}, f.note(ctx, "resync %s", name)
}

func (f *fake) Why(ctx context.Context, name, to string) (client.Readiness, error) {
	return client.Readiness{Group: name, To: to, Ready: true}, f.note(ctx, "why %s %s", name, to)
}

func (f *fake) CreateGroup(ctx context.Context, spec client.GroupSpec) error {
	return f.note(ctx, "create %s %v", spec.Name, spec.Files)
}

func (f *fake) Switchover(ctx context.Context, group string, r client.SwitchoverRequest) (client.Operation, *client.Readiness, error) {
	f.mu.Lock()
	f.switched = r
	f.mu.Unlock()
	return f.op, f.ready, f.note(ctx, "switchover %s %q dry=%t %s", group, r.To, r.DryRun, r.MaxPause)
}

func (f *fake) CancelSwitchover(ctx context.Context, group string) error {
	return f.note(ctx, "cancel %s", group)
}

func (f *fake) Failover(ctx context.Context, group string, r client.FailoverRequest) (client.Operation, error) {
	return f.op, f.note(ctx, "failover %s %q loss=%t", group, r.To, r.AllowDataLoss)
}

func (f *fake) Pause(ctx context.Context, r client.OrderRequest) (client.PauseState, error) {
	return client.PauseState{Pause: &client.Order{Reason: r.Reason, By: r.By}}, f.note(ctx, "pause %q %s by %s", r.Reason, r.For, r.By)
}

func (f *fake) Resume(ctx context.Context) (client.PauseState, error) {
	return client.PauseState{}, f.note(ctx, "resume")
}

func (f *fake) Maintain(ctx context.Context, node string, r client.OrderRequest) (client.MaintenanceState, error) {
	return client.MaintenanceState{Node: node, Maintenance: &client.Order{Reason: r.Reason}}, f.note(ctx, "maintain %s %q %s by %s", node, r.Reason, r.For, r.By)
}

func (f *fake) EndMaintenance(ctx context.Context, node string) (client.MaintenanceState, error) {
	return client.MaintenanceState{Node: node}, f.note(ctx, "end maintenance %s", node)
}

func (f *fake) DeleteGroup(ctx context.Context, group string, dryRun bool, by string) (client.GroupDeletion, error) {
	return client.GroupDeletion{Group: group, Deleted: !dryRun, Epoch: 3, Blockers: []client.DeletionBlocker{}}, f.note(ctx, "delete group %s dry=%t", group, dryRun)
}

func (f *fake) ChangeGroup(ctx context.Context, group string, keys []string, spec client.GroupSpec, ifVersion *uint64, by string) (client.GroupChange, error) {
	version := uint64(0)
	if ifVersion != nil {
		version = *ifVersion
	}
	return client.GroupChange{Group: group, Spec: spec, Version: version + 1, Changed: keys},
		f.note(ctx, "change %s %v to %s %d %s if %d by %s", group, keys, spec.Delivery, spec.Blocks, spec.ReceiverAge, version, by)
}

func (f *fake) Readmit(ctx context.Context, group, node, by string) (client.Readmission, error) {
	return client.Readmission{Group: group, Node: node}, f.note(ctx, "readmit %s %s by %s", group, node, by)
}

func (f *fake) Holds(ctx context.Context, group string) ([]client.Hold, error) {
	return []client.Hold{{Name: "reader"}}, f.note(ctx, "holds %s", group)
}

func (f *fake) SetHold(ctx context.Context, group, name string, at ident.Position, r client.HoldRequest) (client.Hold, error) {
	return client.Hold{Name: name, Position: r.Position, By: r.By}, f.note(ctx, "hold %s %s %s for %s by %s", group, name, at, r.For, r.By)
}

func (f *fake) RemoveHold(ctx context.Context, group, name string) error {
	return f.note(ctx, "release %s %s", group, name)
}

func (f *fake) ForecastFailover(ctx context.Context, group string, r client.FailoverRequest) (client.LossForecast, error) {
	return client.LossForecast{Group: group, To: r.To, Beyond: "default@3.40"}, f.note(ctx, "forecast %s %q", group, r.To)
}

func (f *fake) Operations(ctx context.Context) ([]client.Operation, error) {
	return []client.Operation{f.later}, f.note(ctx, "operations")
}

func (f *fake) Operation(ctx context.Context, id uint64, wait time.Duration) (client.Operation, error) {
	return f.later, f.note(ctx, "operation %d %s", id, wait)
}

func (f *fake) History(ctx context.Context, group string) ([]client.Certificate, error) {
	return []client.Certificate{{Group: group, Loss: "none"}}, f.note(ctx, "history %s", group)
}

func (f *fake) Events(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
	if f.events != nil {
		return f.events(ctx, since, wait)
	}
	return []client.Event{{ID: since + 1, Severity: client.SeverityInfo}}, f.note(ctx, "events %d", since)
}

func (f *fake) Release(ctx context.Context, node string, life uint64) (client.Release, error) {
	return client.Release{Node: node, Incarnation: fmt.Sprintf("%016x", life), Groups: []string{"default"}}, f.note(ctx, "release %s %x", node, life)
}

func (f *fake) Ready(context.Context) error { return f.notLive }

func (f *fake) Journals(ctx context.Context, group string) ([]client.Journal, error) {
	return nil, f.note(ctx, "journals %s", group)
}

func (f *fake) Receivers(ctx context.Context, group, node string) ([]client.Receiver, error) {
	return []client.Receiver{{Number: 7}}, f.note(ctx, "receivers %s/%s", group, node)
}

func (f *fake) Entries(ctx context.Context, group, node string, e client.EntryFilter) (client.EntryPage, error) {
	return client.EntryPage{Items: []client.Entry{{Sequence: 12, Code: "R", Type: "PT", Key: client.MakeKey([]byte("k")), After: &client.Image{Value: []byte{0, 1}}}}, Next: 13},
		f.note(ctx, "entries %s/%s %d-%d since=%s %s%s %s %q %d all=%t limit=%d", group, node, e.From, e.To,
			e.Since.Format(time.RFC3339), e.Code, e.Type, e.File, e.Key, e.Transaction, e.IncludeAll, e.Limit)
}

func (f *fake) Archived(ctx context.Context, group string, q client.ArchiveQuery) (client.ArchivePage, error) {
	return client.ArchivePage{URL: "file:///x", Items: []client.ArchivedReceiver{{Receiver: 7}}, Next: "n"}, f.note(ctx, "archived %s node=%s after=%s limit=%d", group, q.Node, q.After, q.Limit)
}

func (f *fake) StartCopy(ctx context.Context, group, node string, q client.CopyStartRequest) (client.CopyStart, error) {
	return client.CopyStart{Journal: group + "/" + node, Target: q.Target, Receiver: 4, From: 101}, f.note(ctx, "start %s %s at %s from %s", group, node, q.Target, q.From)
}

func (f *fake) ChangeReceiver(ctx context.Context, group string) (client.Receiver, error) {
	return client.Receiver{Number: 8, Attached: true}, f.note(ctx, "change-receiver %s", group)
}

func (f *fake) DepositEntry(ctx context.Context, group, typ string, data []byte, o WriteOptions) (client.WriteResult, error) {
	return receipt, f.note(ctx, "deposit %s %s %q%s", group, typ, data, qualified(o))
}

func (f *fake) Backouts(ctx context.Context, group string) ([]client.Backout, error) {
	return []client.Backout{{ID: "x"}}, f.note(ctx, "backouts %s", group)
}

func (f *fake) Backout(ctx context.Context, group, id string) (client.Backout, error) {
	return client.Backout{ID: id, Entries: []client.BackoutEntry{{LivesOn: true}}}, f.note(ctx, "backout %s %s", group, id)
}

func (f *fake) Digest(ctx context.Context, group string) (client.Digest, error) {
	return client.Digest{Group: group, Sum: "ab"}, f.note(ctx, "digest %s", group)
}

func (f *fake) Verify(ctx context.Context, group, node string) error {
	return f.note(ctx, "verify %s/%s", group, node)
}

func (f *fake) Repair(ctx context.Context, group, node string) (client.Repair, error) {
	return client.Repair{Journal: group + "/" + node, OK: true, Rot: []client.RotPlace{}}, f.note(ctx, "repair %s/%s", group, node)
}

func (f *fake) Content(ctx context.Context, group, node string, number uint32) (ReceiverContent, error) {
	if err := f.note(ctx, "content %s/%s %d", group, node, number); err != nil {
		return nil, err
	}
	return fakeContent{strings.NewReader("0123456789")}, nil
}

type fakeContent struct{ *strings.Reader }

func (fakeContent) Close() error { return nil }

// testNode is a node whose API answers on a real listener.
type testNode struct {
	*fake
	api     *API
	address string
	stop    func() // ends Serve and waits for it; idempotent
}

func (n *testNode) url(path string) string { return "http://" + n.address + path }

// client returns a client that never repeats anything.
func (n *testNode) client(t *testing.T) *client.Client {
	c := client.NewWith(client.Options{Addresses: []string{n.address}, Retry: -1})
	t.Cleanup(c.Close)
	return c
}

// start serves f; change adapts the options.
func start(t *testing.T, f *fake, change func(*Options)) *testNode {
	t.Helper()
	registry := prometheus.NewRegistry()
	o := Options{Node: "a", Data: f, Roles: f, Journals: f, Logger: hclog.NewNullLogger(), Gatherer: registry, Registerer: registry}
	if change != nil {
		change(&o)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, ln) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return &testNode{fake: f, api: a, address: ln.Addr().String(), stop: stop}
}

// httpClient returns a plain HTTP client without connections that outlive the test.
func httpClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
