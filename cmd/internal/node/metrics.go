package node

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// metrics reads the node's state at every scrape. Labels are bounded: group, node, peer and fixed words.
type metrics struct {
	n *Node

	build, role, epoch, inSync                *prometheus.Desc
	last, confirmed, committed, applied       *prometheus.Desc
	journalBytes                              *prometheus.Desc
	spare, limit, free, runway, full, dropped *prometheus.Desc
	remoteState, lagEntries, lagBytes, lagSec *prometheus.Desc
	lease, hasLeader, held, writes            *prometheus.Desc
}

func newMetrics(n *Node) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("understudy_"+name, help, labels, prometheus.Labels{"node": string(n.config.Node)})
	}
	return &metrics{
		n:            n,
		build:        desc("build_info", "Version of the program, always 1.", "version"),
		role:         desc("role", "1 for the role this node has in the group, 0 for the others.", "group", "role"),
		epoch:        desc("epoch", "Epoch of the group.", "group"),
		inSync:       desc("in_sync", "Number of in-sync secondaries of the group, without the primary.", "group"),
		last:         desc("journal_last_sequence", "Last entry of the journal as this node holds it.", "group", "journal"),
		confirmed:    desc("journal_confirmed_sequence", "Last entry known to be durable at the journal's source.", "group", "journal"),
		committed:    desc("journal_committed_sequence", "Last entry known to be committed.", "group", "journal"),
		applied:      desc("journal_applied_sequence", "Last entry of the present primary's journal in this node's store.", "group"),
		journalBytes: desc("journal_bytes", "Size of the journal's receivers.", "group", "journal"),
		spare:        desc("journal_spare_bytes", "Size of the receivers made ahead.", "group", "journal"),
		limit:        desc("journal_limit_bytes", "The most that the journal may take here; 0: no cap.", "group", "journal"),
		free:         desc("journal_free_bytes", "Bytes free on the disk of the journal; absent: not known.", "group", "journal"),
		runway:       desc("journal_runway_seconds", "Time until the journal is full at the rate of the last minutes; +Inf: it does not grow; absent: not known.", "group", "journal"),
		full:         desc("journal_full", "1 while the journal takes nothing for want of room.", "group", "journal"),
		dropped:      desc("dropped", "Number of nodes of the group that nothing is kept for.", "group"),
		remoteState:  desc("remote_state", "1 for the state of the journal pair, on the primary.", "group", "peer", "state"),
		lagEntries:   desc("remote_lag_entries", "Entries the target has not received, on the primary.", "group", "peer"),
		lagBytes:     desc("remote_lag_bytes", "Bytes the target has not received, on the primary.", "group", "peer"),
		lagSec:       desc("remote_lag_seconds", "How long the target has been behind, on the primary.", "group", "peer"),
		lease:        desc("lease_seconds", "Time left of this node's lease."),
		hasLeader:    desc("raft_has_leader", "1 when this node knows a Raft leader."),
		held:         desc("requests_held", "Writes that wait for a switch-over at this moment.", "group"),
		writes:       desc("writes_state", "1 for what becomes of writes, on the primary: open, or alone, held, refused without an in-sync secondary.", "group", "state"),
	}
}

func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.build, m.role, m.epoch, m.inSync, m.last, m.confirmed, m.committed, m.applied, m.journalBytes, m.spare, m.limit, m.free, m.runway, m.full, m.dropped, m.remoteState,
		m.lagEntries, m.lagBytes, m.lagSec, m.lease, m.hasLeader, m.held, m.writes} {
		ch <- d
	}
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.build, 1, version())
	gauge(m.lease, m.n.cluster.LeaseRemaining().Seconds())
	gauge(m.hasLeader, truth(m.n.cluster.Leader() != ""))
	st, _ := m.n.cluster.State()
	for name, g := range st.Groups {
		m.group(gauge, st, name, g)
	}
}

func (m *metrics) group(gauge func(*prometheus.Desc, float64, ...string), st *fsm.State, name ident.GroupName, g *fsm.Group) {
	group := string(name)
	if self := st.Nodes[m.n.config.Node]; self != nil {
		now := fsm.Role(g, self)
		for _, r := range []string{"primary", "secondary", "standby", "witness", "dropped"} {
			gauge(m.role, truth(r == now), group, r)
		}
	}
	gauge(m.epoch, float64(g.Epoch), group)
	shadows := 0
	for _, n := range g.InSync {
		if n != g.Primary {
			shadows++
		}
	}
	gauge(m.inSync, float64(shadows), group)
	gauge(m.dropped, float64(len(g.Dropped)), group)
	rep := m.n.replicas.get(name)
	if rep == nil {
		return
	}
	s := rep.Status()
	gauge(m.applied, float64(s.AppliedSequence), group)
	gauge(m.held, float64(s.HeldWrites), group)
	if s.Role == replica.RolePrimary {
		for _, state := range []string{"open", "alone", "held", "refused"} {
			gauge(m.writes, truth(string(s.Writes) == state), group, state)
		}
	}
	held := s.Journals
	if own, ok := rep.Replayed(); ok {
		held = append(slices.Clone(held), own)
	}
	for _, j := range held {
		id := j.ID.String()
		gauge(m.last, float64(j.View.Last), group, id)
		gauge(m.confirmed, float64(j.View.Confirmed), group, id)
		gauge(m.committed, float64(j.View.Committed), group, id)
		gauge(m.journalBytes, float64(j.View.Bytes), group, id)
		gauge(m.spare, float64(j.Space.Spare), group, id)
		gauge(m.limit, float64(j.Space.Limit), group, id)
		gauge(m.full, truth(j.Space.Full != nil), group, id)
		if j.Space.Free > 0 {
			gauge(m.free, float64(j.Space.Free), group, id)
		}
		if seconds, ok := runwayGauge(runway(j)); ok {
			gauge(m.runway, seconds, group, id)
		}
	}
	for _, t := range s.Targets {
		peer := string(t.Node)
		for _, state := range []replica.TargetState{replica.TargetNone, replica.TargetConnecting, replica.TargetCatchup, replica.TargetSync, replica.TargetAsync, replica.TargetFed} {
			gauge(m.remoteState, truth(state == t.State), group, peer, string(state))
		}
		gauge(m.lagEntries, float64(t.LagEntries), group, peer)
		gauge(m.lagBytes, float64(t.LagBytes), group, peer)
		gauge(m.lagSec, t.LagSeconds, group, peer)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
