package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
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

// Proves TR-5: who looks at a full journal is told who keeps its receivers, with the command that lets them go; and what helps when nobody does.
func TestTextOfAFullJournal(t *testing.T) {
	full := &journal.FullError{Journal: ident.JournalID{Group: "orders", Node: "a"}, Reason: journal.FullMaximum, Bytes: 10, Limit: 9}
	disk := &journal.FullError{Reason: journal.FullDisk, Err: errors.New("no space")}
	for _, c := range []struct {
		text        string
		has, hasNot []string
	}{
		{replica.FullText(full, []string{"billing keeps it", "b keeps it"}), []string{"is full", "billing keeps it; b keeps it", "understudy group set orders maximum_blocks="}, []string{"bring the node back"}},
		{replica.FullText(full, nil), []string{"is full", "maximum_blocks", "bring the node back", "hold of a consumer", "program asked", "journal_full"}, nil},
		{replica.FullText(disk, nil), []string{"free space"}, []string{"maximum_blocks", "kept"}},
		{replica.FullText(disk, []string{"b keeps it"}), []string{"free space", "b keeps it"}, []string{"maximum_blocks"}},
	} {
		for _, part := range c.has {
			if !strings.Contains(c.text, part) {
				t.Errorf("without %q: %s", part, c.text)
			}
		}
		for _, part := range c.hasNot {
			if strings.Contains(c.text, part) {
				t.Errorf("with %q: %s", part, c.text)
			}
		}
	}
}
