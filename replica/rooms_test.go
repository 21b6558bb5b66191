package replica

import (
	"testing"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica/core"
)

// Proves TR-6: a journal that sets space aside, as every new one does, is not taken for one that fills up; one that writes into
// such space is.
func TestRunwayCountsWhatIsWritten(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		later journal.Space
		want  func(time.Duration) bool
	}{
		"space is set aside":             {journal.Space{Held: mib, Unused: mib}, func(d time.Duration) bool { return d == core.RunwayEndless }},
		"spares are made":                {journal.Space{Held: 65 * mib, Spare: 64 * mib, Unused: 65 * mib}, func(d time.Duration) bool { return d == core.RunwayEndless }},
		"space that was set aside fills": {journal.Space{Held: mib}, func(d time.Duration) bool { return d > 100*time.Hour && d < 200*time.Hour }},
	} {
		t.Run(name, func(t *testing.T) {
			const author = ident.NodeID("a")
			var s rooms
			s.look(author, journal.Space{}, 1<<40)
			s.began = s.began.Add(-time.Minute) // it was a minute ago
			s.look(author, c.later, 10<<30)
			if d := s.last(author).Runway; !c.want(d) {
				t.Errorf("it is full in %s", d)
			}
		})
	}
}
