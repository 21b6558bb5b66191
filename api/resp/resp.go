package resp

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// NotPrimary says what a node does with commands for a group whose primary is another node.
type NotPrimary string

const (
	Forward  NotPrimary = "forward"  // they are relayed to the primary
	ReadOnly NotPrimary = "readonly" // writes are refused with -READONLY; reads are relayed, or local where a client or LocalReads wants that
)

// OnRoleChange says what becomes of a client's connection to a node that stops being a primary.
type OnRoleChange string

const (
	Keep  OnRoleChange = "forward" // it stays; commands are relayed from then on
	Close OnRoleChange = "close"   // it is closed after the replies in flight, so that the client looks for the primary
)

// Rights are what a user may do.
type Rights uint8

const (
	MayRead Rights = 1 << iota
	MayWrite
	MayOperate // SENTINEL FAILOVER
)

const allRights = MayRead | MayWrite | MayOperate

// Options are what a Server needs. Node, Store, Roles and Logger are required.
type Options struct {
	Node    string // this node's id
	Cluster string // for INFO

	Protocol ident.Protocol // of all nodes; zero: that of builds before there was a number

	Version string // for INFO and HELLO: a Redis version whose commands these are; "": 7.2.0
	Local   string // what Store.Group says of keys that this node keeps for itself, which nobody is asked for; "": there are none
	Store   Store
	Roles   Roles
	Network host.Network     // relays are dialled through it; nil: the machine's own
	Clock   func() time.Time // for TIME and EXPIRE; nil: time.Now

	// Authenticate checks a user's secret; nil: nobody has to authenticate. The user is "default" when the client names none.
	Authenticate func(user, secret string) (Rights, bool)
	// PeerSecret is what this node sends to another one's Authenticate, as user "default", before it relays; "": nothing.
	PeerSecret string

	NotPrimary   NotPrimary   // "": Forward
	OnRoleChange OnRoleChange // "": Keep
	LocalReads   bool         // reads are answered from this node's copy, as if every client had sent READONLY

	Registerer prometheus.Registerer // nil: no metrics
	Logger     hclog.Logger
	Limits     Limits // zero fields take the defaults
}

// Limits bound what a listener accepts and keeps. Zero fields take the value of DefaultLimits.
type Limits struct {
	Connections int   // open at once; another one hears an error and is closed
	Memory      int64 // bytes of commands and replies in memory, of all connections together

	Arguments int   // of one command
	Bulk      int   // bytes of one argument
	Command   int64 // bytes of one command, and of all commands of a transaction
	Inline    int   // bytes of an inline command
	File      int   // bytes of a file name
	Key       int   // bytes of a key behind its file
	Hash      int   // bytes of a hash as it is stored
	Reply     int64 // bytes of one reply, and of the replies that one read's commands have in memory
	Batch     int   // commands that are run together
	BatchSize int64 // bytes of commands after which no further one is taken into a batch
	Queue     int   // commands of a transaction
	Watches   int   // keys that a connection watches
	Channels  int   // that a connection is subscribed to
	Keys      int   // that KEYS looks at
	Files     int   // whose names a step of a scan knows, from each node; all with one code belong together
	Names     int   // bytes of what a client says about itself, and of channel names

	LoginArguments int // of one command, before a client is authenticated
	LoginBulk      int

	Login     time.Duration // from the connection's begin until the client is authenticated
	Idle      time.Duration // between commands; subscribers have no such limit
	Read      time.Duration // from the first byte of a command to its last
	Write     time.Duration // in which a client must take some of its replies
	Wait      time.Duration // for a command, waiting for a primary included
	Waiting   int           // batches that wait for a primary at once; others hear -TRYAGAIN
	Relays    int           // connections to one other node
	Dial      time.Duration // for a connection to another node
	RelayIdle time.Duration // after which an unused connection to another node is closed
	Linger    time.Duration // how long a connection that ends takes commands that are on their way
	Shutdown  time.Duration // what Serve grants running commands when it ends
}

// DefaultLimits are the limits of a node. Arguments and Queue fit what a group takes as one transaction: 4096 writes. A list of arguments
// grows only as they arrive, and six bytes on the wire take 24 in memory, so many arguments are no way to make a server allocate.
func DefaultLimits() Limits {
	return Limits{
		Connections: 4096,
		Memory:      512 << 20,

		Arguments: 2 + 2*4096,
		Bulk:      16 << 20,
		Command:   32 << 20,
		Inline:    64 << 10,
		File:      255,
		Key:       4 << 10,
		Hash:      16 << 20,
		Reply:     64 << 20,
		Batch:     1024,
		BatchSize: 1 << 20,
		Queue:     4096,
		Watches:   1024,
		Channels:  64,
		Keys:      100_000,
		Files:     10_000,
		Names:     256,

		LoginArguments: 10,
		LoginBulk:      16 << 10,

		Login:     10 * time.Second,
		Idle:      10 * time.Minute,
		Read:      30 * time.Second,
		Write:     30 * time.Second,
		Wait:      10 * time.Second,
		Waiting:   4096,
		Relays:    64,
		Dial:      2 * time.Second,
		RelayIdle: 30 * time.Second,
		Linger:    100 * time.Millisecond,
		Shutdown:  5 * time.Second,
	}
}

// withDefaults fills what is zero.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, p := range []struct{ to, from *int }{
		{&l.Connections, &d.Connections}, {&l.Arguments, &d.Arguments}, {&l.Bulk, &d.Bulk}, {&l.Inline, &d.Inline}, {&l.File, &d.File}, {&l.Key, &d.Key},
		{&l.Hash, &d.Hash}, {&l.Batch, &d.Batch}, {&l.Queue, &d.Queue}, {&l.Watches, &d.Watches}, {&l.Channels, &d.Channels},
		{&l.Keys, &d.Keys}, {&l.Files, &d.Files}, {&l.Names, &d.Names}, {&l.LoginArguments, &d.LoginArguments}, {&l.LoginBulk, &d.LoginBulk},
		{&l.Waiting, &d.Waiting}, {&l.Relays, &d.Relays},
	} {
		*p.to = cmp.Or(*p.to, *p.from)
	}
	for _, p := range []struct{ to, from *int64 }{
		{&l.Memory, &d.Memory}, {&l.Command, &d.Command}, {&l.Reply, &d.Reply}, {&l.BatchSize, &d.BatchSize},
	} {
		*p.to = cmp.Or(*p.to, *p.from)
	}
	for _, p := range []struct{ to, from *time.Duration }{
		{&l.Login, &d.Login}, {&l.Idle, &d.Idle}, {&l.Read, &d.Read}, {&l.Write, &d.Write}, {&l.Wait, &d.Wait}, {&l.Dial, &d.Dial},
		{&l.RelayIdle, &d.RelayIdle}, {&l.Linger, &d.Linger}, {&l.Shutdown, &d.Shutdown},
	} {
		*p.to = cmp.Or(*p.to, *p.from)
	}
	return l
}

// Server answers Redis clients.
type Server struct {
	o        Options
	commands map[string]*command // by lower-case name; never changed
	memory   *budget
	waiting  *budget // a byte for each batch that waits for a primary
	peers    *peers
	sessions sessions
	hub      hub
	cursors  cursors
	names    localNames
	counters counters
	began    time.Time
	ids      atomic.Int64 // the last one given to a client

	processed atomic.Int64 // commands that were read
}

// New builds a server. It starts nothing.
func New(o Options) *Server {
	o.Limits = o.Limits.withDefaults()
	o.NotPrimary = cmp.Or(o.NotPrimary, Forward)
	o.OnRoleChange = cmp.Or(o.OnRoleChange, Keep)
	o.Version = cmp.Or(o.Version, "7.2.0")
	if o.Network == nil {
		o.Network = host.Real().Network
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := &Server{
		o: o, commands: commands(), memory: &budget{limit: o.Limits.Memory}, waiting: &budget{limit: int64(o.Limits.Waiting)},
		peers: newPeers(o), counters: newCounters(), began: o.Clock(),
	}
	s.sessions.limit = o.Limits.Connections
	if o.Registerer != nil {
		if err := s.counters.register(o.Registerer); err != nil {
			o.Logger.Warn("the metrics of the Redis interface are missing", "error", err) // registered twice: no reason not to serve
		}
	}
	return s
}
