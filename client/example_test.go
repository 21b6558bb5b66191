package client_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Write a record and read it back. The write is committed when Put returns. Give the client the addresses of all nodes: it goes on to the
// next one when one is gone.
func Example() {
	nodes, stop := cluster()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // of everything: repetitions, too
	defer cancel()

	c := client.New(nodes...)
	defer c.Close()
	w, err := c.Put(ctx, "orders", []byte("4711"), []byte("3 apples"), client.WriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := c.Get(ctx, "orders", []byte("4711"), client.ReadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, new: %v, unchanged since: %v\n", r.Value, w.Created, r.Position == w.Position)
	// Output: 3 apples, new: true, unchanged since: true
}

// Errors are compared with errors.Is, whichever node they come from. errors.As gives the details.
func ExampleError() {
	nodes, stop := cluster()
	defer stop()
	c := client.New(nodes...)
	defer c.Close()

	_, err := c.Get(context.Background(), "orders", []byte("4712"), client.ReadOptions{})
	var e *client.Error
	switch {
	case errors.Is(err, client.ErrNotFound) && errors.As(err, &e):
		fmt.Println("nothing there:", e.Code)
	case errors.Is(err, client.ErrNoPrimary), errors.Is(err, client.ErrNoQuorum), errors.Is(err, client.ErrUnavailable):
		fmt.Println("nothing was done, try again later")
	case errors.Is(err, client.ErrUnknownOutcome):
		fmt.Println("of writes only: see Settle")
	}
	// Output: nothing there: not_found
}

// Change what was read, unless somebody else was faster: then read again.
func ExampleClient_Put_condition() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()

	increment := func(file, key string) (int, error) {
		for {
			r, err := c.Get(ctx, file, []byte(key), client.ReadOptions{})
			n := 0
			o := client.WriteOptions{IfAbsent: true}
			switch {
			case err == nil:
				n, _ = strconv.Atoi(string(r.Value))
				o = client.WriteOptions{IfPosition: r.Position}
			case !errors.Is(err, client.ErrNotFound):
				return 0, err
			}
			if _, err = c.Put(ctx, file, []byte(key), []byte(strconv.Itoa(n+1)), o); err == nil {
				return n + 1, nil
			}
			if !errors.Is(err, client.ErrPrecondition) {
				return 0, err
			}
		}
	}
	for range 3 {
		fmt.Println(increment("counters", "visits"))
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

// Write once, however often a try gets lost: with a key the client repeats a write also when its outcome is unknown, at any node, and the
// answer to the first try comes back.
func ExampleClient_Put_exactlyOnce() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()

	o := client.WriteOptions{IdempotencyKey: client.NewIdempotencyKey()} // keep it with the order, to repeat it after a crash of one's own
	first, err := c.Put(ctx, "payments", []byte("4711"), []byte("12.50"), o)
	if err != nil {
		fmt.Println(err)
		return
	}
	again, err := c.Put(ctx, "payments", []byte("4711"), []byte("12.50"), o)
	fmt.Println(again.Position == first.Position, again.Replayed, err)
	// Output: true true <nil>
}

// Change several records as a whole. Each change has its position, on which the next one can insist.
func ExampleClient_Transact() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()

	var t client.Transaction
	t.Put("accounts", []byte("ann"), []byte("90")).Put("accounts", []byte("bob"), []byte("110"))
	r, err := c.Transact(ctx, t.IfAbsent("accounts", []byte("ann")), client.WriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(r.Changes), r.Changes[1].Created, r.Changes[1].Position == r.Position)

	var next client.Transaction
	next.Put("accounts", []byte("ann"), []byte("80")).Put("accounts", []byte("bob"), []byte("120"))
	next.IfPosition("accounts", []byte("ann"), r.Changes[0].Position).IfAbsent("accounts", []byte("bob"))
	_, err = c.Transact(ctx, &next, client.WriteOptions{})
	var e *client.Error
	if errors.Is(err, client.ErrPrecondition) && errors.As(err, &e) {
		fmt.Println("nothing was done: condition", e.Failed.Index, "of", e.Failed.Text)
	}
	// Output:
	// 2 true true
	// nothing was done: condition 1 of bob
}

// Read all records whose keys begin alike.
func ExampleClient_All() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()

	for _, key := range []string{"2026-02", "2026-01", "2025-12"} {
		if _, err := c.Put(ctx, "reports", []byte(key), []byte("of "+key), client.WriteOptions{}); err != nil {
			fmt.Println(err)
			return
		}
	}
	for r, err := range c.All(ctx, "reports", client.ListOptions{Prefix: []byte("2026-")}) {
		if err != nil {
			fmt.Println(err) // the iteration ends
			return
		}
		fmt.Printf("%s: %s\n", r.Text, r.Value)
	}
	// Output:
	// 2026-01: of 2026-01
	// 2026-02: of 2026-02
}

// Read from the node that is asked, a backup perhaps, if its copy is not older than a second; else from the primary.
func ExampleClient_Get_backup() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()
	if _, err := c.Put(ctx, "prices", []byte("apple"), []byte("0.50"), client.WriteOptions{}); err != nil {
		fmt.Println(err)
		return
	}

	r, err := c.Get(ctx, "prices", []byte("apple"), client.ReadOptions{Local: true, MaxLag: time.Second})
	if errors.Is(err, client.ErrStale) || errors.Is(err, client.ErrNotFound) { // it was written a moment ago
		r, err = c.Get(ctx, "prices", []byte("apple"), client.ReadOptions{})
	}
	fmt.Printf("%s %v %v\n", r.Value, r.Age <= 1, err)
	// Output: 0.50 true <nil>
}

// Take each fact of a group exactly once: what is made of an entry and its position are kept together, and the next run begins
// after it.
func ExampleClient_FollowHistory() {
	nodes, stop := cluster()
	defer stop()
	ctx := context.Background()
	c := client.New(nodes...)
	defer c.Close()
	first, err := c.Put(ctx, "feed", []byte("4710"), []byte("1 pear"), client.WriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var t client.Transaction
	last, err := c.Transact(ctx, t.Put("feed", []byte("4711"), []byte("3 apples")).Delete("feed", []byte("4710")), client.WriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}

	kept := first.Position // read together with what was made of the entries before
	o := client.FollowOptions{After: kept, EntryFilter: client.EntryFilter{Code: "R", File: "feed"}}
	for e, err := range c.FollowHistory(ctx, "default", o) {
		if err != nil {
			fmt.Println(err) // ErrGone and ErrPrecondition name the position after which one can go on
			return
		}
		switch {
		case e.Type == "DL":
			fmt.Println(e.Text, "was deleted")
		case e.After != nil:
			fmt.Printf("%s is %s\n", e.Text, e.After.Value)
		}
		if kept = e.Position; kept == last.Position { // store it in the same transaction
			break
		}
	}
	// Output:
	// 4711 is 3 apples
	// 4710 was deleted
}

// Ask what a switch-over would do, then give the primary role to another node and wait until it has it.
func ExampleClient_Switchover() {
	nodes, stop := cluster()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := client.New(nodes...)
	defer c.Close()

	request := client.SwitchoverRequest{To: "b"}
	ready, err := c.DryRun(ctx, "default", request)
	if err != nil || !ready.Ready {
		fmt.Println(ready.Checks, err)
		return
	}
	fmt.Println("from", ready.From, "to", ready.To, "would lose", ready.Loss)
	op, err := c.Switchover(ctx, "default", request, 30*time.Second)
	if err != nil {
		fmt.Println(err) // ErrPrecondition lists the failed checks; nothing has changed
		return
	}
	g, err := c.Group(ctx, "default")
	fmt.Println(op.State, g.Primary, err)
	// Output:
	// from a to b would lose none
	// done b <nil>
}
