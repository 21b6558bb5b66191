package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Nodes of different protocols never share a cluster. They meet at the Raft port only, where the hello tells them apart before
// anything else is said: Raft's connections and every request but the question who is there are refused. Gossip of another
// protocol bears another label and is not heard.

// Knock is a node of another protocol that was met.
type Knock struct {
	Node     ident.NodeID
	Protocol ident.Protocol
	Address  string // where it was seen last
	Since    time.Time
	Last     time.Time
}

const (
	maxKnocks      = 64              // remembered at once
	knockForgotten = time.Minute     // a node that was not seen for so long is not shown any more, and told of again when it returns
	surveyPatience = time.Second     // for the members' answers before a start
	inquiry        = time.Second     // for one member's answer
	surveyElection = 4 * time.Second // for an election among those of another protocol that know no leader
	roundsApart    = 2               // inquiries; a leader that is lost, or just found, is not seen in both
)

// doorman remembers which nodes of other protocols knocked.
type doorman struct {
	clock    host.Clock
	log      hclog.Logger
	protocol ident.Protocol
	name     string
	told     func(Knock)

	mu     sync.Mutex
	knocks map[ident.NodeID]Knock
}

func newDoorman(o Options) *doorman {
	d := &doorman{clock: o.Host.Clock, log: o.Logger.Named("door"), protocol: o.Protocol, name: o.Name, told: o.OnOther,
		knocks: map[ident.NodeID]Knock{}}
	if d.told == nil {
		d.told = func(Knock) {}
	}
	return d
}

// saw notes that a node of this cluster, or one that wants to be, speaks a protocol.
func (d *doorman) saw(node ident.NodeID, theirs ident.Protocol, address string) {
	if d == nil || node == "" {
		return
	}
	now := d.clock.Now()
	d.mu.Lock()
	d.expireLocked(now)
	k, known := d.knocks[node]
	if theirs == d.protocol {
		delete(d.knocks, node)
		d.mu.Unlock()
		return
	}
	fresh := !known || k.Protocol != theirs
	if !known && len(d.knocks) >= maxKnocks {
		d.mu.Unlock()
		return
	}
	if fresh {
		k = Knock{Node: node, Protocol: theirs, Since: now}
	}
	k.Address, k.Last = address, now
	d.knocks[node] = k
	d.mu.Unlock()
	if fresh {
		d.log.Warn("a node of another build is kept out", "peer", node, "address", address, "theirs", uint8(theirs), "ours", uint8(d.protocol),
			"remedy", "start it with the build that the other nodes run")
		d.told(k)
	}
}

func (d *doorman) expireLocked(now time.Time) {
	for id, k := range d.knocks {
		if now.Sub(k.Last) > knockForgotten {
			delete(d.knocks, id)
		}
	}
}

// list returns what was met lately, by node.
func (d *doorman) list() []Knock {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expireLocked(d.clock.Now())
	out := make([]Knock, 0, len(d.knocks))
	for _, k := range d.knocks {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Knock) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return out
}

// keepsOut tells whether a node was met lately with another protocol.
func (d *doorman) keepsOut(node ident.NodeID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, known := d.knocks[node]
	return known && d.clock.Now().Sub(k.Last) <= knockForgotten
}

// version is byte 1 of a hello.
func (p *port) version(question bool) uint8 {
	if question {
		return helloQuestion
	}
	return uint8(p.protocol.Version(helloQuestion))
}

// refuseRaft ends a Raft connection of another protocol. Builds before the number know one answer only.
func (p *port) refuseRaft(conn net.Conn, theirs ident.Protocol) {
	p.log.Debug("raft connection of another build refused", "peer", conn.RemoteAddr().String(), "theirs", uint8(theirs), "ours", uint8(p.protocol))
	answer := []byte{helloOther, uint8(p.protocol)}
	if theirs == 0 {
		answer = []byte{helloRefused}
	}
	_, _ = conn.Write(answer) // the peer finds out by the end of the connection as well
	_ = conn.Close()
}

// otherAt reads which protocol refused a Raft connection.
func (p *port) otherAt(conn net.Conn) error {
	var theirs [1]byte
	if _, err := io.ReadFull(conn, theirs[:]); err != nil {
		return err
	}
	return &ident.OtherProtocolError{Theirs: ident.Protocol(theirs[0]), Ours: p.protocol}
}

// refuseControl answers a request of another protocol, which is surely not done. A build before the number gives up starting
// when its join is answered so; while nobody leads here it may be this node that is the wrong one.
func (p *port) refuseControl(conn net.Conn, theirs ident.Protocol, r request) response {
	who := ident.NodeID("")
	if r.Join != nil {
		who = r.Join.Node.ID
	}
	p.doorman.saw(who, theirs, conn.RemoteAddr().String())
	ctx, cancel := context.WithTimeout(p.ctx, controlTimeout-helloTimeout)
	defer cancel()
	own := p.control(ctx, false, request{Info: &infoRequest{}})
	reply := response{Code: codeProtocol, Leader: own.Leader, Info: own.Info}
	if own.Info != nil {
		reply.Detail = fmt.Sprintf("node %s runs another build: it speaks inter-node protocol %s, yours %s: they must not run in one cluster; "+
			"start your node with the build that the others run, or stop all nodes, then start all with one build", own.Info.Node, p.protocol, theirs)
	}
	if theirs == 0 {
		reply.Code, reply.Info = codeCluster, nil
		if own.Leader == "" {
			reply.Code = codeBusy
		}
	}
	return reply
}

// sawQuestion notes who asks, if it belongs to this cluster or is to.
func (p *port) sawQuestion(conn net.Conn, h hello, q *infoRequest) {
	if q == nil || p.doorman == nil {
		return
	}
	if h.cluster != "" && h.cluster == p.cluster() || h.cluster == "" && q.Name == p.doorman.name {
		p.doorman.saw(q.Node, q.Protocol, conn.RemoteAddr().String())
	}
}

// question asks a node who it is.
func (c *Cluster) question() request { return question(c.o) }

func question(o Options) request {
	return request{Info: &infoRequest{Node: o.Node, Name: o.Name, Protocol: o.Protocol}}
}

// GossipLabel keeps the packets of other clusters and other protocols apart: memberlist drops them unread.
func GossipLabel(id ident.ClusterID, p ident.Protocol) string {
	if p == 0 {
		return string(id)
	}
	return fmt.Sprintf("%s/%d", id, uint8(p))
}

// otherProtocol turns the answer of a peer of another protocol to a join into a refusal, if that peer's cluster runs; else it is
// noted: none of both may serve, and an operator may be about to stop the peer.
func (c *Cluster) otherProtocol(peer string, r response, failures map[string]error) error {
	err := &ident.OtherProtocolError{Ours: c.o.Protocol}
	if r.Info != nil {
		err.Node, err.Theirs = r.Info.Node, r.Info.Protocol
	}
	if r.Leader != "" {
		return &refusal{err}
	}
	failures[peer] = fmt.Errorf("%s: %w", peer, err)
	return nil
}

// inquire asks the registered nodes that gossip does not reach which build they are, so that one which runs apart is shown. The one that
// is apart, since it knows no leader while another protocol has one for some time, ends itself: it was left running, or had nobody to ask.
func (c *Cluster) inquire() {
	apart := 0 // rounds in a row
	tick := time.NewTicker(c.timing.Rejoin)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		var runs *ident.OtherProtocolError
		st, _ := c.board.read()
		for id, n := range st.Nodes {
			if id == c.o.Node || c.gossip.state(id).state == MemberAlive {
				continue
			}
			ctx, cancel := context.WithTimeout(c.ctx, inquiry)
			r, err := c.port.call(ctx, c.book.of(n), c.question())
			cancel()
			if err != nil || r.Info == nil || r.Info.Node != id || r.Info.Directory != n.Directory {
				continue
			}
			c.doorman.saw(id, r.Info.Protocol, n.Addresses.Raft)
			if r.Info.Protocol != c.o.Protocol && r.Leader != "" {
				runs = &ident.OtherProtocolError{Node: id, Theirs: r.Info.Protocol, Ours: c.o.Protocol}
			}
		}
		apart++
		if runs == nil || c.leaderHint() != "" {
			apart = 0
		}
		if apart == roundsApart {
			c.fatal(runs)
		}
	}
}

// Knocks returns the nodes of other protocols that were met within the last minute.
func (c *Cluster) Knocks() []Knock { return c.doorman.list() }

// Survey asks the members in o.Join, before a start, which build they are. It fails with *ident.OtherProtocolError when one of
// them belongs to o's cluster, which runs, and speaks another protocol. Members that do not answer within a second are no reason
// not to start, and those that know no Raft leader neither; but they are asked again for a while, as they may be electing one:
// after the start the directory belongs to this build. Of o it needs Node, Directory, Name, Protocol, Identity, Join, Addresses,
// Host and Logger.
func Survey(ctx context.Context, o Options) error {
	end := time.Now().Add(surveyElection)
	for {
		f := survey(ctx, o)
		switch {
		case f.runs != nil:
			return f.runs
		case f.apart == nil:
			return nil
		case time.Until(end) < joinRetry:
			o.Logger.Warn("a node of another build runs, and knows no Raft leader; starting all the same", "peer", f.apart.Node,
				"theirs", uint8(f.apart.Theirs), "ours", uint8(o.Protocol))
			return nil
		}
		select {
		case <-time.After(joinRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// surveyed are members of other protocols. Both are nil when nobody of them was met, or a leader of this protocol is there: then they
// have not noticed yet that the others have gone.
type surveyed struct {
	runs  error // it knows a leader
	apart *ident.OtherProtocolError
}

func survey(ctx context.Context, o Options) (f surveyed) {
	asks := &port{network: o.Host.Network, protocol: o.Protocol, cluster: o.Identity.ClusterID}
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel() // before the wait
	type answer struct {
		response
		err error
	}
	peers := slices.DeleteFunc(slices.Clone(o.Join), func(a string) bool { return a == o.Addresses.Raft })
	answers := make(chan answer, len(peers))
	for _, peer := range peers {
		asked.Go(func() {
			r, err := asks.call(ctx, peer, question(o))
			answers <- answer{r, err}
		})
	}
	for range peers {
		a := <-answers
		i := a.Info
		if a.err != nil || i == nil || i.Directory == o.Directory || i.Name != o.Name {
			continue
		}
		if own := o.Identity.ClusterID(); own != "" && i.Cluster != own {
			continue
		}
		runs := i.Cluster != "" && a.Leader != ""
		other := &ident.OtherProtocolError{Node: i.Node, Theirs: i.Protocol, Ours: o.Protocol}
		switch {
		case i.Protocol == o.Protocol && runs:
			return surveyed{} // that is where this node belongs
		case i.Protocol == o.Protocol:
		case runs:
			f.runs = other
		default:
			f.apart = other
		}
	}
	return f
}
