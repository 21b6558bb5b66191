package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// Bounds of the comparison of chains.
const (
	lookForPeers = time.Second
	comparing    = 10 * time.Second // with one node
	surelyOther  = 5                // differences at the end in so many comparisons in a row are no removal under way
)

// chains compares the checksum chains of this node's journals with those of each node that comes into view: at every connect, and
// at rest. A shipping session compares from the end, and takes the longest common prefix; the chain of a header stands for all bytes
// before it, so equal chains at the start of a receiver mean equal bytes in all receivers before.
type chains struct {
	n *Node

	mu  sync.Mutex
	met map[ident.NodeID]ident.Incarnation // the life of a node that was seen alive and compared with; 0: is to be compared

	differ map[string]int // by node and journal: comparisons in a row in which the end differed; only compare has it
}

func newChains(n *Node) *chains {
	return &chains{n: n, met: map[ident.NodeID]ident.Incarnation{}, differ: map[string]int{}}
}

// run wakes the scrubber when a node came into view, until ctx ends.
func (c *chains) run(ctx context.Context) error {
	tick := time.NewTicker(lookForPeers)
	defer tick.Stop()
	for {
		if c.look() {
			select {
			case c.n.scrub.wake <- struct{}{}:
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look notes who is alive and tells whether anybody is to be compared with.
func (c *chains) look() (due bool) {
	st, _ := c.n.cluster.State()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, x := range st.Nodes {
		switch was, ok := c.met[id]; {
		case id == c.n.config.Node || x.Kind != fsm.KindData:
		case !c.n.cluster.Alive(id):
			delete(c.met, id)
		case !ok || was != x.Incarnation:
			c.met[id], due = 0, true
		}
	}
	return due
}

// compare compares with every node that came into view.
func (c *chains) compare(ctx context.Context, s *scrubber) {
	st, _ := c.n.cluster.State()
	if !c.opened(st) {
		return
	}
	c.mu.Lock()
	var nodes []*fsm.Node
	for id, life := range c.met {
		if x := st.Nodes[id]; life == 0 && x != nil {
			nodes = append(nodes, x)
		}
	}
	c.mu.Unlock()
	for _, x := range nodes {
		if c.with(ctx, x, s) {
			c.mu.Lock()
			if _, ok := c.met[x.ID]; ok {
				c.met[x.ID] = x.Incarnation
			}
			c.mu.Unlock()
		}
	}
}

// opened tells whether this node has opened its copies, but for those that are damaged. Before that there is nothing to compare, and
// nobody would have been compared with.
func (c *chains) opened(st *fsm.State) bool {
	for name := range st.Groups {
		if _, damaged := c.n.damages.of(name); !damaged && c.n.replicas.get(name) == nil {
			return false
		}
	}
	return true
}

// with compares all journals that both hold, and tells whether that is finished.
func (c *chains) with(ctx context.Context, x *fsm.Node, s *scrubber) (finished bool) {
	ctx, cancel := context.WithTimeout(ctx, comparing)
	defer cancel()
	finished = true
	for _, j := range s.journals() {
		if j.ID().Node == replica.Replays {
			continue // each node's is its own
		}
		far, err := c.n.peers.at(x.Addresses.HTTP).Receivers(ctx, string(j.ID().Group), string(j.ID().Node))
		if err != nil {
			if client.CodeOf(err) != client.CodeUnknownNode { // it holds no such journal
				finished = false // it is starting, or gone again
			}
			continue
		}
		key := fmt.Sprint(x.ID, " ", j.ID())
		d := difference(j.Receivers(), far)
		switch {
		case d.number == 0:
			delete(c.differ, key)
			continue
		case d.middle:
			c.n.events.add(client.SeverityWarning, string(j.ID().Group), "CHAINS_DIFFER", fmt.Sprintf("receiver %s of journal %s does not begin here as on %s, although later ones do: one of the two is rotten there, and is checked now", d.number, j.ID(), x.ID),
				map[string]string{"journal": j.ID().String(), "receiver": d.number.String(), "peer": string(x.ID)})
			for _, n := range []ident.ReceiverNumber{d.number - 1, d.number} {
				if n > 0 {
					_, _ = s.check(ctx, j, n, nil) // what it finds is remembered
				}
			}
			continue
		}
		finished = false // the end differs: a removal may be under way
		if c.differ[key]++; c.differ[key] == surelyOther {
			c.n.events.add(client.SeverityError, string(j.ID().Group), "CHAINS_DIFFER", fmt.Sprintf("journal %s here and its copy on %s are different from receiver %s on, and it stays so: compare both with the node that wrote it", j.ID(), x.ID, d.number),
				map[string]string{"journal": j.ID().String(), "receiver": d.number.String(), "peer": string(x.ID)})
			return true
		}
	}
	return finished
}

// divergence is the first receiver in which two copies of a journal are known to differ; number 0: they do not.
type divergence struct {
	number ident.ReceiverNumber
	middle bool // they agree again later, so one of them is rotten there
}

// difference compares what two nodes say about the receivers that both hold.
func difference(here []journal.ReceiverInfo, there []client.Receiver) divergence {
	far := make(map[ident.ReceiverNumber]client.Receiver, len(there))
	for _, r := range there {
		far[ident.ReceiverNumber(r.Number)] = r
	}
	var d divergence
	for _, r := range here {
		f, ok := far[r.Number]
		if !ok || f.Chain == "" {
			continue
		}
		same := f.Chain == r.Chain.String() && (f.First == 0 || f.First == uint64(r.First))
		switch {
		case !same && d.number == 0:
			d.number = r.Number
		case same && d.number != 0:
			d.middle = true
		}
	}
	return d
}
