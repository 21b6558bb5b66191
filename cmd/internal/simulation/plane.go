package simulation

import (
	"errors"
	"time"

	cluster "github.com/understudy-ha/understudy/cluster/core"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// raft is a replicated log: what is appended is committed, and every node applies it at its own pace. Who leads may
// propose for others; without a majority nothing is appended.
type raft struct {
	log     []fsm.Command
	truth   *fsm.State        // the state after the whole log
	leader  int               // -1: none
	life    ident.Incarnation // of the leader: another one has to be elected
	ill     time.Duration
	limit   time.Duration
	stuck   []fsm.Command // at a leader without a majority: appended later, or never
	results []fsm.Result
}

// append commits a command.
func (r *raft) append(w *world, cmd fsm.Command) {
	if cmd.ID == 0 {
		cmd.ID = w.id()
	}
	cmd.Version = fsm.CommandVersion
	cmd.At = time.Unix(0, int64(w.now))
	before := r.truth.Snapshot()
	res := r.truth.Apply(cmd)
	r.log = append(r.log, cmd)
	r.results = append(r.results, res)
	if cmd.Renew == nil {
		w.write(kind(cmd), w.changed(before), uint64(len(r.log)), uint64(res.Epoch), boolean(res.Refused == ""))
	} else {
		w.trace.hash = mix(w.trace.hash, cmd.ID)
	}
	w.oracle.decided(before, cmd, res)
	if cmd.StartSwitch != nil && res.Refused == "" && !w.healed && w.chance(0.4) {
		w.stats.Waylaid++
		w.after(w.between(0, aheadPatience), func() { w.waylay(cmd.StartSwitch) })
	}
	if cmd.Drop != nil && res.Refused == "" { // an operator who is told of it may be quick
		for range 3 {
			w.after(w.between(ms, lease), w.readmitAny)
		}
		if w.buries() {
			w.after(w.between(ms, 3*lease), func() { w.bury(cmd.Drop.Group, cmd.Drop.Node) })
		}
	}
}

// changed names the group that the last command changed, if it changed one.
func (w *world) changed(before *fsm.State) string {
	for _, g := range w.groups {
		if was := before.Groups[g]; was != nil && was != w.raft.truth.Groups[g] {
			return string("  " + g)
		}
	}
	return ""
}

// kind names a command for the trace.
func kind(c fsm.Command) string {
	switch {
	case c.Fence != nil:
		return "log: fence"
	case c.Promise != nil:
		return "log: promise"
	case c.Promote != nil:
		return "log: promote"
	case c.Open != nil:
		return "log: open"
	case c.ChangeSet != nil:
		return "log: set"
	case c.StartSwitch != nil:
		return "log: switch"
	case c.AdvanceSwitch != nil:
		return "log: advance"
	case c.Handover != nil:
		return "log: handover"
	case c.AbortSwitch != nil:
		return "log: abort"
	case c.FinishSwitch != nil:
		return "log: finish"
	case c.Leave != nil:
		return "log: leave"
	case c.Release != nil:
		return "log: release"
	case c.Drop != nil:
		return "log: drop"
	case c.Readmit != nil:
		return "log: readmit"
	case c.SetHold != nil:
		return "log: hold"
	case c.RemoveHold != nil:
		return "log: hold ends"
	case c.ChangeSpec != nil:
		return "log: spec"
	}
	return "log"
}

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// answer is told the outcome of a proposal.
type answer func(res fsm.Result, err error)

var errUnknown = errors.New("outcome unknown")

// healthy tells whether a node could lead now.
func (w *world) healthy(n *node) bool {
	if !n.up || n.paused() {
		return false
	}
	heard := 0
	for _, o := range w.nodes {
		if o == n || o.up && !o.paused() && w.reaches(n, o) && w.reaches(o, n) {
			heard++
		}
	}
	return 2*heard > len(w.nodes)
}

// raftLoop elects, and lets the leader tell the others how far the log is.
func (w *world) raftLoop() {
	r := &w.raft
	w.after(raftTick, w.raftLoop)
	if r.leader >= 0 && w.healthy(w.nodes[r.leader]) && w.nodes[r.leader].life == r.life {
		r.ill = w.now
		for _, cmd := range r.stuck {
			w.stats.LateCommits++
			r.append(w, cmd)
		}
		r.stuck = nil
		w.spread()
		return
	}
	if w.now-r.ill < r.limit {
		return
	}
	var able []*node
	for _, n := range w.nodes {
		if w.healthy(n) {
			able = append(able, n)
		}
	}
	if len(able) == 0 {
		return
	}
	w.lead(able[w.rng.IntN(len(able))])
}

// lead makes a node the leader of Raft.
func (w *world) lead(n *node) {
	r := &w.raft
	r.leader, r.life, r.ill, r.limit = n.i, n.life, w.now, w.between(100*ms, 400*ms)
	if w.chance(0.5) {
		w.stats.LostCommands += uint64(len(r.stuck))
		r.stuck = nil
	}
	w.stats.LeaderChanges++
	w.note("leads raft", n.id, 0, 0, 0)
	n.apply(len(r.log)) // a barrier
	n.sightings, n.leads = cluster.NewSightings(), n.life
	n.manage(n.life)
}

// spread tells every node how far the log is.
func (w *world) spread() {
	leader := w.nodes[w.raft.leader]
	for _, n := range w.nodes {
		if n != leader {
			end := len(w.raft.log)
			w.send(leader, n, func() { n.apply(end) })
		}
	}
}

// propose hands a command to the leader. then is called once: with the result when this node has applied it, or with an
// error when that takes too long, or the process is another one by then: never.
func (n *node) propose(cmd fsm.Command, then answer) {
	w := n.w
	if cmd.ID == 0 {
		cmd.ID = w.id()
	}
	life := n.life
	n.waits[cmd.ID] = then
	n.at(proposeFor, func() {
		if n.life == life && n.waits[cmd.ID] != nil {
			delete(n.waits, cmd.ID)
			w.stats.Unknown++
			then(fsm.Result{}, errUnknown)
		}
	})
	n.hand(cmd, 0)
}

// hand sends a command to the leader, again while there is none.
func (n *node) hand(cmd fsm.Command, tries int) {
	w := n.w
	if w.raft.leader < 0 {
		return
	}
	leader := w.nodes[w.raft.leader]
	if !leader.up && tries < 5 {
		n.at(30*ms, func() {
			if n.waits[cmd.ID] != nil {
				n.hand(cmd, tries+1)
			}
		})
		return
	}
	appended := false // the network may carry it twice; the leader's own queue does not
	w.send(n, leader, func() {
		if w.raft.leader != leader.i || leader.life != w.raft.life || appended {
			return
		}
		appended = true
		d := w.between(ms/5, ms) * leader.disk
		late := 0.02
		if cmd.Handover != nil || cmd.ChangeSet != nil || cmd.Open != nil { // whose proposer must not guess the outcome
			late = 0.12
		}
		if w.chance(late) && !w.healed { // a disk that takes its time: the proposer has given up by then
			d += w.between(20*ms, 2*lease)
		}
		leader.at(d, func() {
			switch {
			case w.raft.leader != leader.i:
				w.stats.LostCommands++
			case !w.healthy(leader):
				w.raft.stuck = append(w.raft.stuck, cmd)
			default:
				w.raft.append(w, cmd)
				leader.apply(len(w.raft.log))
				w.spread()
			}
		})
	})
}

// apply brings the node's own state forward.
func (n *node) apply(end int) {
	w := n.w
	if !n.up || end <= n.applied {
		return
	}
	if end-n.applied > 25 && w.chance(0.3) || end-n.applied > 1 && w.chance(0.02) { // too far behind: the leader sends a snapshot of its state
		w.stats.Restores++
		w.note("snapshot", n.id, uint64(n.applied), uint64(end), 0)
		n.state = replay(w, end)
		n.applied = end
		n.leases.Restored(n.boot(), n.state)
	}
	for n.applied < end {
		cmd := w.raft.log[n.applied]
		n.applied++
		res := n.state.Apply(cmd)
		if res.Refused != w.raft.results[n.applied-1].Refused {
			w.fail("S28", "node %s decides %q on command %d, the log says %q", n.id, res.Refused, n.applied, w.raft.results[n.applied-1].Refused)
		}
		st := n.state.Snapshot()
		n.leases.Step(n.boot(), cmd, res, st)
		if then := n.waits[cmd.ID]; then != nil {
			delete(n.waits, cmd.ID)
			then(res, nil)
			if !n.up {
				return
			}
		}
		if (cmd.Promote != nil || cmd.Handover != nil) && res.Refused == "" {
			n.given()
		}
	}
	if w.chance(0.05) {
		n.snap, n.snapAt = n.state.Snapshot(), n.applied
		w.stats.Snapshots++
	}
	n.wake()
}

// given looks whether a role was given to this node just now that its lease does not cover yet. Sometimes it is cut off right then.
func (n *node) given() {
	for _, name := range n.w.groups {
		g := n.state.Groups[name]
		if late := n.late; late != nil && g != nil && g.Holds(n.id, n.life) {
			n.late = nil
			n.w.after(n.w.between(0, lease), func() { n.w.order(*late) })
		}
		switch {
		case g == nil || !g.Holds(n.id, n.life):
		case !n.leases.Holds(n.boot(), name, g.Epoch):
			n.renew()
			return
		case n.w.swings() && !n.w.healed && n.w.chance(0.3):
			n.w.isolate(n)
			return
		case !n.w.healed && n.w.chance(0.1):
			n.w.ambush(n)
			return
		}
	}
}

// replay makes the state after the first commands of the log.
func replay(w *world, end int) *fsm.State {
	if end == len(w.raft.log) {
		c := *w.raft.truth
		return &c
	}
	st := new(fsm.State)
	for _, cmd := range w.raft.log[:end] {
		st.Apply(cmd)
	}
	return st
}

// manage is the loop of the manager on the node that leads.
func (n *node) manage(life ident.Incarnation) {
	w := n.w
	if n.life != life || n.leads != life {
		return
	}
	if w.raft.leader != n.i || w.raft.life != n.life {
		if w.now-n.led > lease { // it has noticed
			n.leads = 0
			return
		}
	} else {
		n.led = w.now
	}
	n.at(managerTick, func() { n.manage(life) })
	if n.deciding > 0 {
		return
	}
	st := n.state.Snapshot()
	v := cluster.View{
		State: st, Now: time.Unix(0, int64(w.now)), Groups: map[ident.GroupName]cluster.GroupView{},
		Dead: n.thinksDead, Silent: func(id ident.NodeID) bool { return id != n.id && !n.leases.MayHold(n.boot(), id) },
	}
	for _, g := range w.groups {
		v.Groups[g] = n.sightings.Look(st.Groups[g], n.boot(), cluster.Patience{Lease: lease, Reports: reportsWait, Takeover: takeover}, n.leases.Cover(n.boot(), g))
	}
	for _, cmd := range cluster.Decide(v) {
		n.deciding++
		n.propose(cmd, func(fsm.Result, error) { n.deciding-- })
	}
}

// thinksDead is gossip: it sees who has not been heard for a while, and sometimes it lies.
func (n *node) thinksDead(id ident.NodeID) bool {
	w := n.w
	if id == n.id {
		return false
	}
	if w.forged > 0 && w.chance(w.forged) {
		return true
	}
	return w.now-w.links[w.byID(id).i][n.i].heard > deadAfter
}

// alive is gossip, seen from the other side.
func (n *node) alive(id ident.NodeID) bool { return !n.thinksDead(id) }
