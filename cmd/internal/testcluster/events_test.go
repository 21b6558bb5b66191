package testcluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/node"
	"github.com/understudy-ha/understudy/internal/ident"
)

// roleEvents are the published events of roles.
func roleEvents() []string {
	return []string{"SRPRIMARY", "SRSTANDBY", "SRSECONDARY", "SRSHADOWLOST", "SRSHADOWGAIN", "SRRECOVERCMPL"}
}

// told returns the node's events of roles, of all its lives, as its event log has them.
func (n *Node) told() (string, error) {
	events, err := n.client.FindEvents(n.cluster.t.Context(), client.EventQuery{Kinds: roleEvents(), Group: "default"}, 0)
	if err != nil {
		return "", err
	}
	var out []string
	last := uint64(0)
	for _, e := range events {
		if e.ID <= last || e.Node != string(n.ID) {
			return "", fmt.Errorf("event %+v after id %d at node %s", e, last, n.ID)
		}
		last = e.ID
		s := e.Kind
		if p := e.Fields["peer"]; p != "" {
			s += "(" + p + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " "), nil
}

// onDisk returns the content of a file in the data directory as a power cut at this moment would leave it.
func (n *Node) onDisk(name string) string {
	f, err := n.fs.CrashClone(vfs.CrashCloneCfg{}).Open(n.config.Data + "/" + name)
	if err != nil {
		return err.Error()
	}
	raw, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err.Error()
	}
	return string(raw)
}

// Proves TR-2 on whole nodes: the loss and the return of a secondary, a planned switch-over, the death and the return of a
// primary. Each node tells exactly what changed for it, keeps it over its death, and runs its hook program for it.
func TestServersTellTheirChanges(t *testing.T) {
	heard := filepath.Join(t.TempDir(), "heard")
	c := Start(t, Options{Hooks: node.Hooks{Events: []node.Hook{
		{Run: []string{"/bin/sh", "-c", `echo "$UNDERSTUDY_EVENT_KIND${UNDERSTUDY_EVENT_FIELD_PEER:+($UNDERSTUDY_EVENT_FIELD_PEER)}" >> ` + heard + `.$UNDERSTUDY_EVENT_NODE`}},
	}}})
	st, err := c.Node("a").Client().Group(t.Context(), "default")
	if err != nil || st.Primary != "a" || len(st.InSync) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	x, y := ident.NodeID(st.InSync[0]), ident.NodeID("c") // who was level first is a matter of chance
	if x == "c" {
		y = "b"
	}
	a := ident.NodeID("a")
	want := map[ident.NodeID]string{}
	hears := func(id ident.NodeID, more string) {
		t.Helper()
		want[id] = strings.TrimSpace(want[id] + " " + strings.NewReplacer("(x)", "("+string(x)+")", "(y)", "("+string(y)+")").Replace(more))
		c.Wait(fmt.Sprintf("%s tells %q", id, want[id]), 20*time.Second, func() error {
			got, err := c.Node(id).told()
			if err != nil {
				return err
			}
			if !strings.HasPrefix(want[id], got) {
				t.Fatalf("%s has told %q, want %q", id, got, want[id])
			}
			if got != want[id] {
				return fmt.Errorf("so far %q", got)
			}
			return nil
		})
	}
	kept := func(id ident.NodeID, kind string) { // it is on disk a moment after it was told
		t.Helper()
		c.Wait(string(id)+" has kept "+kind, 10*time.Second, func() error {
			if raw := c.Node(id).onDisk("events/events.jsonl"); !strings.Contains(raw, kind) {
				return errors.New(raw)
			}
			return nil
		})
	}
	hears(a, "SRPRIMARY SRSHADOWGAIN(x)")
	c.Wait("x is a secondary", 20*time.Second, func() error {
		got, err := c.Node(x).told()
		if err == nil && !strings.HasSuffix(got, "SRSECONDARY(a)") {
			err = errors.New(got)
		}
		if strings.HasPrefix(got, "SRSTANDBY(a)") { // else it was taken in before it knew of itself
			want[x] = "SRSTANDBY(a)"
		}
		return err
	})
	hears(x, "SRRECOVERCMPL(a) SRSECONDARY(a)")
	hears(y, "SRSTANDBY(a) SRRECOVERCMPL(a)")

	kept(x, "SRSECONDARY")
	c.Node(x).Crash() // the secondary dies, the spare takes its place
	hears(a, "SRSHADOWLOST(x) SRSHADOWGAIN(y)")
	hears(y, "SRSECONDARY(a)")
	c.Node(x).Start() // and comes back as a spare
	hears(x, "SRSTANDBY(a) SRRECOVERCMPL(a)")
	hears(a, "")
	hears(y, "")

	op, err := c.Node(a).Client().Switchover(t.Context(), "default", client.SwitchoverRequest{To: string(y)}, 20*time.Second)
	if err != nil || op.State != "done" {
		t.Fatalf("switch-over: %+v, %v", op, err)
	}
	hears(y, "SRPRIMARY")
	hears(a, "SRSECONDARY(y)")
	hears(x, "")

	kept(y, "SRPRIMARY")
	c.Node(y).Crash() // the primary dies; whether x holds SW in time for Open is a matter of chance
	c.Wait("a has a shadow", 20*time.Second, func() error {
		got, err := c.Node(a).told()
		if err != nil {
			return err
		}
		if n := strings.Count(got, "SRSHADOWGAIN"); n != 3 {
			return errors.New(got)
		}
		if strings.HasSuffix(got, fmt.Sprintf("SRRECOVERCMPL SRPRIMARY SRSHADOWLOST(%s) SRSHADOWGAIN(%s)", y, x)) {
			want[a] += " SRRECOVERCMPL SRPRIMARY SRSHADOWLOST(" + string(y) + ") SRSHADOWGAIN(" + string(x) + ")"
		} else {
			want[a] += " SRRECOVERCMPL SRPRIMARY SRSHADOWGAIN(" + string(x) + ")"
		}
		return nil
	})
	hears(a, "")
	hears(x, "SRSECONDARY(a)")
	c.Node(y).Start()
	hears(y, "SRSTANDBY(a) SRRECOVERCMPL(a)")
	hears(a, "")
	hears(x, "")

	for _, id := range []ident.NodeID{"a", "b", "c"} {
		c.Wait("the hook of "+string(id)+" has run for all", 10*time.Second, func() error {
			raw, err := os.ReadFile(heard + "." + string(id))
			if got := strings.Join(strings.Fields(string(raw)), " "); err != nil || got != want[id] {
				return fmt.Errorf("%q, want %q, %v", got, want[id], err)
			}
			return nil
		})
	}
}
