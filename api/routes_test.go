package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// routeCase calls one route through the client, and says what the node must have been asked.
type routeCase struct {
	call func(ctx context.Context, c *client.Client) (any, error)
	asks []string // of the fake; nil: nothing
	want func(t *testing.T, got any)
}

// is wants exactly v.
func is(v any) func(*testing.T, any) {
	return func(t *testing.T, got any) {
		if !reflect.DeepEqual(got, v) {
			t.Errorf("got %+v, want %+v", got, v)
		}
	}
}

// pick returns a part of an answer, unless there is an error.
func pick[T any](part func(T) any) func(T, error) (any, error) {
	return func(v T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return part(v), nil
	}
}

// routeCases has a row for every route of the table, by method and path.
func routeCases() map[string]routeCase {
	since := time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)
	healthy := func(condition string) routeCase {
		return routeCase{
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(h client.Health) any { return h.Condition })(c.Health(ctx, condition, "default", ""))
			},
			asks: []string{"status local=true"}, want: is(condition),
		}
	}
	live := healthy("livez")
	live.asks = nil
	return map[string]routeCase{
		"GET /v1/groups/{group}/archive": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Archived(ctx, "default", client.ArchiveQuery{Node: "a", After: "c/d/a/1", Limit: 7, Wait: time.Second})
			},
			asks: []string{"archived default node=a after=c/d/a/1 limit=7"},
			want: is(client.ArchivePage{URL: "file:///x", Items: []client.ArchivedReceiver{{Receiver: 7}}, Next: "n"}),
		},
		"GET /v1/receipts/{position:.*}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(r client.Receipt) any { return r.Position + " " + r.Outcome })(c.Receipt(ctx, "orders@3.42", 7*time.Second))
			},
			asks: []string{"receipt orders@3.42 7s"}, want: is("orders@3.42 not_done"),
		},
		"GET /v1/files/{file}/records": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(page client.RecordPage) any { return page.Next.Bytes() })(c.List(ctx, "orders", client.ListOptions{Prefix: []byte("p/"), From: []byte{0xff, '&'}, Limit: 7, Group: "low", Local: true}))
			},
			asks: []string{`list orders "p/" "\xff&" 7 group=low local=true`}, want: is([]byte{0xff, 'k'}),
		},
		"GET /v1/files/{file}/records/{key:.*}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Get(ctx, "or/ders", []byte("a//../b?c%20\x00\xff+ ."), client.ReadOptions{Local: true, MaxLag: 2 * time.Second})
			},
			asks: []string{`get or/ders "a//../b?c%20\x00\xff+ ." local=true lag=2s`},
			want: is(client.Record{
				File: "or/ders", Key: client.MakeKey([]byte("a//../b?c%20\x00\xff+ .")), Value: []byte("3 apples"), Position: "default@3.41",
				Applied: "default@3.42", Age: 0.25, Time: time.Unix(1, 5).UTC(), Expiry: time.Unix(9, 0).UTC(), Kind: client.KindHash, Node: "b",
			}),
		},
		"PUT /v1/files/{file}/records/{key:.*}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Put(ctx, "orders", []byte("new"), []byte("\x00v"), client.WriteOptions{Wait: 3 * time.Second})
			},
			asks: []string{`put orders "new" "\x00v" 3s`},
			want: is(client.WriteResult{Position: "default@3.42", Journal: "default/a", Sequence: 42, Created: true}),
		},
		"DELETE /v1/files/{file}/records/{key:.*}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Delete(ctx, "orders", []byte(".."), client.WriteOptions{})
			},
			asks: []string{`delete orders ".."`}, want: is(receipt),
		},
		"POST /v1/transactions": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				t := client.Transaction{Group: "default"}
				t.Put("orders", []byte("new"), []byte("v")).Put("f", []byte{0xff}, []byte{0xfe}).Delete("f", []byte("k"))
				t.IfAbsent("orders", []byte("new")).IfExists("f", []byte("k")).IfPosition("f", []byte("p"), "default@3.42")
				return c.Transact(ctx, &t, client.WriteOptions{Wait: 3 * time.Second})
			},
			asks: []string{`transact "default" orders/"new"="v" f/"\xff"="\xfe" f/"k"="" delete if orders/"new" absent if f/"k" exists if f/"p" at default@3.42`},
			want: is(client.TransactionResult{Position: "default@3.42", Journal: "default/a", Sequence: 42, Changes: []client.ChangeResult{{Created: true}}}),
		},
		"GET /v1/status": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				if _, err := c.LocalStatus(ctx); err != nil {
					return nil, err
				}
				return pick(func(s client.Status) any { return s.Groups[0].Name })(c.Status(ctx))
			},
			asks: []string{"status local=true", "status local=false"}, want: is("default"),
		},
		"GET /v1/nodes": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Nodes(ctx) },
			asks: []string{"status local=false"}, want: is([]client.NodeStatus{{ID: "a"}}),
		},
		"POST /v1/nodes/{node}/release": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.ReleaseNode(ctx, "b", "00c0ffee00000001")
			},
			asks: []string{"release b c0ffee00000001"},
			want: is(client.Release{Node: "b", Incarnation: "00c0ffee00000001", Groups: []string{"default"}}),
		},
		"GET /v1/groups": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(g []client.GroupStatus) any { return len(g) })(c.Groups(ctx))
			},
			asks: []string{"status local=false"}, want: is(1),
		},
		"POST /v1/groups": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return nil, c.CreateGroup(ctx, client.GroupSpec{Name: "orders", Files: []string{"o*"}})
			},
			asks: []string{"create orders [o*]"},
		},
		"GET /v1/groups/{group}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(g client.GroupStatus) any { return g.Primary })(c.Group(ctx, "default"))
			},
			asks: []string{"group default"}, want: is("a"),
		},
		"DELETE /v1/groups/{group}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				if _, err := c.DryRunDelete(ctx, "orders"); err != nil {
					return nil, err
				}
				return pick(func(d client.GroupDeletion) any { return d.Deleted })(c.DeleteGroup(ctx, "orders"))
			},
			asks: []string{"delete group orders dry=true", "delete group orders dry=false"}, want: is(true),
		},
		"GET /v1/groups/{group}/resync": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Resync(ctx, "default") },
			asks: []string{"resync default"}, want: is(client.Resync{Phase: "replay", Percent: 50}),
		},
		"GET /v1/groups/{group}/why": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(r client.Readiness) any { return r.To })(c.Why(ctx, "default", "b"))
			},
			asks: []string{"why default b"}, want: is("b"),
		},
		"GET /v1/groups/{group}/history": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(h []client.Certificate) any { return h[0].Loss })(c.History(ctx, "default"))
			},
			asks: []string{"history default"}, want: is("none"),
		},
		"POST /v1/groups/{group}/switchover": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(op client.Operation) any { return op.State })(c.Switchover(ctx, "default", client.SwitchoverRequest{To: "b", MaxPause: client.Duration(time.Second)}, time.Minute))
			},
			asks: []string{`switchover default "b" dry=false 1s`, "operation 7 20s"}, want: is("done"),
		},
		"DELETE /v1/groups/{group}/switchover": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return nil, c.CancelSwitchover(ctx, "default")
			},
			asks: []string{"cancel default"},
		},
		"POST /v1/groups/{group}/switchback": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(op client.Operation) any { return op.State })(c.Switchback(ctx, "default", client.SwitchoverRequest{}, time.Second))
			},
			asks: []string{"group default", `switchover default "c" dry=false 0s`, "operation 7 1s"}, want: is("done"),
		},
		"POST /v1/groups/{group}/failover": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(op client.Operation) any { return op.State })(c.Failover(ctx, "default", client.FailoverRequest{To: "b", AllowDataLoss: true, Confirm: "default", AcceptLossBeyond: "3.40"}, time.Second))
			},
			asks: []string{`failover default "b" loss=true`, "operation 7 1s"}, want: is("done"),
		},
		"PUT /v1/pause": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Pause(ctx, client.OrderRequest{Reason: "new switches", By: "ann", For: client.Duration(time.Hour)})
			},
			asks: []string{`pause "new switches" 1h0m0s by ann`}, want: is(client.PauseState{Pause: &client.Order{Reason: "new switches", By: "ann"}}),
		},
		"DELETE /v1/pause": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Resume(ctx) },
			asks: []string{"resume"}, want: is(client.PauseState{}),
		},
		"PATCH /v1/groups/{group}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(g client.GroupChange) any { return g.Version })(c.ChangeGroup(ctx, "default",
					client.GroupPatch{"delivery": "async", "blocks": 64, "receiver_age": "1h", "journal_full": nil, client.PatchIfVersion: 4}))
			},
			asks: []string{"change default [blocks delivery journal_full receiver_age] to async 64 1h0m0s if 4 by 127.0.0.1"}, want: is(uint64(5)),
		},
		"POST /v1/groups/{group}/nodes/{node}/readmit": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Readmit(ctx, "default", "b") },
			asks: []string{"readmit default b by 127.0.0.1"}, want: is(client.Readmission{Group: "default", Node: "b"}),
		},
		"GET /v1/groups/{group}/holds": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(all []client.Hold) any { return all[0].Name })(c.Holds(ctx, "default"))
			},
			asks: []string{"holds default"}, want: is("reader"),
		},
		"PUT /v1/groups/{group}/holds/{name}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.SetHold(ctx, "default", "reader", client.HoldRequest{Position: "default@3.42"})
			},
			asks: []string{"hold default reader 3.42 for 24h0m0s by 127.0.0.1"}, want: is(client.Hold{Name: "reader", Position: "default@3.42", By: "127.0.0.1"}),
		},
		"POST /v1/groups/{group}/journals/{node}/start": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.StartCopy(ctx, "default", "a", client.CopyStartRequest{Target: "c", From: "attached"}, 0)
			},
			asks: []string{"start default a at c from attached"}, want: is(client.CopyStart{Journal: "default/a", Target: "c", Receiver: 4, From: 101}),
		},
		"DELETE /v1/groups/{group}/holds/{name}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return nil, c.RemoveHold(ctx, "default", "reader")
			},
			asks: []string{"release default reader"}, want: is(nil),
		},
		"PUT /v1/nodes/{node}/maintenance": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.Maintain(ctx, "b", client.OrderRequest{Reason: "disk"})
			},
			asks: []string{`maintain b "disk" 0s by 127.0.0.1`}, want: is(client.MaintenanceState{Node: "b", Maintenance: &client.Order{Reason: "disk"}}),
		},
		"DELETE /v1/nodes/{node}/maintenance": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.EndMaintenance(ctx, "b") },
			asks: []string{"end maintenance b"}, want: is(client.MaintenanceState{Node: "b"}),
		},
		"GET /v1/operations": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(ops []client.Operation) any { return ops[0].ID })(c.Operations(ctx))
			},
			asks: []string{"operations"}, want: is(uint64(7)),
		},
		"GET /v1/operations/{id}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(op client.Operation) any { return op.ID })(c.WaitOperation(ctx, 7))
			},
			asks: []string{"operation 7 20s"}, want: is(uint64(7)),
		},
		"GET /v1/events": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(e []client.Event) any { return e[0].ID })(c.Events(ctx, 4, time.Second))
			},
			asks: []string{"events 4"}, want: is(uint64(5)),
		},
		"GET /v1/groups/{group}/journals": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Journals(ctx, "default") },
			asks: []string{"journals default"}, want: is([]client.Journal{}),
		},
		"GET /v1/groups/{group}/journals/{node}/receivers": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Receivers(ctx, "default", "b") },
			asks: []string{"receivers default/b"}, want: is([]client.Receiver{{Number: 7}}),
		},
		// Proves RJ-1: entries are listed with every filter.
		"GET /v1/groups/{group}/journals/{node}/entries": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(e []client.Entry) any { return e[0].After.Value })(c.Entries(ctx, "default", client.Local, client.EntryFilter{
					From: 12, To: 25, Since: since, Code: "R", Type: "PT", File: "orders", Key: []byte("k\xff"), Transaction: 12, IncludeAll: true, Limit: 3,
				}))
			},
			asks: []string{`entries default/a 12-25 since=2026-11-22T15:00:00Z RPT orders "k\xff" 12 all=true limit=3`}, want: is([]byte{0, 1}),
		},
		"POST /v1/groups/{group}/journals/{node}/verify": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Verify(ctx, "default", "local", 0) },
			asks: []string{"verify default/a"}, want: is(client.Verification{Journal: "default/a", OK: true}),
		},
		"POST /v1/groups/{group}/journals/{node}/repair": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Repair(ctx, "default", "local", 0) },
			asks: []string{"repair default/a"}, want: is(client.Repair{Journal: "default/a", OK: true, Rot: []client.RotPlace{}}),
		},
		"GET /v1/groups/{group}/journals/{node}/receivers/{number}/content": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				b, size, err := c.ReceiverContent(ctx, "default", "b", 7, 2, 4)
				return fmt.Sprintf("%s of %d", b, size), err
			},
			asks: []string{"content default/b 7"}, want: is("2345 of 10"),
		},
		"POST /v1/groups/{group}/journals/local/change-receiver": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.ChangeReceiver(ctx, "default") },
			asks: []string{"change-receiver default"}, want: is(client.Receiver{Number: 8, Attached: true}),
		},
		// Proves RJ-14, the deposit.
		"GET /v1/groups/{group}/entries": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(p client.HistoryPage) any { return p.Next + " " + p.Items[0].Journal })(c.Facts(ctx, "default", "default@3.42", client.EntryFilter{Code: "U", Limit: 3}))
			},
			asks: []string{"facts default after=default@3.42 U limit=3"}, want: is("default@3.43 default/b"),
		},
		"POST /v1/groups/{group}/journals/local/entries": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return c.DepositEntry(ctx, "default", client.DepositRequest{Type: "A1", Data: []byte("\x00x")})
			},
			asks: []string{`deposit default A1 "\x00x"`}, want: is(receipt),
		},
		"GET /v1/groups/{group}/backouts": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Backouts(ctx, "default") },
			asks: []string{"backouts default"}, want: is([]client.Backout{{ID: "x"}}),
		},
		"GET /v1/groups/{group}/backouts/{id}": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(b client.Backout) any { return b.Entries[0].LivesOn })(c.Backout(ctx, "default", "3-7"))
			},
			asks: []string{"backout default 3-7"}, want: is(true),
		},
		"GET /v1/groups/{group}/digest": {
			call: func(ctx context.Context, c *client.Client) (any, error) { return c.Digest(ctx, "default") },
			asks: []string{"digest default"}, want: is(client.Digest{Group: "default", Sum: "ab"}),
		},
		"GET /primary": healthy("primary"), "GET /secondary": healthy("secondary"), "GET /standby": healthy("standby"),
		"GET /replica": healthy("replica"), "GET /health": healthy("health"), "GET /livez": live, "GET /readyz": healthy("readyz"),
		"GET /metrics": {
			call: func(ctx context.Context, c *client.Client) (any, error) {
				return pick(func(m []byte) any { return bytes.Contains(m, []byte("understudy_requests_forwarded_total 0")) })(c.Metrics(ctx))
			},
			want: is(true),
		},
	}
}

func newFake() *fake {
	return &fake{
		status: client.Status{
			Node: "a", RaftLeader: "a", Nodes: []client.NodeStatus{{ID: "a"}},
			Groups: []client.GroupStatus{{Name: "default", Primary: "a", Phase: "opened", Spec: client.GroupSpec{Preferred: "c"}}},
		},
		op:    client.Operation{ID: 7, State: client.OperationRunning},
		later: client.Operation{ID: 7, State: client.OperationDone},
	}
}

// Proves CL-4: every route of the table answers, through the public client.
func TestEveryRoute(t *testing.T) {
	n := start(t, newFake(), nil)
	c := n.client(t)
	cases := routeCases()
	for _, rt := range routes() {
		name := rt.method + " " + rt.path
		tc, ok := cases[name]
		if !ok {
			t.Errorf("%s: the table has a route without a case here", name)
			continue
		}
		delete(cases, name)
		t.Run(name, func(t *testing.T) {
			n.take()
			got, err := tc.call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if asked := n.take(); !slices.Equal(asked, tc.asks) {
				t.Errorf("asked %q, want %q", asked, tc.asks)
			}
			if tc.want != nil {
				tc.want(t, got)
			}
		})
	}
	for name := range cases {
		t.Errorf("%s: a case without a route", name)
	}
}

// Every route passes an error of the node on, with its code, to the caller's errors.Is.
func TestEveryRoutePassesErrors(t *testing.T) {
	f := newFake()
	n := start(t, f, nil)
	c := n.client(t)
	f.err = &client.Error{Code: client.CodeUnknownGroup, Detail: "there is no group default"}
	for name, tc := range routeCases() {
		if tc.asks == nil || isHealth(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if _, err := tc.call(t.Context(), c); !errors.Is(err, client.ErrUnknownGroup) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func isHealth(name string) bool {
	return slices.Contains([]string{"primary", "secondary", "standby", "replica", "health", "livez", "readyz"}, strings.TrimPrefix(name, "GET /"))
}
