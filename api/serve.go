package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Serve answers on ln until ctx ends. Then it tells waiting requests to finish, and closes each connection with its next
// answer: a request that a client sends on a connection that is being closed would be lost, and its outcome unknown. Who comes on a new
// connection is sent elsewhere. After
// Limits.Linger, when who sends often has gone elsewhere, it parts from those who send nothing by an answer, too, takes no more
// connections, grants what runs Limits.Shutdown, closes what is left and returns nil, or the first real error. It owns ln, and no handler runs any more when it returns nil.
func (a *API) Serve(ctx context.Context, ln net.Listener) error {
	l := a.o.Limits
	base, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), drainKey{}, ctx)) // running requests outlive ctx
	defer cancel()
	running, connections := &gate{}, newHouse(ln, l.Connections)
	server := &http.Server{
		Handler:           running.guard(a),
		ReadHeaderTimeout: l.HeaderTimeout,
		ReadTimeout:       l.ReadTimeout,
		WriteTimeout:      l.WriteTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.Header,
		ErrorLog:          a.o.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connections.know,
		ConnState:         connections.state,
	}
	failed := make(chan error, 1) // gets one value: how accepting ended
	go func() { failed <- server.Serve(connections) }()

	var err error
	accepting := true
	select {
	case <-ctx.Done():
		running.leaving.Store(true)
		connections.leave()
		select {
		case <-time.After(l.Linger):
			connections.part(a.farewell())
		case err = <-failed:
			accepting, err = false, fmt.Errorf("serve HTTP: %w", err)
		}
	case err = <-failed:
		accepting, err = false, fmt.Errorf("serve HTTP: %w", err)
	}
	within, stop := context.WithTimeout(context.Background(), l.Shutdown)
	defer stop()
	if server.Shutdown(within) != nil { // some did not finish in time
		cancel()
		if closing := server.Close(); err == nil && closing != nil {
			err = fmt.Errorf("close HTTP: %w", closing)
		}
	}
	if accepting {
		<-failed                       // http.ErrServerClosed, which Shutdown causes
		connections.part(a.farewell()) // from who was accepted in the last moment
	}
	if left := running.close(l.Shutdown); left > 0 && err == nil {
		err = fmt.Errorf("close HTTP: %d requests do not end", left)
	}
	a.peers.CloseIdleConnections()
	return err
}

// gate counts running handlers, which net/http does not join.
type gate struct {
	leaving atomic.Bool // each answer closes its connection

	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when the last handler ends; nil until close
}

// guard lets requests through to the API and counts them.
func (g *gate) guard(a *API) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		if g.closed {
			g.mu.Unlock()
			a.sendOn(w, r) // it was accepted in the last moment
			return
		}
		g.n++
		g.mu.Unlock()
		defer g.leave()
		if a.welcome(w, r) {
			a.handler.ServeHTTP(parting{w, g}, r)
		}
	})
}

// parting closes the connection of an answer that is begun while the listener is leaving.
type parting struct {
	http.ResponseWriter
	gate *gate
}

// Unwrap is for http.ResponseController.
func (p parting) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p parting) WriteHeader(status int) {
	p.close()
	p.ResponseWriter.WriteHeader(status)
}

func (p parting) Write(b []byte) (int, error) {
	p.close() // without effect when the header is out
	return p.ResponseWriter.Write(b)
}

func (p parting) close() {
	if p.gate.leaving.Load() {
		p.Header().Set("Connection", "close")
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.idle != nil {
		close(g.idle)
	}
}

// close lets nothing through any more and waits until the running handlers have ended; it returns how many did not.
func (g *gate) close(within time.Duration) int {
	g.mu.Lock()
	g.closed = true
	if g.n == 0 {
		g.mu.Unlock()
		return 0
	}
	g.idle = make(chan struct{})
	g.mu.Unlock()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-g.idle:
		return 0
	case <-t.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}
