package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// node is a node as the examples need it: it keeps one record and does one switch-over.
func node() *httptest.Server {
	var value []byte
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/files/orders/records/4711", func(w http.ResponseWriter, r *http.Request) {
		value, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, `{"position":"default@3.42","journal":"default/a","sequence":142}`)
	})
	mux.HandleFunc("GET /v1/files/orders/records/4711", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(client.HeaderPosition, "default@3.42")
		_, _ = w.Write(value)
	})
	mux.HandleFunc("POST /v1/groups/default/switchover", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, `{"id":7,"kind":"switchover","group":"default","from":"a","to":"b","state":"done","epoch":4}`)
	})
	mux.HandleFunc("GET /v1/groups/default", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, `{"name":"default","primary":"a","in_sync":["b"],"targets":[{"node":"b","state":"sync","lag_entries":0}]}`)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"status":404,"code":"not_found","detail":"there is no record 4712 in file orders"}`)
	})
	return httptest.NewServer(mux)
}

// Write a record and read it back. The write is committed when Put returns.
func Example() {
	n := node()
	defer n.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c := client.New(n.URL) // give it the addresses of all nodes
	defer c.Close()
	w, err := c.Put(ctx, "orders", []byte("4711"), []byte("3 apples"), client.WriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(w.Journal, w.Sequence, w.Position, w.Created)
	r, err := c.Get(ctx, "orders", []byte("4711"), client.ReadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, last changed at %s\n", r.Value, r.Position)
	// Output:
	// default/a 142 default@3.42 true
	// 3 apples, last changed at default@3.42
}

// Errors are compared with errors.Is, whichever node they come from.
func ExampleError() {
	n := node()
	defer n.Close()
	c := client.New(n.URL)
	defer c.Close()

	_, err := c.Get(context.Background(), "orders", []byte("4712"), client.ReadOptions{})
	switch {
	case errors.Is(err, client.ErrNotFound):
		fmt.Println("nothing there:", err)
	case errors.Is(err, client.ErrUnknownOutcome):
		fmt.Println("read it before you write it again")
	}
	// Output: nothing there: there is no record 4712 in file orders
}

// Give the primary role to another node, and wait until it has it.
func ExampleClient_Switchover() {
	n := node()
	defer n.Close()
	c := client.New(n.URL)
	defer c.Close()

	op, err := c.Switchover(context.Background(), "default", client.SwitchoverRequest{To: "b"}, 30*time.Second)
	if err != nil {
		fmt.Println(err) // ErrPrecondition lists the failed checks; nothing has changed
		return
	}
	fmt.Println(op.State, op.From, "to", op.To, "epoch", op.Epoch)
	// Output: done a to b epoch 4
}

// See who is in sync.
func ExampleClient_Group() {
	n := node()
	defer n.Close()
	c := client.New(n.URL)
	defer c.Close()

	g, err := c.Group(context.Background(), "default")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range g.Targets {
		fmt.Println(g.Primary, "ships to", t.Node, t.State, t.LagEntries)
	}
	// Output: a ships to b sync 0
}
