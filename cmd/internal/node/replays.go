package node

import (
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// Replays bounds the journals in which this node records what it replays, where a group has journal_replays. Their oldest receivers go.
type Replays struct {
	Bytes ByteSize      `yaml:"bytes,omitempty"` // of each group
	Age   time.Duration `yaml:"age,omitempty"`   // receivers go in which all is older; 0: none for that
}

// minReplays takes two of the largest transactions.
const minReplays = 64 << 20

func (r Replays) check() (p []error) {
	if r.Bytes < minReplays {
		p = append(p, fmt.Errorf("replays.bytes: %d: want at least 64MiB; to record nothing, set journal_replays: false in the groups", int64(r.Bytes)))
	}
	if r.Age < 0 || r.Age > 0 && r.Age < time.Minute {
		p = append(p, fmt.Errorf("replays.age: %s: want at least 1m, or 0s for no bound", r.Age))
	}
	return p
}

// replayed describes the journal of what was replayed here; false when there is none.
func replayed(rep *replica.Replica) (client.Journal, bool) {
	s, ok := rep.Replayed()
	if !ok {
		return client.Journal{}, false
	}
	return shownJournal(s, client.JournalReplays), true
}

// remedyOfRot says what helps against a place that stays rotten.
func remedyOfRot(id ident.JournalID) string {
	if id.Node == replica.Replays {
		return "only this node has recorded it, nothing else needs it, and it goes with its receiver; or stop the node and remove the directory of its replays"
	}
	return "start the other data nodes; this is tried again by itself"
}
