package cli

import (
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/understudy-ha/understudy/client"
)

// What people look at after some weeks, with numbers and names as they are then, is not wider than the screen, and says what it should.
func TestScreensFit(t *testing.T) {
	at := time.Date(2026, 11, 22, 19, 28, 52, 365e6, time.UTC)
	full := "journal orders/a is full: it takes 2.8 MiB, may take 3.0 MiB, and what was offered does not fit: bring the node back that its receivers are kept for, " +
		"or raise maximum_blocks of the group"
	journals := []client.Journal{
		{ID: "orders/a", Kind: "local", State: "ACTIVE", First: 1, Last: 123456789, Durable: 123456789, Confirmed: 123456788, Committed: 123456788, Applied: 123456788,
			Position: "orders@112.123456780", Receivers: 1234, Bytes: 3 << 30, Limit: 4 << 30, Runway: 86400 * 44458},
		{ID: "orders/b", Kind: "remote", State: "INACTIVE", First: 1, Last: 869, Durable: 869, Confirmed: 869, Committed: 869, Position: "orders@11.1093", Receivers: 9, Bytes: 1 << 20, Full: full},
	}
	switched := client.Operation{ID: 12, Kind: "switchover", Group: "orders", From: "a", To: "b", State: client.OperationDone, Reason: "operator", Started: at, Ended: at.Add(40 * time.Millisecond)}
	scheduled := switched
	scheduled.State, scheduled.Ended = client.OperationScheduled, time.Time{}
	scheduled.Schedule = &client.Schedule{At: at.Add(time.Hour), By: "ann"}
	missed := switched
	missed.State, missed.Error = client.OperationRolledBack, "target_alive: b is not alive"
	missed.Schedule = &client.Schedule{At: at, Outcome: client.ScheduleMissed}
	canceled := missed
	canceled.Error, canceled.Schedule = "canceled by the operator", &client.Schedule{At: at, Outcome: client.ScheduleCanceled}
	failover := switched
	failover.Kind, failover.Reason = "failover", "the lease of a ran out"
	promotions := []client.Certificate{
		{Group: "orders", Kind: "create", Epoch: 1, To: "a", SW: "orders@1.1", Loss: "none", At: at, Opened: at.Add(38 * time.Millisecond), Reason: "group created"},
		{Group: "orders", Kind: "failover", Epoch: 12, From: "a", To: "b", SW: "orders@12.123456", Loss: "none", Started: at, At: at, Opened: at.Add(4 * time.Second), Reason: "the lease of a ran out"},
	}
	receipt := client.Receipt{Position: "orders@112.123456789", Committed: "orders@112.123456780", Node: "a"}
	for name, screen := range map[string]struct {
		show  func(io.Writer)
		holds []string
	}{
		"journals": {func(w io.Writer) { writeJournals(w, journals) }, []string{"ATTENTION: journal orders/a is full", "over 1000 d", "123456789", "orders@112.123456780"}},
		"operations": {func(w io.Writer) {
			writeOperations(w, []client.Operation{switched, scheduled, missed, canceled, failover})
		}, []string{"begins", "missed:", "canceled by"}},
		"missed":  {func(w io.Writer) { writeOperation(w, missed) }, []string{"did not begin at", "error: target_alive"}},
		"history": {func(w io.Writer) { writeHistory(w, promotions) }, []string{"12  a → b"}},
		"receipt": {func(w io.Writer) { writeProse(w, 2, receiptText(receipt)) }, []string{"`understudy receipt orders@112.123456789 --wait 10s` waits for it"}},
		"change": {func(w io.Writer) {
			writeChange(w, client.GroupChange{Group: "orders", Changed: []string{"maximum_blocks"}, Version: 1, Note: "receivers that nobody needs go as soon as a journal comes near the cap, whatever keep_receivers says"})
		}, []string{"near the cap"}},
	} {
		var b strings.Builder
		screen.show(&b)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > columns {
				t.Errorf("%s: a line of %d columns:\n%s", name, n, b.String())
				break
			}
		}
		for _, want := range screen.holds {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: %q is missing:\n%s", name, want, b.String())
			}
		}
	}
}

// Proves CL-5: who looks at a switch-over reads for how long it held writes, which is what its steps from drain on add up to.
func TestOperationTellsThePause(t *testing.T) {
	at := time.Date(2026, 11, 22, 19, 28, 52, 0, time.UTC)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	op := client.Operation{ID: 1, Kind: "switchover", Group: "default", From: "a", To: "b", State: client.OperationDone, Step: "open", Started: at, Ended: ms(31), Steps: []client.Step{
		{Name: "prepare", At: at, Took: client.Duration(13 * time.Millisecond)}, {Name: "hold", At: ms(13), Took: client.Duration(5 * time.Millisecond)},
		{Name: "drain", At: ms(18), Took: client.Duration(time.Millisecond)}, {Name: "handover", At: ms(19), Took: client.Duration(8 * time.Millisecond)},
		{Name: "open", At: ms(27), Took: client.Duration(4 * time.Millisecond)},
	}}
	var sum time.Duration
	for _, s := range op.Steps[2:] {
		sum += time.Duration(s.Took)
	}
	if d, ok := op.Held(); !ok || d != sum {
		t.Errorf("held for %v, %v; the steps add up to %v", d, ok, sum)
	}
	const line = "  writes were held for 13.0 ms, from drain on\n"
	for name, change := range map[string]func(*client.Operation){
		"done":            nil,
		"still running":   func(o *client.Operation) { o.Ended, o.State = time.Time{}, client.OperationRunning },
		"none were held":  func(o *client.Operation) { o.Steps, o.State = o.Steps[:2], client.OperationRolledBack },
		"not switch-over": func(o *client.Operation) { o.Kind = "failover" },
	} {
		o := op
		if change != nil {
			change(&o)
		}
		var b strings.Builder
		writeOperation(&b, o)
		if got := strings.Contains(b.String(), line); got != (change == nil) {
			t.Errorf("%s:\n%s", name, b.String())
		}
	}
}
