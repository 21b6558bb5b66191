package api

import (
	"cmp"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Options are what an API needs. Data, Roles, Journals and Logger are required.
type Options struct {
	Node       string         // this node's id, for answers and for "local" in paths
	Protocol   ident.Protocol // of all nodes; zero: that of builds before there was a number
	Data       Data
	Roles      Roles
	Journals   Journals
	Network    host.Network           // forwards are dialled through it; nil: the machine's own
	Changed    func() <-chan struct{} // a channel closed at the next change of roles; nil: polled
	Gatherer   prometheus.Gatherer    // served at /metrics; nil: an empty page
	Registerer prometheus.Registerer  // gets the api's own metrics; nil: none
	Logger     hclog.Logger
	Now        func() time.Time // the wall clock, for times to live; nil: time.Now
	Limits     Limits           // zero fields take the defaults
}

// Limits bound what a listener accepts. Zero fields take the value of DefaultLimits.
type Limits struct {
	Connections   int           // open at once; more wait in the kernel's queue
	Bodies        int64         // bytes of all bodies in memory
	Streams       int64         // of entries, open at once; they are connections, too
	Header        int           // bytes of request line and header
	HeaderTimeout time.Duration // from the first byte to the end of the header
	ReadTimeout   time.Duration // from the first byte to the end of the body
	WriteTimeout  time.Duration // from the end of the header to the end of the answer; long waits extend it by their wait
	IdleTimeout   time.Duration // between two requests on a connection
	Wait          time.Duration // default of ?wait= for requests that need a primary
	MaxWait       time.Duration // highest ?wait=
	Heartbeat     time.Duration // between two signs of life of a stream of entries
	Stall         time.Duration // a stream whose client takes nothing for so long is cut
	Linger        time.Duration // how long Serve goes on when its context ends, asking clients for new connections; see Serve
	Shutdown      time.Duration // what Serve grants running requests after that
}

// DefaultLimits are the limits of a node.
func DefaultLimits() Limits {
	return Limits{
		Connections:   1024,
		Bodies:        256 << 20,
		Streams:       256,
		Header:        32 << 10,
		HeaderTimeout: 5 * time.Second,
		ReadTimeout:   30 * time.Second,
		WriteTimeout:  60 * time.Second,
		IdleTimeout:   60 * time.Second,
		Wait:          5 * time.Second,
		MaxWait:       10 * time.Minute,
		Heartbeat:     5 * time.Second,
		Stall:         30 * time.Second,
		Linger:        250 * time.Millisecond,
		Shutdown:      5 * time.Second,
	}
}

// withDefaults fills what is zero.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	l.Connections = cmp.Or(l.Connections, d.Connections)
	l.Bodies = cmp.Or(l.Bodies, d.Bodies)
	l.Streams = cmp.Or(l.Streams, d.Streams)
	l.Header = cmp.Or(l.Header, d.Header)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, d.HeaderTimeout)
	l.ReadTimeout = cmp.Or(l.ReadTimeout, d.ReadTimeout)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, d.WriteTimeout)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, d.IdleTimeout)
	l.Wait = cmp.Or(l.Wait, d.Wait)
	l.MaxWait = cmp.Or(l.MaxWait, d.MaxWait)
	l.Heartbeat = cmp.Or(l.Heartbeat, d.Heartbeat)
	l.Stall = cmp.Or(l.Stall, d.Stall)
	l.Linger = cmp.Or(l.Linger, d.Linger)
	l.Shutdown = cmp.Or(l.Shutdown, d.Shutdown)
	return l
}

// API is the HTTP interface of one node.
type API struct {
	o        Options
	handler  http.Handler
	gathered http.Handler // answers /metrics
	peers    *http.Client // forwards
	protocol string       // what stands behind the slash of headerHops; "": no slash
	hops     [maxHops + 1]string
	bodies   *budget
	streams  *budget // a byte each
	counters counters
}

// New builds the interface. It starts nothing.
func New(o Options) *API {
	o.Limits = o.Limits.withDefaults()
	if o.Network == nil {
		o.Network = host.Real().Network
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	a := &API{o: o, protocol: protocolOf(o.Protocol), peers: newPeers(o.Network), bodies: &budget{limit: o.Limits.Bodies}, streams: &budget{limit: o.Limits.Streams}, counters: newCounters()}
	for n := range a.hops {
		a.hops[n] = hopsOf(n, a.protocol)
	}
	if o.Registerer != nil {
		if err := a.counters.register(o.Registerer); err != nil {
			o.Logger.Warn("the metrics of the API are missing", "error", err) // registered twice: no reason not to serve
		}
	}
	a.gathered = promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	browsers := http.NewCrossOriginProtection() // a page of another origin must not write
	browsers.SetDenyHandler(a.refuse(func(*http.Request) *client.Error {
		return &client.Error{Status: http.StatusForbidden, Code: client.CodeInvalid, Detail: "a page of another origin may not do that", Remedy: "use curl or the command line"}
	}))
	a.handler = browsers.Handler(a.router(routes()))
	return a
}

// Handler returns the interface as a handler, without the limits of a listener.
func (a *API) Handler() http.Handler { return a.handler }
