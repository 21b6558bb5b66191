package node

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Only the journal that grows is told to be full at some time.
func TestRunwayOfJournalsThatDoNotGrow(t *testing.T) {
	for state, want := range map[journal.State]float64{journal.Active: 3600, journal.Standby: 0, journal.Inactive: 0} {
		j := replica.JournalStatus{State: state, Space: replica.Space{Runway: time.Hour}}
		if got := shownJournal("default", j, "local").Runway; got != want {
			t.Errorf("%s: %v s, want %v", state, got, want)
		}
		if _, ok := runwayGauge(runway(j)); ok != (want > 0) {
			t.Errorf("%s: the metric is told: %v", state, ok)
		}
	}
}
