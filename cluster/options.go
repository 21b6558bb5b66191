package cluster

import (
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Identity is the data directory's memory of the cluster it belongs to.
type Identity interface {
	// ClusterID returns "" until the directory has joined a cluster.
	ClusterID() ident.ClusterID
	// SetClusterID binds the directory to a cluster for ever; durable on return.
	SetClusterID(ident.ClusterID) error
}

// Options say who the node is and where it is reached. All fields without a stated default are required.
type Options struct {
	Node      ident.NodeID
	Directory ident.DirectoryID // also the Raft server id
	Kind      fsm.NodeKind
	Priority  int
	Name      string         // the operator's name of the cluster
	Protocol  ident.Protocol // of all nodes of the cluster; zero: that of builds before there was a number
	Identity  Identity

	Addresses    fsm.Addresses // as advertised; a gossip port 0 is replaced by the one that was bound
	RaftListener net.Listener  // bound by the caller, closed by Close (also when Open fails)
	GossipBind   string        // host:port; port 0 lets the kernel choose
	Gossip       GossipBinder  // nil: BindGossip, TCP and UDP
	Bootstrap    bool          // creates the cluster if no peer in Join knows it
	Join         []string      // raft addresses of any members
	Groups       []fsm.GroupSpec

	Dir         string // of Raft's log and snapshots, when Disk is nil
	Disk        Disk   // nil: Directory(Dir)
	Incarnation ident.Incarnation
	Host        host.Host
	Logger      hclog.Logger
	Timing      Timing                                    // zero fields get the defaults
	Flushed     func() map[ident.GroupName]ident.Position // travels with each renewal; nil for a witness
	Copies      func() map[ident.GroupName]fsm.Ends       // as Flushed
	OnOther     func(Knock)                               // told when a node of another protocol is met, once until it has been away for a while; must not block; nil: only logged
	OnFatal     func(error)                               // told once when Raft's disk hangs, Raft ends by itself, or this life is over; nil: only logged
}

// Timing holds the periods of the control plane. All nodes of a cluster use the same Lease and Margin.
type Timing struct {
	Lease           time.Duration // D: how long one renewal is valid
	Renew           time.Duration // how often a lease is renewed
	Margin          time.Duration // added to D by everybody but the holder
	RaftHeartbeat   time.Duration
	RaftElection    time.Duration
	RaftLeaderLease time.Duration
	RaftCommit      time.Duration // how soon an idle leader tells followers of a commit
	Probe           time.Duration // gossip probes one node this often
	Rejoin          time.Duration // gossip contacts nodes it lost this often
	Reports         time.Duration // a failover waits this long after the first report for other members of the set
	Takeover        time.Duration // a chosen primary that does not serve for so long is replaced, if somebody else could be
	Discover        time.Duration // an empty bootstrapping node asks its peers this long whether the cluster exists
	Propose         time.Duration // deadline of Propose when its context has none
	DiskHang        time.Duration // a call to Raft's disk that lasts longer is reported to OnFatal
}

// DefaultTiming returns the defaults.
func DefaultTiming() Timing {
	return Timing{
		Lease:           2 * time.Second,
		Renew:           500 * time.Millisecond,
		Margin:          100 * time.Millisecond,
		RaftHeartbeat:   500 * time.Millisecond, // with twice that at most until a loss is noticed, and an election, a new leader is there before a lease has run out
		RaftElection:    500 * time.Millisecond,
		RaftLeaderLease: 500 * time.Millisecond,
		RaftCommit:      5 * time.Millisecond,
		Probe:           250 * time.Millisecond,
		Rejoin:          3 * time.Second,
		Reports:         time.Second,
		Takeover:        30 * time.Second,
		Discover:        time.Second,
		Propose:         5 * time.Second,
		DiskHang:        5 * time.Second,
	}
}

func (t Timing) withDefaults() Timing {
	d := DefaultTiming()
	for _, f := range []struct{ have, want *time.Duration }{
		{&t.Lease, &d.Lease}, {&t.Renew, &d.Renew}, {&t.Margin, &d.Margin},
		{&t.RaftHeartbeat, &d.RaftHeartbeat}, {&t.RaftElection, &d.RaftElection},
		{&t.RaftLeaderLease, &d.RaftLeaderLease}, {&t.RaftCommit, &d.RaftCommit},
		{&t.Probe, &d.Probe}, {&t.Rejoin, &d.Rejoin}, {&t.Reports, &d.Reports}, {&t.Takeover, &d.Takeover},
		{&t.Discover, &d.Discover}, {&t.Propose, &d.Propose}, {&t.DiskHang, &d.DiskHang},
	} {
		if *f.have == 0 {
			*f.have = *f.want
		}
	}
	return t
}
