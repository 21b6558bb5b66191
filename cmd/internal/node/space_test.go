package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Only the journal that grows is told to be full at some time.
func TestRunwayOfJournalsThatDoNotGrow(t *testing.T) {
	for state, want := range map[journal.State]float64{journal.Active: 3600, journal.Standby: 0, journal.Inactive: 0} {
		j := replica.JournalStatus{State: state, Space: replica.Space{Runway: time.Hour}}
		if got := shownJournal(j, "local").Runway; got != want {
			t.Errorf("%s: %v s, want %v", state, got, want)
		}
		if _, ok := runwayGauge(runway(j)); ok != (want > 0) {
			t.Errorf("%s: the metric is told: %v", state, ok)
		}
	}
}

// Proves TR-5: who looks at a full journal is told what helps, and which consumers hold receivers, with the command that lets them go.
func TestNotesOfAFullJournal(t *testing.T) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "orders"}, Consumers: []fsm.Hold{
		{Name: "billing", Position: at(3, 42), Until: time.Unix(1e9, 0)}, {Name: "search", Position: at(4, 1), Until: time.Unix(2e9, 0)}}}
	if notes := fullNotes("", g); len(notes) != 0 {
		t.Errorf("with room: %v", notes)
	}
	cap := &journal.FullError{Reason: journal.FullMaximum, Bytes: 10, Limit: 9}
	notes := fullNotes(replica.FullText(cap), g)
	for i, parts := range [][]string{
		{"is full", "maximum_blocks", "bring the node back", "hold of a consumer", "program asked", "journal_full"},
		{"billing", "orders@3.42", "understudy journal holds orders --remove billing"},
		{"search", "orders@4.1", "understudy journal holds orders --remove search"},
	} {
		for _, part := range parts {
			if len(notes) != 3 || !strings.Contains(notes[i], part) {
				t.Errorf("note %d without %q: %q", i, part, notes)
			}
		}
	}
	disk := replica.FullText(&journal.FullError{Reason: journal.FullDisk, Err: errors.New("no space")})
	if !strings.Contains(disk, "free space") || strings.Contains(disk, "maximum_blocks") {
		t.Errorf("a full disk: %s", disk)
	}
}
