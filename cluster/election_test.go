package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// patient makes the nodes miss heartbeats for minutes before they elect anybody by themselves.
func patient(t *testing.T, nodes ...*machine) {
	t.Helper()
	for _, m := range nodes {
		c := m.raft.ReloadableConfig()
		c.HeartbeatTimeout, c.ElectionTimeout = 5*time.Minute, 5*time.Minute
		if err := m.raft.ReloadConfig(c); err != nil {
			t.Fatal(err)
		}
	}
}

// Proves that the death of a Raft leader that somebody knows of is not waited for by heartbeats.
func TestKnownDeathOfTheLeaderBeginsAnElection(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	dead := leader(t, all...)
	rest := others(all, dead)
	patient(t, rest...)
	dead.stop(false)
	rest[0].LeaderDied(dead.name)
	rest[0].AwaitOther(t.Context(), dead.name)
	if rest[0].leaderless(dead.name) {
		t.Error("no other leader is known after the wait for one")
	}
	eventually(t, "another node leads", func() bool {
		return rest[0].raft.State() == raft.Leader || rest[1].raft.State() == raft.Leader
	})
}

// Being wrong about the death of the leader costs an election at most, and no role.
func TestWrongDeathMovesNoRole(t *testing.T) {
	a, b, c := trio(t)
	all := []*machine{a, b, c}
	old := leader(t, all...)
	rest := others(all, old)
	before := old.group()
	rest[0].LeaderDied(rest[1].name) // does not lead: nothing happens
	old.LeaderDied(old.name)         // itself: nothing happens
	if old.raft.State() != raft.Leader {
		t.Error("it does not lead any more")
	}
	rest[0].LeaderDied(old.name)
	eventually(t, "somebody else leads", func() bool { return old.raft.State() != raft.Leader && leader(t, all...) != nil })
	eventually(t, "all renew with the new leader", func() bool {
		st, _ := rest[0].State()
		for _, n := range before.InSync {
			if st.Nodes[n].Renewal == 0 || !rest[0].LeaseHeld(n) {
				return false
			}
		}
		return true
	})
	time.Sleep(2 * testTiming().Lease) // long enough for a fence, if there were a reason
	if now := rest[0].group(); now.Epoch != before.Epoch || now.Primary != before.Primary || now.Incarnation != before.Incarnation {
		t.Errorf("%s at epoch %s became %s at epoch %s", before.Primary, before.Epoch, now.Primary, now.Epoch)
	}
}

// A node that renews its lease after gossip has seen it die is alive; one that does not is dead. Proves S21 for liveness.
func TestRenewalOutweighsGossip(t *testing.T) {
	a, b, _ := trio(t)
	forge := func(lost time.Time) {
		a.gossip.mu.Lock()
		defer a.gossip.mu.Unlock()
		c := a.gossip.nodes[b.name]
		c.state, c.lost = MemberDead, lost
		a.gossip.nodes[b.name] = c
	}
	forge(time.Now().Add(time.Hour)) // no renewal comes after that
	if a.Alive(b.name) || !a.dead(b.name) {
		t.Errorf("gossip saw it die and it has not renewed since: alive %v, dead %v", a.Alive(b.name), a.dead(b.name))
	}
	forge(time.Now())
	eventually(t, "its renewals outweigh gossip", func() bool { return a.Alive(b.name) && !a.dead(b.name) })
}
