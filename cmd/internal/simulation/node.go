package simulation

import (
	"time"

	cluster "github.com/understudy-ha/understudy/cluster/core"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

// node is one machine: a disk and a clock that outlast its processes, and the present process, if one runs.
type node struct {
	w      *world
	i      int
	id     ident.NodeID
	kind   fsm.NodeKind
	rate   float64 // of its clock
	offset time.Duration
	disk   time.Duration // how slow, 1 is fast
	hung   time.Duration // its disk does nothing until then

	late   *fsm.Command // a renewal of an earlier life, on its way until the present one is given a role
	snap   *fsm.State   // Raft's snapshot on disk: a restart begins there
	snapAt int
	copies []*copied // by group; each has a part on disk

	up        bool
	still     time.Duration // stopped until then: nothing happens in it, its clock goes on
	life      ident.Incarnation
	state     *fsm.State
	applied   int
	leases    *cluster.Leases
	renewals  uint64 // of this life
	waits     map[uint64]answer
	woken     bool
	sessions  uint64
	sightings *cluster.Sightings
	leads     ident.Incarnation // the life in which it believes to lead Raft
	led       time.Duration
	deciding  int
}

func (n *node) directory() ident.DirectoryID { return ident.DirectoryID("d" + string(n.id)) }

// boot reads the node's own clock.
func (n *node) boot() time.Duration {
	return n.offset + time.Duration(float64(n.w.now)*n.rate)
}

func (n *node) paused() bool { return n.w.now < n.still }

// at makes something happen in the present process of the node: not at all when it is over by then, later when it stands
// still.
func (n *node) at(d time.Duration, run func()) {
	life := n.life
	var due func()
	due = func() {
		switch {
		case !n.up || n.life != life:
		case n.paused():
			n.w.after(n.still-n.w.now, due)
		default:
			run()
		}
	}
	n.w.after(d, due)
}

// sync makes something happen when the disk has done its work.
func (n *node) sync(run func()) {
	d := n.w.between(ms/10, ms) * n.disk
	if n.hung > n.w.now {
		d += n.hung - n.w.now
	}
	n.at(d, run)
}

// start begins a life.
func (n *node) start() {
	w := n.w
	first := n.state == nil
	if !first {
		n.life = ident.Incarnation(w.id())
	}
	n.up, n.still, n.waits, n.leads, n.deciding, n.woken, n.renewals = true, 0, map[uint64]answer{}, 0, 0, false, 0
	n.leases = cluster.NewLeases(n.id, n.life, n.boot(), lease, margin)
	n.state, n.applied = new(fsm.State), 0
	if n.snap != nil {
		*n.state, n.applied = *n.snap, n.snapAt
	}
	for _, l := range w.links {
		l[n.i].heard = w.now
	}
	if n.kind == fsm.KindData {
		for i, g := range w.groups {
			if first {
				n.copies = append(n.copies, newCopied(n, g))
			}
			n.copies[i].open(first)
		}
	}
	w.note("starts", n.id, uint64(n.life), uint64(n.applied), 0)
	if first {
		n.apply(len(w.raft.log))
	}
	n.keepRenewing()
	n.tick()
}

// crash ends the process; with power set the machine loses what was not synced.
func (n *node) crash(power bool) {
	w := n.w
	if !n.up {
		return
	}
	w.stats.Crashes++
	w.note("crashes", n.id, uint64(n.life), boolean(power), 0)
	n.up = false
	for _, c := range n.copies {
		c.crash(power)
	}
	n.leads = 0
}

func (n *node) tick() {
	n.at(nodeTick, func() {
		for _, o := range n.w.nodes {
			if o != n && n.w.reaches(n, o) && !n.paused() {
				n.w.links[n.i][o.i].heard = n.w.now
			}
		}
		n.look()
		n.tick()
	})
}

// wake makes the node look at its groups soon.
func (n *node) wake() {
	if !n.woken && n.up {
		n.woken = true
		n.at(n.w.between(ms/20, ms/5), func() {
			n.woken = false
			n.look()
		})
	}
}

// look does in every group what is due.
func (n *node) look() {
	for _, c := range n.copies {
		c.look()
		if !n.up {
			return
		}
	}
}

// renewal is the command that renews the lease of a life.
func (n *node) renewal(life ident.Incarnation) fsm.Command {
	n.renewals++
	cmd := fsm.Command{ID: n.w.id(), Renew: &fsm.Renew{Node: n.id, Directory: n.directory(), Incarnation: life, Number: n.renewals}}
	if n.kind == fsm.KindData {
		cmd.Renew.Flushed, cmd.Renew.Copies = map[ident.GroupName]ident.Position{}, map[ident.GroupName]fsm.Ends{}
		for _, c := range n.copies {
			cmd.Renew.Flushed[c.group] = c.flushed
			ends, table := fsm.Ends{}, ident.HistoryTable(nil)
			if g := c.state().Group; g != nil {
				table = g.History
			}
			grove := c.grove(table, true)
			for _, j := range c.journals {
				if j != nil {
					ends[j.author] = 0
					if j.author == n.id || core.Rooted(table, j.baseAt, grove) {
						ends[j.author] = core.CopyEnd(j.durable, j.confirmed)
					}
				}
			}
			cmd.Renew.Copies[c.group] = ends
		}
	}
	return cmd
}

// renew sends one renewal of the node's lease.
func (n *node) renew() {
	cmd := n.renewal(n.life)
	n.leases.Begin(n.boot(), cmd.ID)
	n.propose(cmd, func(res fsm.Result, _ error) {
		if res.Refused == fsm.RefusedIncarnation {
			n.w.fail("S24", "life %d of %s lives and is counted as over: %s", n.life, n.id, res.Detail)
		}
	})
}

func (n *node) keepRenewing() {
	n.renew()
	n.at(renewEvery, n.keepRenewing)
}
