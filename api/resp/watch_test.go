package resp

import (
	"fmt"
	"testing"
)

// Proves BX-5, TR-7: positions of two groups are not compared. A watched key that has become another group's counts as changed, here and where
// the transaction is relayed.
func TestWatchedKeyOfAnotherGroup(t *testing.T) {
	for _, present := range []bool{false, true} {
		for node, relayed := range []bool{false, true} {
			t.Run(fmt.Sprintf("present %v relayed %v", present, relayed), func(t *testing.T) {
				w := newWorld(t, 2)
				w.move("other", "a", false)
				w.move("default", "a", false)
				c, another := w.nodes[node].dial(t), w.nodes[0].dial(t)
				if present {
					another.do("SET", "n:k", "before") // at 1 of its group
				} else {
					for range 5 { // the other history is behind
						another.do("SET", "n:some", "v")
					}
				}
				if got := c.do("WATCH", "n:k"); got != "OK" {
					t.Fatalf("watch: %s", got)
				}
				if present {
					another.do("DEL", "n:k")
				}
				w.mu.Lock()
				w.taken = "n"
				w.groups["other"].epoch = w.groups["default"].epoch
				w.mu.Unlock()
				another.do("SET", "n:k", "another") // at 1 of its new group
				if !present {
					another.do("DEL", "n:k")
				}
				for _, command := range [][]string{{"MULTI"}, {"SET", "n:k", "mine"}} {
					c.do(command...)
				}
				if got := c.do("EXEC"); got != "none" {
					t.Errorf("the transaction was done, though the key has changed: %s", got)
				}
			})
		}
	}
}

// Proves BX-5, TR-7: a command that a node has routed by an older state is not sent to the old group again and again until its time is over.
func TestCommandOfAKeyThatMoved(t *testing.T) {
	for _, command := range [][]string{{"SET", "n:k", "v"}, {"GET", "n:k"}, {"WATCH", "n:k"}} {
		t.Run(command[0], func(t *testing.T) {
			w := newWorld(t, 3)
			w.move("other", "c", false)
			c := w.nodes[1].dial(t)
			w.mu.Lock()
			w.taken, w.nodes[1].behind = "n", 1
			w.mu.Unlock()
			if got := c.do(command...); got != "-"+string(errMoved) {
				t.Errorf("routed to the old group: %s", got)
			}
			if got := c.do("SET", "n:k", "v"); got != "OK" {
				t.Errorf("sent again: %s", got)
			}
		})
	}
}
