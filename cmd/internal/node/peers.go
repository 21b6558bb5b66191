package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// peers are clients to other nodes, one for each address ever asked; a cluster has few. They dial through the node's own
// network, so that a cut link cuts questions too.
type peers struct {
	transport *http.Transport
	asking    http.RoundTripper // says which protocol this node speaks

	mu      sync.Mutex
	clients map[string]*client.Client
}

func newPeers(network host.Network, protocol ident.Protocol) *peers {
	t := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return network.Dial(ctx, addr) }}
	return &peers{clients: map[string]*client.Client{}, transport: t, asking: asking{t, protocol}}
}

// asking marks every question, so that nodes of other builds refuse it.
type asking struct {
	next     http.RoundTripper
	protocol ident.Protocol
}

func (a asking) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context()) // the caller's stays as it is
	api.Asks(r.Header, a.protocol)
	return a.next.RoundTrip(r)
}

func (p *peers) at(addr string) *client.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[addr]
	if c == nil {
		c = client.NewWith(client.Options{Addresses: []string{addr}, HTTPClient: &http.Client{Transport: p.asking}, Retry: -1})
		p.clients[addr] = c
	}
	return c
}

func (p *peers) close() error {
	p.transport.CloseIdleConnections()
	return nil
}
