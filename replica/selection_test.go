package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/journal/entry"
)

// selection is the group's selection by the state of now: everything but the foreign file.
func (n *node) selection() func(string, []byte) error {
	foreign := n.foreign.Load()
	return func(file string, _ []byte) error {
		if foreign != nil && file == *foreign {
			return fmt.Errorf("%w: %s", ErrNotOwned, file)
		}
		return nil
	}
}

// TestSelectionAtTheSequencer: a record that is not the group's when its turn comes is neither written, nor deleted, nor read for a
// condition or a program; nothing of the request is done, and those beside it are. Proves TR-7, HB-2.
func TestSelectionAtTheSequencer(t *testing.T) {
	c := newCluster(t, fsm.GroupSpec{}, "a", "b")
	a := c.nodes["a"]
	c.inSync("a", "b")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	put := func(file, key string) Write { return Write{File: file, Key: []byte(key), Value: []byte("v")} }
	if _, err := a.rep.Write(ctx, Transaction{Writes: []Write{put("g", "old")}}); err != nil {
		t.Fatal(err)
	}
	foreign := "g"
	a.foreign.Store(&foreign)
	program := func(f func(v *View) error) Transaction {
		return Transaction{Program: func(v *View) error {
			if err := v.Put("f", []byte("p"), entry.Image{Value: []byte("v")}); err != nil {
				return err
			}
			_ = f(v) // what the program makes of it does not count
			return nil
		}}
	}
	refused := map[string]Transaction{
		"write":     {Writes: []Write{put("f", "w"), put("g", "w")}},
		"deletion":  {Writes: []Write{{File: "g", Key: []byte("old"), Delete: true}}},
		"condition": {Writes: []Write{put("f", "c")}, Conditions: []Condition{{File: "g", Key: []byte("x"), Absent: true}}},
		"once":      {Writes: []Write{put("g", "o")}, Once: &Once{Key: "k", Request: [32]byte{1}, Keep: patience}},
		"read":      program(func(v *View) error { _, err := v.Get("g", []byte("old")); return err }),
		"put":       program(func(v *View) error { return v.Put("g", []byte("p"), entry.Image{}) }),
		"delete":    program(func(v *View) error { _, err := v.Delete("g", []byte("old")); return err }),
	}
	for name, tx := range refused {
		if _, err := a.rep.Write(ctx, tx); !errors.Is(err, ErrNotOwned) || !NotDone(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	out := a.rep.WriteAll(ctx, []Transaction{{Writes: []Write{put("f", "1")}}, {Writes: []Write{put("g", "2")}}, {Writes: []Write{put("f", "3")}}})
	if out[0].Err != nil || !errors.Is(out[1].Err, ErrNotOwned) || out[2].Err != nil {
		t.Errorf("a batch: %v, %v, %v", out[0].Err, out[1].Err, out[2].Err)
	}
	if page, err := a.rep.List(ctx, "f", nil, nil, 10, false); err != nil || len(page.Records) != 2 {
		t.Errorf("%d records of f, %v", len(page.Records), err)
	}
	if page, err := a.rep.List(ctx, "g", nil, nil, 10, false); err != nil || len(page.Records) != 1 {
		t.Errorf("%d records of g, %v", len(page.Records), err)
	}
	a.foreign.Store(nil)
	if _, err := a.rep.Write(ctx, refused["write"]); err != nil {
		t.Errorf("the group's again: %v", err)
	}
}
