package fsm

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// TestGoldenCommands holds the bytes of commands of version 1. They stand in Raft logs and never change.
func TestGoldenCommands(t *testing.T) {
	for _, c := range []struct {
		c    Command
		want string
	}{
		{Command{ID: 7, At: noon, Renew: &Renew{Node: "a", Directory: "d", Incarnation: lifeA, Flushed: map[ident.GroupName]ident.Position{"h": position(1, 2), "g": position(3, 4)}}},
			`{"v":1,"id":7,"at":"2026-03-01T12:00:00Z","renew":{"node":"a","directory":"d","incarnation":161,"flushed":{"g":{"epoch":3,"h":4},"h":{"epoch":1,"h":2}}}}`},
		{Command{At: noon, Fence: &Fence{Group: "g", Epoch: 1, Renewal: 9, Force: true, To: "b", AllowLoss: true, Reason: "r"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","fence":{"group":"g","epoch":1,"renewal":9,"force":true,"to":"b","allow_loss":true,"reason":"r"}}`},
		{Command{At: noon, Promise: &Promise{Group: "g", Report: Report{Node: "b", Epoch: 2, Incarnation: lifeB, Received: position(1, 9), Committed: position(1, 8), Applied: position(1, 7), Torn: true}}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","promise":{"group":"g","report":{"node":"b","epoch":2,"incarnation":177,"received":{"epoch":1,"h":9},"committed":{"epoch":1,"h":8},"applied":{"epoch":1,"h":7},"torn":true}}}`},
		{Command{At: noon, Open: &Open{Group: "g", Epoch: 2, Node: "b", Incarnation: lifeB, Rows: []ident.HistoryRow{{Epoch: 2, Node: "b", SW: 10, First: 5}}, InSync: []ident.NodeID{"b"}}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","open":{"group":"g","epoch":2,"node":"b","incarnation":177,"rows":[{"epoch":2,"node":"b","sw":10,"first_sequence":5}],"in_sync":["b"]}}`},
		{Command{At: noon, StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon, Reason: "r"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","start_switch":{"group":"g","epoch":1,"to":"b","max_pause":1000000000,"deadline":"2026-03-01T12:00:00Z","reason":"r"}}`},
		{Command{At: noon, Handover: handoverToB()},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","handover":{"group":"g","operation":1,"epoch":1,"from":"a","from_life":161,"to":"b","incarnation":177,"last":{"epoch":1,"h":9},"in_sync":["b","a"]}}`},
		{Command{At: noon, Fence: &Fence{Group: "g", Epoch: 1, To: "b", AllowLoss: true, Reason: "r", Automatic: true, Accept: &Acceptance{Beyond: position(1, 5), To: position(1, 9), Entries: 4, By: "ann"}}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","fence":{"group":"g","epoch":1,"renewal":0,"force":false,"to":"b","allow_loss":true,"reason":"r","automatic":true,"accept":{"beyond":{"epoch":1,"h":5},"to":{"epoch":1,"h":9},"entries":4,"by":"ann"}}}`},
		{Command{At: noon, Promote: &Promote{Group: "g", Epoch: 2, To: "b", Incarnation: lifeB, Loss: LossNone, Passed: []PassedOver{{Node: "c", Received: position(1, 9), Why: "w"}, {Node: "a", Why: "w"}}}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","promote":{"group":"g","epoch":2,"to":"b","incarnation":177,"loss":"none","passed_over":[{"node":"c","received":{"epoch":1,"h":9},"why":"w"},{"node":"a","why":"w"}]}}`},
		{Command{At: noon, SetPause: &SetPause{Version: 3, On: true, Reason: "r", By: "ann", Until: noon}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","set_pause":{"version":3,"on":true,"reason":"r","by":"ann","until":"2026-03-01T12:00:00Z"}}`},
		{Command{At: noon, SetPause: &SetPause{Version: 4}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","set_pause":{"version":4,"on":false}}`},
		{Command{At: noon, SetMaintenance: &SetMaintenance{Node: "a", Version: 1, On: true, Reason: "r", By: "ann", Until: noon}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","set_maintenance":{"node":"a","version":1,"on":true,"reason":"r","by":"ann","until":"2026-03-01T12:00:00Z"}}`},
		{Command{At: noon, ScheduleSwitch: &ScheduleSwitch{Group: "g", To: "b", At: noon, MaxPause: time.Second, Reason: "r", By: "ann"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","schedule_switch":{"group":"g","to":"b","at":"2026-03-01T12:00:00Z","max_pause":1000000000,"reason":"r","by":"ann"}}`},
		{Command{At: noon, DelaySchedule: &DelaySchedule{Group: "g", Operation: 1, Waits: "w"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","delay_schedule":{"group":"g","operation":1,"waits":"w"}}`},
		{Command{At: noon, CancelSchedule: &CancelSchedule{Group: "g", Operation: 1, Outcome: ScheduleMissed, Reason: "r"}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","cancel_schedule":{"group":"g","operation":1,"outcome":"missed","reason":"r"}}`},
		{Command{At: noon, StartSwitch: &StartSwitch{Group: "g", Epoch: 1, To: "b", MaxPause: time.Second, Deadline: noon, Reason: "r", Schedule: 7}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","start_switch":{"group":"g","epoch":1,"to":"b","max_pause":1000000000,"deadline":"2026-03-01T12:00:00Z","reason":"r","schedule":7}}`},
		{Command{At: noon, Renew: &Renew{Node: "a", Directory: "d", Incarnation: lifeA, Copies: map[ident.GroupName]Ends{"g": {"b": 4}}, Number: 8}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","renew":{"node":"a","directory":"d","incarnation":161,"copies":{"g":{"b":4}},"number":8}}`},
		{Command{At: noon, Leave: &Leave{Node: "a", Incarnation: lifeA}},
			`{"v":1,"id":0,"at":"2026-03-01T12:00:00Z","leave":{"node":"a","incarnation":161}}`},
	} {
		b, err := EncodeCommand(c.c)
		if err != nil || string(b) != c.want {
			t.Errorf("got  %s\nwant %s\n%v", b, c.want, err)
		}
	}
}

// TestGoldenSnapshot reads a snapshot of version 1 that holds every kind of content, and writes it back to the byte.
func TestGoldenSnapshot(t *testing.T) {
	want, err := os.ReadFile("testdata/snapshot.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := s.Encode(&got); err != nil || got.String() != string(want) {
		t.Fatalf("read and written again:\n%s\n%s, %v", got.String(), want, err)
	}
	if text := golden(t).bytes(); text != string(want) {
		t.Fatalf("the same commands lead elsewhere:\n%s\n%s", text, want)
	}
}

// golden ends with a group in the middle of a failover after a switch-over, one that is open, one in a forced failover, a
// pause and a node in maintenance.
func golden(t testing.TB) *fixture {
	f := handed(t)
	f.must(Command{FinishSwitch: &FinishSwitch{Group: "g", Operation: 1, Node: "b", First: 5, Detail: "pause 12ms"}})
	f.must(Command{CreateGroup: &CreateGroup{Spec: spec("h", "c"), Incarnation: lifeC}})
	f.must(Command{Open: &Open{Group: "h", Epoch: 1, Node: "c", Incarnation: lifeC, Rows: []ident.HistoryRow{row(1, "c", 1)}, InSync: []ident.NodeID{"c"}}})
	f.must(Command{Renew: &Renew{Node: "c", Directory: "dir-c", Incarnation: lifeC, Flushed: map[ident.GroupName]ident.Position{"g": position(2, 11)}}})
	f.must(Command{Release: &Release{Node: "b", Incarnation: lifeB}})
	f.must(Command{Fence: &Fence{Group: "g", Epoch: 2, Reason: "b died"}})
	f.report("a", lifeA, position(2, 12))
	f.must(Command{Promote: &Promote{Group: "g", Epoch: 3, To: "a", Incarnation: lifeA, Loss: LossNone}})
	f.renew("b", 0xb2)
	f.must(Command{CreateGroup: &CreateGroup{Spec: GroupSpec{Name: "i", Preferred: "c", Switchback: SwitchbackAuto}, Incarnation: lifeC}})
	f.must(Command{SetMaintenance: &SetMaintenance{Node: "b", On: true, Reason: "disk", By: "ann", Until: noon.Add(time.Hour)}})
	f.must(Command{SetPause: &SetPause{On: true, Reason: "new switches", By: "ann", Until: noon.Add(time.Hour)}})
	f.must(Command{Fence: &Fence{Group: "i", Epoch: 1, Force: true, To: "a", AllowLoss: true, Accept: &Acceptance{Beyond: position(1, 5), To: position(1, 9), Entries: 4, By: "ann"}, Reason: "operator"}})
	f.must(Command{Promise: &Promise{Group: "i", Report: Report{Node: "a", Epoch: 2, Incarnation: lifeA, Received: position(1, 5)}}})
	f.must(Command{Promote: &Promote{Group: "i", Epoch: 2, To: "a", Incarnation: lifeA, Loss: "beyond i@1.5", Passed: f.Groups["i"].PassedOver("a", f.Nodes)}})
	return f
}
