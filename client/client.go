package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Options tune a Client.
type Options struct {
	Addresses  []string      // nodes, host:port or http://host:port; at least one
	HTTPClient *http.Client  // nil: one of the client's own
	Retry      time.Duration // how long a request that surely was not done is repeated; 0: 10 s; negative: never
	Timeout    time.Duration // for one try, beyond the wait that was asked for; 0: 15 s
	Hedge      time.Duration // a read goes to the next address too after so long a silence, beyond the wait; 0: 2 s
	// ExactlyOnce gives each write that has no idempotency key a random one, so that it is repeated, and done once, also when the
	// outcome of a try is unknown. The nodes keep a record for each key, which is journaled with the write.
	ExactlyOnce bool

	Probe bool // before a change, look for an address that answers: a node that hangs would leave its outcome unknown
}

// Client speaks to a cluster through any of its nodes. It keeps to the node that answered last and goes on to the next
// address when that one cannot be reached, so answers that describe "this node" come from whichever is asked: give one
// address only where that matters. It is safe for concurrent use, and leaves no goroutines behind beyond those of net/http.
type Client struct {
	bases   []string // http://host:port, without a slash at the end
	bad     error    // what is wrong with the addresses; returned by every call
	http    *http.Client
	own     *http.Transport // closed by Close; nil when the http.Client is the caller's
	retry   time.Duration
	timeout time.Duration
	hedge   time.Duration
	probe   bool

	exactlyOnce bool

	current atomic.Uint32 // index of the address that answered last
}

// New returns a client for the nodes at the given addresses (host:port or http://host:port). A bad address is reported by
// every call. Call Close when done.
func New(addresses ...string) *Client { return NewWith(Options{Addresses: addresses}) }

// NewWith is New with options.
func NewWith(o Options) *Client {
	c := &Client{http: o.HTTPClient, retry: o.Retry, timeout: o.Timeout, hedge: o.Hedge, probe: o.Probe, exactlyOnce: o.ExactlyOnce}
	if c.retry == 0 {
		c.retry = 10 * time.Second
	}
	if c.timeout <= 0 {
		c.timeout = 15 * time.Second
	}
	if c.hedge <= 0 {
		c.hedge = 2 * time.Second
	}
	if c.http == nil {
		d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 5 * time.Second, Control: impatient}
		c.own = &http.Transport{
			DialContext:            d.DialContext,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        30 * time.Second, // below the server's, so that it is us who close
			MaxResponseHeaderBytes: 64 << 10,
		}
		c.http = &http.Client{
			Transport:     c.own,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if len(o.Addresses) == 0 {
		c.bad = &Error{Code: CodeInvalid, Detail: "no node address given", Remedy: "name at least one, such as 127.0.0.1:7400"}
	}
	for _, a := range o.Addresses {
		base, err := baseOf(a)
		if err != nil {
			if c.bad == nil { // one at a time: each says what to do
				c.bad = err
			}
			continue
		}
		c.bases = append(c.bases, base)
	}
	return c
}

// baseOf turns an operator's address into the beginning of a URL.
func baseOf(address string) (string, error) {
	s := strings.TrimSuffix(address, "/")
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "") {
		err = errors.New("not a node address")
	}
	if err == nil && u.Port() != "" {
		_, err = strconv.ParseUint(u.Port(), 10, 16)
	}
	if err != nil {
		return "", &Error{
			Code: CodeInvalid, Detail: fmt.Sprintf("address %q cannot be used", address),
			Remedy: "write host:port, such as 127.0.0.1:7400", cause: err,
		}
	}
	return u.Scheme + "://" + u.Host, nil
}

// Close closes idle connections. The client can still be used.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}
