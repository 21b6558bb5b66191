package node

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Proves HB-2: a position of local files names its node. Where a decision hangs on it, one of another node, one that names none, and
// one of a group are refused, with the reason; a group's positions are as ever.
func TestLocalPositionsNameTheirNode(t *testing.T) {
	n := &Node{config: Config{Node: "b", Kind: fsm.KindData, LocalFiles: true}}
	n.local = newLocal(n)
	at := ident.Position{Epoch: 1, History: 5}
	if got := n.position(localGroup, at); got != "local/b@1.5" {
		t.Errorf("a local position: %s", got)
	}
	if got := n.position("orders", at); got != "orders@1.5" {
		t.Errorf("a group's position: %s", got)
	}
	if got := at.Format(HistoryOf(ident.JournalID{Group: "orders", Node: "a"})); got != "orders@1.5" {
		t.Errorf("a group's position in a journal: %s", got)
	}
	for _, c := range []struct {
		group    ident.GroupName
		text     string
		want     string // in the error; "": it is taken
		decision bool   // it is refused where a decision hangs on it only
	}{
		{localGroup, "local/b@1.5", "", false},
		{localGroup, "local/c@1.5", "node c", false},
		{localGroup, "local@1.5", "does not say whose", false},
		{localGroup, "1.5", "does not say whose", true},
		{localGroup, "orders@1.5", "group orders", false},
		{localGroup, "local/bb@1.5", "node bb", false},
		{"orders", "orders@1.5", "", false},
		{"orders", "1.5", "", false},
	} {
		got, ok, err := n.conditionOf(c.group, "notes", []byte("k"), false, false, c.text)
		if c.want == "" && (err != nil || !ok || got.Position != at) {
			t.Errorf("condition %s on %s: %+v, %v", c.text, c.group, got, err)
		}
		if c.want != "" && (client.CodeOf(err) != client.CodeInvalid || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("condition %s on %s: %v", c.text, c.group, err)
		}
		if err := n.placed(string(c.group), "", c.text); (err != nil) != (c.want != "" && !c.decision) {
			t.Errorf("reading from %s in %s: %v", c.text, c.group, err)
		}
		if err := n.placed(string(c.group), "", "42", "now"); err != nil {
			t.Errorf("reading from a sequence number: %v", err)
		}
	}
	if _, _, err := n.conditionOf("orders", "orders", []byte("k"), false, false, "local/b@1.5"); client.CodeOf(err) != client.CodeInvalid {
		t.Errorf("a local position for a group's record: %v", err)
	}
	for _, text := range []ident.GroupName{"local/c", "local"} {
		if _, err := (data{n}).Receipt(t.Context(), text, at, time.Second); client.CodeOf(err) != client.CodeInvalid {
			t.Errorf("a receipt of %s: %v", text, err)
		}
	}
	if _, err := (data{n}).Receipt(t.Context(), "local/b", at, time.Second); client.CodeOf(err) != client.CodeUnavailable { // there is no journal here
		t.Errorf("a receipt of this node: %v", err)
	}
	for _, e := range []string{
		failedCondition(n.history(localGroup), &replica.ConditionError{Exists: true, Position: at}).Detail,
		keyReused(n.history(localGroup), &replica.KeyReusedError{Position: at}).Detail,
		receiver(ident.JournalID{Group: localGroup, Node: "b"}, journal.ReceiverInfo{Start: at}).Start,
	} {
		if !strings.Contains(e, "local/b@1.5") {
			t.Errorf("it does not name its node: %s", e)
		}
	}
}
