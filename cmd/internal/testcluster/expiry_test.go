package testcluster

import (
	"errors"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Through any node: a time to live becomes a time where the request arrives, the primary deletes what is due, and every copy
// has the deletion as an entry.
func TestExpiryFlows(t *testing.T) {
	c := Start(t, Options{Timing: steady()})
	for _, id := range c.options.Nodes {
		cl := c.Node(id).Client()
		key := []byte("of " + string(id))
		before := time.Now()
		w, err := cl.Put(t.Context(), "f", append(key, '+'), []byte("v"), client.WriteOptions{TTL: time.Hour})
		if err != nil || !w.Created {
			t.Fatalf("%+v, %v", w, err)
		}
		after := time.Now()
		r, err := cl.Get(t.Context(), "f", append(key, '+'), client.ReadOptions{})
		if err != nil || r.Expiry.Before(before.Add(time.Hour)) || r.Expiry.After(after.Add(time.Hour)) || r.Kind != client.KindBytes {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, err := cl.Put(t.Context(), "f", key, []byte("v"), client.WriteOptions{Expiry: before.Add(-time.Minute)}); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Get(t.Context(), "f", key, client.ReadOptions{}); !errors.Is(err, client.ErrNotFound) {
			t.Fatalf("its time is over: %v", err)
		}
		if _, err := cl.Put(t.Context(), "f", key, []byte("again"), client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if r, err := cl.Get(t.Context(), "f", key, client.ReadOptions{}); err != nil || string(r.Value) != "again" || !r.Expiry.IsZero() {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	c.equalDigests()
	for _, id := range c.options.Nodes {
		page, err := c.Node(id).Client().Facts(t.Context(), "default", "", client.EntryFilter{Code: "R", Type: "DL"})
		if err != nil || len(page.Items) != len(c.options.Nodes) {
			t.Fatalf("deletions at %s: %+v, %v", id, page, err)
		}
	}
}
