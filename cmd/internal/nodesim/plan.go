package nodesim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/internal/ident"
)

// step is one fault of a schedule.
type step struct {
	kind   string
	at     time.Duration // after the cluster was level
	length time.Duration
	role   string // whom it hits: primary, backup, leader, any
	pick   uint64 // the rest of the choice
}

func (s step) String() string {
	return fmt.Sprintf("%s at %s for %s on %s", s.kind, s.at.Round(time.Millisecond), s.length.Round(time.Millisecond), s.role)
}

// inject begins a fault on m and returns what ends it; nil when it ends by itself.
type inject func(w *world, s step, m *machine, rng *rand.Rand) (end func())

// kinds are all faults. Those that an operator asks for may be refused, so they are not held to have an effect each time.
func kinds() map[string]inject {
	return map[string]inject{
		"crash":            crashOne,
		"crash two":        func(w *world, s step, m *machine, rng *rand.Rand) func() { return crashSeveral(w, s, m, rng, 2) },
		"crash backup":     crashOne,
		"crash all":        func(w *world, s step, m *machine, rng *rand.Rand) func() { return crashSeveral(w, s, m, rng, 3) },
		"restart":          restartOne,
		"pause":            pauseOne,
		"partition":        partition,
		"one-way":          oneWay,
		"cut from nodes":   cutNodes,
		"cut from raft":    cutRaft,
		"cut from backups": cutShip,
		"slow network":     slowNetwork,
		"disk slow":        diskSlow,
		"disk hangs":       diskHangs,
		"disk error":       diskError,
		"disk full":        diskFull,
		"stalls":           stalls,
		"wall clock":       wallClock,
		"forged gossip":    forgeGossip,
		"switch-over":      switchOver,
		"failover":         failOver,
	}
}

// planned are the faults of a schedule, by its seed alone.
func planned(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 20))
	names := make([]string, 0, len(kinds()))
	for k := range kinds() {
		names = append(names, k)
	}
	slices.Sort(names)
	at := time.Duration(500+rng.IntN(1500)) * time.Millisecond
	if rng.IntN(3) == 0 {
		return aimed(seed)
	}
	var steps []step
	for range 1 + rng.IntN(4) {
		s := step{kind: names[rng.IntN(len(names))], at: at, length: time.Duration(300+rng.IntN(6000)) * time.Millisecond, pick: rng.Uint64()}
		switch r := rng.IntN(10); {
		case r < 5:
			s.role = "primary"
		case r < 7:
			s.role = "backup"
		case r < 8:
			s.role = "leader"
		default:
			s.role = "any"
		}
		steps = append(steps, s)
		at += time.Duration(rng.IntN(3500)) * time.Millisecond
	}
	return steps
}

// aimed are the faults of a schedule that follows a recipe, one after the other by the seed.
func aimed(seed uint64) []step {
	rng := rand.New(rand.NewPCG(seed, 21))
	all := recipes()
	return all[rng.IntN(len(all))].steps(rng, time.Duration(500+rng.IntN(1500))*time.Millisecond)
}

// recipe is a sequence of faults that is known to hurt: each with the role it hits, the time to the next one at least and at
// most, and how long it lasts, in milliseconds.
type recipe []ingredient

type ingredient struct {
	kind, role        string
	least, most       int
	shortest, longest int
}

// recipes are combinations that chance alone seldom finds.
func recipes() []recipe {
	return []recipe{
		// The primary loses its backups, then those who would have to agree, while clients still reach it.
		{{"cut from backups", "primary", 500, 1000, 4000, 6000}, {"cut from raft", "primary", 0, 0, 3500, 6000}},
		{{"cut from raft", "primary", 0, 500, 4000, 7000}, {"cut from backups", "primary", 0, 1500, 1000, 5000}},
		// The last copy in the set loses power, then its disk's cache.
		{{"crash backup", "backup", 1500, 3500, 4000, 6000}, {"crash", "primary", 0, 200, 500, 2000}},
		{{"cut from backups", "primary", 1500, 3000, 3000, 6000}, {"disk slow", "primary", 200, 1000, 2000, 3000}, {"crash", "primary", 0, 0, 500, 1500}},
		// A primary that is not scheduled goes on after its lease, with clients that can still reach it.
		{{"stalls", "primary", 0, 300, 3000, 6000}, {"cut from nodes", "primary", 0, 0, 6000, 7000}},
		{{"stalls", "primary", 0, 500, 3000, 6000}, {"failover", "primary", 500, 2000, 100, 100}, {"switch-over", "primary", 0, 0, 100, 100}},
		// An operator takes the role away from a primary that does not hear of it.
		{{"cut from nodes", "primary", 50, 500, 3000, 5000}, {"failover", "primary", 0, 0, 100, 100}},
		{{"cut from raft", "primary", 50, 500, 3000, 5000}, {"failover", "primary", 0, 0, 100, 100}},
		// Two failures of primaries in a row, the second while the first comes back.
		{{"crash", "primary", 1500, 4000, 500, 3000}, {"crash", "primary", 0, 2000, 500, 3000}, {"crash", "primary", 0, 0, 500, 3000}},
		{{"pause", "primary", 2500, 4000, 3000, 6000}, {"crash", "primary", 0, 0, 500, 2000}},
		// A backup with a slow disk is all that is left.
		{{"disk slow", "backup", 300, 1500, 4000, 6000}, {"crash", "primary", 0, 3000, 2000, 5000}, {"crash all", "any", 0, 0, 500, 1500}},
		{{"switch-over", "primary", 0, 60, 100, 100}, {"crash", "primary", 0, 0, 500, 3000}},
		{{"switch-over", "primary", 0, 100, 100, 100}, {"partition", "backup", 0, 0, 1000, 5000}},
		// Growth: a copy comes back, and whoever decides or serves goes away in the middle.
		{{"crash backup", "backup", 1500, 2500, 1500, 2600}, {"cut from raft", "primary", 0, 600, 500, 4000}, {"crash", "primary", 0, 0, 500, 2500}},
		{{"partition", "backup", 1400, 2200, 1400, 2400}, {"pause", "leader", 0, 1000, 500, 3000}, {"crash", "primary", 0, 0, 500, 2500}},
	}
}

func (r recipe) steps(rng *rand.Rand, at time.Duration) (steps []step) {
	between := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least+1)) * time.Millisecond
	}
	for _, i := range r {
		steps = append(steps, step{kind: i.kind, role: i.role, at: at, length: between(i.shortest, i.longest), pick: rng.Uint64()})
		at += between(i.least, max(i.least, i.most))
	}
	return steps
}

// target finds the machine a step hits.
func (w *world) target(s step) *machine {
	any := w.machines[s.pick%uint64(len(w.machines))]
	switch s.role {
	case "primary":
		if m := w.primary(); m != nil {
			return m
		}
	case "leader":
		if m := w.leader(); m != nil {
			return m
		}
	case "backup":
		p := w.primary()
		for i := range w.machines {
			m := w.machines[(s.pick+uint64(i))%uint64(len(w.machines))]
			if m != p {
				return m
			}
		}
	}
	return any
}

func (w *world) others(m *machine) (out []*machine) {
	for _, o := range w.machines {
		if o != m {
			out = append(out, o)
		}
	}
	return out
}

func randomLoss(rng *rand.Rand) loss { return loss(rng.IntN(4)) }

func crashOne(w *world, s step, m *machine, rng *rand.Rand) func() {
	l := randomLoss(rng)
	if m.crash(l) {
		w.effects.add(s.kind, 1)
		w.note("%s crashed, loss %s", m.id, l)
	}
	return m.start
}

// crashSeveral hits several machines at one instant: nothing in the process happens between the power cuts but what
// happens at the same time on other processors.
func crashSeveral(w *world, s step, m *machine, rng *rand.Rand, n int) func() {
	hit := append([]*machine{m}, w.others(m)...)[:n]
	for _, x := range hit {
		l := lossAll + loss(rng.IntN(3))
		if x.crash(l) {
			w.effects.add(s.kind, 1)
			w.note("%s crashed, loss %s", x.id, l)
		}
	}
	return func() {
		for _, x := range hit {
			x.start()
		}
	}
}

func restartOne(w *world, _ step, m *machine, _ *rand.Rand) func() {
	m.stop()
	w.effects.add("restart", 1)
	return m.start
}

// cutPaths holds paths for a reason, and gives back what ends that.
func (w *world) cutPaths(why string, pairs [][2]string, services ...string) func() {
	for _, p := range pairs {
		for _, s := range services {
			w.network.change(p[0], p[1], s, func(x *path) { x.cause.Store(&why); x.held.Add(1) })
		}
	}
	return func() {
		for _, p := range pairs {
			for _, s := range services {
				w.network.change(p[0], p[1], s, func(x *path) { x.held.Add(-1) })
			}
		}
	}
}

func pauseOne(w *world, _ step, m *machine, _ *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	var pairs [][2]string
	for _, host := range w.hosts() {
		if host != m.ip {
			pairs = append(pairs, [2]string{m.ip, host}, [2]string{host, m.ip})
		}
	}
	end := w.cutPaths("pause", pairs, anyService)
	l.faults.pause()
	return func() {
		l.faults.resume()
		end()
	}
}

// hosts are all addresses, clients included.
func (w *world) hosts() []string {
	var out []string
	for _, m := range w.machines {
		out = append(out, m.ip)
	}
	out = append(out, "10.0.1.1", "10.0.1.2")
	for i := range 7 {
		out = append(out, fmt.Sprintf("10.0.2.%d", i+1))
	}
	return out
}

func partition(w *world, _ step, m *machine, rng *rand.Rand) func() {
	var pairs [][2]string
	clients := rng.IntN(2) == 0 // half of the time its clients can still reach it
	for _, host := range w.hosts() {
		if host != m.ip && (clients || strings.HasPrefix(host, "10.0.0.")) {
			pairs = append(pairs, [2]string{m.ip, host}, [2]string{host, m.ip})
		}
	}
	return w.cutPaths("partition", pairs, anyService)
}

// cutNodes leaves a machine to its clients.
func cutNodes(w *world, _ step, m *machine, _ *rand.Rand) func() {
	return w.cutPaths("cut from nodes", w.around(m), anyService)
}

func oneWay(w *world, _ step, m *machine, rng *rand.Rand) func() {
	out := rng.IntN(2) == 0
	var pairs [][2]string
	for _, o := range w.others(m) {
		if len(pairs) > 0 && rng.IntN(2) == 0 {
			break
		}
		if out {
			pairs = append(pairs, [2]string{m.ip, o.ip})
		} else {
			pairs = append(pairs, [2]string{o.ip, m.ip})
		}
	}
	return w.cutPaths("one-way", pairs, anyService)
}

func (w *world) around(m *machine) (pairs [][2]string) {
	for _, o := range w.others(m) {
		pairs = append(pairs, [2]string{m.ip, o.ip}, [2]string{o.ip, m.ip})
	}
	return pairs
}

func cutRaft(w *world, _ step, m *machine, rng *rand.Rand) func() {
	services := []string{raftPort}
	if rng.IntN(2) == 0 {
		services = append(services, gossipPort)
	}
	return w.cutPaths("cut from raft", w.around(m), services...)
}

func cutShip(w *world, _ step, m *machine, rng *rand.Rand) func() {
	pairs := w.around(m)
	if rng.IntN(2) == 0 {
		pairs = pairs[:2] // one backup only
	}
	return w.cutPaths("cut from backups", pairs, shipPort)
}

func slowNetwork(w *world, _ step, m *machine, rng *rand.Rand) func() {
	d := int64(10+rng.IntN(250)) * int64(time.Millisecond)
	set := func(add int64, lossy int32) {
		for _, p := range w.around(m) {
			w.network.change(p[0], p[1], anyService, func(x *path) {
				why := "slow network"
				x.cause.Store(&why)
				x.delay.Add(add)
				x.lossy.Add(lossy)
			})
		}
	}
	set(d, 30)
	w.effects.add("slow network", 1)
	return func() { set(-d, -30) }
}

// class picks the files a disk fault is about.
func class(rng *rand.Rand, classes ...string) string { return classes[rng.IntN(len(classes))] }

func diskSlow(w *world, _ step, m *machine, rng *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	c, d := class(rng, "journal", "store", "raft"), time.Duration(5+rng.IntN(80))*time.Millisecond
	w.note("syncs of %s at %s take %s", c, m.id, d)
	l.faults.set(func() { l.faults.slow[c] = d })
	return func() { l.faults.set(func() { delete(l.faults.slow, c) }) }
}

func diskHangs(w *world, _ step, m *machine, rng *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	c := class(rng, "journal", "store", "raft", "small")
	w.note("%s at %s hangs", c, m.id)
	l.faults.hangs(c)
	return l.faults.heal
}

func diskError(w *world, _ step, m *machine, rng *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	c, percent := class(rng, "journal", "journal", "store", "small", "raft"), []int{5, 100}[rng.IntN(2)]
	w.note("%d %% of writes and syncs of %s at %s fail", percent, c, m.id)
	l.faults.set(func() { l.faults.fail[c] = percent })
	return func() { l.faults.set(func() { delete(l.faults.fail, c) }) }
}

func stalls(_ *world, _ step, m *machine, rng *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	l.faults.set(func() { l.faults.stall = 3 + rng.IntN(25) })
	return func() { l.faults.set(func() { l.faults.stall = 0 }) }
}

func diskFull(w *world, _ step, m *machine, _ *rand.Rand) func() {
	l := m.current()
	if l == nil {
		return nil
	}
	l.faults.set(func() { l.faults.full = true })
	return func() { l.faults.set(func() { l.faults.full = false }) }
}

func wallClock(w *world, _ step, m *machine, rng *rand.Rand) func() {
	d := time.Duration(rng.Int64N(int64(2*time.Hour))) - time.Hour
	m.step.Add(int64(d))
	w.effects.add("wall clock", 1)
	w.note("the wall clock of %s jumps by %s", m.id, d)
	return nil
}

// forgeGossip lies to all nodes about all nodes, a few times a second.
func forgeGossip(w *world, s step, _ *machine, rng *rand.Rand) func() {
	ctx, stop := context.WithTimeout(context.Background(), s.length)
	w.work.Go(func() {
		defer stop()
		for {
			to, victim, from := w.machines[rng.IntN(3)], w.machines[rng.IntN(3)], w.machines[rng.IntN(3)]
			label := ""
			if _, n := to.running(); n != nil {
				if st, _ := n.State(); st.Cluster != "" {
					label = cluster.GossipLabel(st.Cluster, ident.CurrentProtocol)
				}
			}
			if label != "" {
				kind := []byte{forgeDead, forgeDead, forgeSuspect, forgeAlive}[rng.IntN(4)]
				w.network.forge(to.config.Listen.Gossip, from.config.Listen.Gossip,
					forge(label, kind, uint32(rng.IntN(50)), string(victim.id), string(from.id), []byte{10, 0, 0, byte(1 + rng.IntN(5))}, []byte("elsewhere")))
				w.effects.add("forged gossip", 1)
			}
			select {
			case <-time.After(time.Duration(20+rng.IntN(200)) * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	})
	return stop
}

func switchOver(w *world, _ step, _ *machine, _ *rand.Rand) func() {
	w.work.Go(func() {
		ctx, cancel := timeoutContext(10 * time.Second)
		defer cancel()
		op, err := w.operator.Switchover(ctx, string(group), client.SwitchoverRequest{MaxPause: client.Duration(time.Second)}, 5*time.Second)
		if err == nil {
			w.effects.add("switch-over", 1)
		}
		w.note("switch-over to %q: %s %v", op.To, op.State, err)
	})
	return nil
}

// failOver asks a node beside m.
func failOver(w *world, _ step, m *machine, rng *rand.Rand) func() {
	asked := w.others(m)[rng.IntN(2)]
	w.work.Go(func() {
		ctx, cancel := timeoutContext(10 * time.Second)
		defer cancel()
		op, err := asked.client.Failover(ctx, string(group), client.FailoverRequest{To: "*"}, 5*time.Second)
		if err == nil {
			w.effects.add("failover", 1)
		}
		w.note("failover to %q: %s %v", op.To, op.State, err)
	})
	return nil
}
