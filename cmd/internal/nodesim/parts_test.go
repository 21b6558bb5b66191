package nodesim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

// pair connects two hosts.
func pair(t *testing.T, n *network) (a, b net.Conn) {
	t.Helper()
	va, vb := view{n, "10.0.0.1", new(atomic.Bool)}, view{n, "10.0.0.2", new(atomic.Bool)}
	ln, err := vb.Listen("10.0.0.2:7402")
	if err != nil {
		t.Fatal(err)
	}
	a, err = va.Dial(context.Background(), "10.0.0.2:7402")
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestNetworkHoldsOneDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(seeded(), newEffects())
		a, b := pair(t, n)
		why := "test"
		hold := func(by int32) {
			n.change("10.0.0.1", "10.0.0.2", raftPort, func(p *path) { p.cause.Store(&why); p.held.Add(by) })
		}
		hold(1)
		read := func(c net.Conn, d time.Duration) (string, error) {
			_ = c.SetReadDeadline(time.Now().Add(d))
			var buf [8]byte
			k, err := c.Read(buf[:])
			return string(buf[:k]), err
		}
		for _, c := range []net.Conn{a, b} {
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
		}
		if got, err := read(a, time.Second); got != "hello" || err != nil {
			t.Errorf("the open direction brings %q, %v", got, err)
		}
		began := time.Now()
		if got, err := read(b, time.Second); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("the held direction brings %q, %v after %s", got, err, time.Since(began))
		}
		if _, err := (view{n, "10.0.0.1", new(atomic.Bool)}).Dial(context.Background(), "10.0.0.2:7402"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dial into the dark: %v", err)
		}
		hold(-1)
		if got, err := read(b, time.Second); got != "hello" || err != nil {
			t.Errorf("what was held arrives as %q, %v", got, err)
		}
		if n.effects.get(why) == 0 {
			t.Error("the cut was not counted")
		}
	})
}

func TestNetworkDeathOfAHost(t *testing.T) {
	for _, power := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(seeded(), newEffects())
			a, b := pair(t, n)
			n.sever("10.0.0.1", power)
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the dead read on: %v", err)
			}
			_ = b.SetReadDeadline(time.Now().Add(time.Minute))
			_, err := b.Read(make([]byte, 1))
			switch {
			case !power && !errors.Is(err, io.EOF):
				t.Errorf("the peer of a dead process hears %v", err)
			case power && !errors.Is(err, os.ErrDeadlineExceeded):
				t.Errorf("the peer of a machine without power hears %v", err)
			}
			n.light("10.0.0.1")
			_ = b.SetReadDeadline(time.Time{})
			if _, err := b.Read(make([]byte, 1)); power && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after the restart the peer hears %v", err)
			}
		})
	}
}

func TestDiskTearsOnlyWhatIsNotSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes := map[string]int{}
		for seed := range uint64(60) {
			e := newEffects()
			d := newDisk(vfs.NewCrashableMem(), newFaults(seeded(), e))
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(d.MkdirAll("/a/journals", 0o755))
			f, err := d.OpenReadWrite("/a/journals/r", "")
			must(err)
			_, err = f.WriteAt([]byte(strings.Repeat("s", 1000)), 0)
			must(err)
			must(f.Sync())
			for _, dir := range []string{"/a/journals", "/a", "/"} {
				h, err := d.OpenDir(dir)
				must(err)
				must(h.Sync())
				must(h.Close())
			}
			_, err = f.WriteAt([]byte(strings.Repeat("n", 2000)), 1000)
			must(err)
			left := d.crash(lossTorn, rand.New(rand.NewPCG(seed, 3)))
			g, err := left.Open("/a/journals/r")
			must(err)
			raw, err := io.ReadAll(g)
			must(err)
			if len(raw) < 1000 || string(raw[:1000]) != strings.Repeat("s", 1000) {
				t.Fatalf("seed %d: synced bytes are gone", seed)
			}
			for at := 1024; at+sector <= len(raw); at += sector {
				switch s := string(raw[at : at+sector]); {
				case s == strings.Repeat("n", sector):
					outcomes["new"]++
				case s == strings.Repeat("\x00", sector):
					outcomes["zeros"]++
				default:
					outcomes["garbage"]++
				}
			}
			if gone := d.crash(lossAll, seeded()); gone != nil {
				if s, err := gone.Stat("/a/journals/r"); err != nil || s.Size() != 1000 {
					t.Fatalf("a power cut leaves %v, %v", s, err)
				}
			}
		}
		if outcomes["new"] == 0 || outcomes["zeros"] == 0 || outcomes["garbage"] == 0 {
			t.Errorf("sectors came out as %v", outcomes)
		}
	})
}

func TestDiskFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(seeded(), newEffects())
		f.set(func() { f.full = true })
		if err := f.before("journal", opWrite); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk takes a write: %v", err)
		}
		f.set(func() { f.full, f.fail["journal"] = false, 100 })
		if err := f.before("journal", opSync); !errors.Is(err, syscall.EIO) {
			t.Errorf("a failing disk syncs: %v", err)
		}
		f.heal()
		f.hangs("journal")
		began := time.Now()
		time.AfterFunc(time.Minute, f.heal)
		if err := f.before("journal", opWrite); err != nil || time.Since(began) != time.Minute {
			t.Errorf("a disk that hangs for a minute: %v after %s", err, time.Since(began))
		}
	})
}

func TestRaftDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newRaftDisk(newFaults(seeded(), newEffects()))
		if _, err := d.Open(nil); err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); i <= 10; i++ {
			if err := d.StoreLog(&raft.Log{Index: i, Term: i}); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.StoreLog(&raft.Log{Index: 12}); err == nil {
			t.Error("a gap is taken")
		}
		after := d.crash(newFaults(seeded(), newEffects()))
		if err := d.DeleteRange(1, 10); err != nil { // the life that ended goes on, unseen
			t.Fatal(err)
		}
		if err := after.DeleteRange(1, 3); err != nil {
			t.Fatal(err)
		}
		if err := after.DeleteRange(9, 10); err != nil {
			t.Fatal(err)
		}
		first, _ := after.FirstIndex()
		last, _ := after.LastIndex()
		var l raft.Log
		if err := after.GetLog(8, &l); err != nil || l.Term != 8 || first != 4 || last != 8 {
			t.Errorf("the next life finds %d to %d, entry 8 of term %d, %v", first, last, l.Term, err)
		}
		if ok, err := after.Exists(); !ok || err != nil {
			t.Errorf("exists %v, %v", ok, err)
		}
	})
}

// events notes what memberlist believes.
type events struct{ left atomic.Int32 }

func (e *events) NotifyJoin(*memberlist.Node)   {}
func (e *events) NotifyUpdate(*memberlist.Node) {}
func (e *events) NotifyLeave(*memberlist.Node)  { e.left.Add(1) }

// A forged datagram is believed: else the schedules with forged gossip would test nothing.
func TestForgedGossipIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(seeded(), newEffects())
		var lists []*memberlist.Memberlist
		var believed events
		for i, host := range []string{"10.0.0.1", "10.0.0.2"} {
			v := view{n, host, new(atomic.Bool)}
			trans, port, err := v.bindGossip(host+":"+gossipPort, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := memberlist.DefaultLANConfig()
			c.Name, c.Label, c.Transport, c.BindPort, c.AdvertiseAddr, c.AdvertisePort = host, "label", trans, port, host, port
			c.LogOutput = io.Discard
			if i == 0 {
				c.Events = &believed
			}
			l, err := memberlist.Create(c)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, l)
		}
		if _, err := lists[0].Join([]string{"10.0.0.2:" + gossipPort}); err != nil {
			t.Fatal(err)
		}
		n.forge("10.0.0.1:"+gossipPort, "10.0.0.9:1", forge("label", forgeDead, 100, "10.0.0.2", "10.0.0.9", nil, nil))
		time.Sleep(10 * time.Millisecond)
		if believed.left.Load() != 1 {
			t.Error("a forged death is not believed")
		}
		for _, l := range lists {
			if err := l.Shutdown(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(lastTimers)
	})
}
