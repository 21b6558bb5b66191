package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/host"
)

// peers are clients to other nodes, one for each address ever asked; a cluster has few. They dial through the node's own
// network, so that a cut link cuts questions too.
type peers struct {
	transport *http.Transport

	mu      sync.Mutex
	clients map[string]*client.Client
}

func newPeers(network host.Network) *peers {
	return &peers{clients: map[string]*client.Client{}, transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return network.Dial(ctx, addr) }}}
}

func (p *peers) at(addr string) *client.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[addr]
	if c == nil {
		c = client.NewWith(client.Options{Addresses: []string{addr}, HTTPClient: &http.Client{Transport: p.transport}, Retry: -1})
		p.clients[addr] = c
	}
	return c
}

func (p *peers) close() error {
	p.transport.CloseIdleConnections()
	return nil
}
