package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// doorOf returns a port of a protocol, and what it would have been asked.
func doorOf(t *testing.T, p ident.Protocol, change ...func(*port)) (*port, *doorman) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Name: "demo", Protocol: p, Host: host.Real(), Logger: testLogger(t, "p")}
	d := &port{listener: ln, network: host.Real().Network, address: advertised(ln.Addr().String()), log: testLogger(t, "p"),
		cluster: func() ident.ClusterID { return "cluster" }, protocol: p, doorman: newDoorman(o),
		control: func(_ context.Context, _ bool, r request) response {
			if r.Info == nil {
				return response{Code: "served"}
			}
			return response{Code: codeOK, Info: &info{Node: "p", Name: "demo", Cluster: "cluster", Protocol: p}, Leader: "somewhere"}
		}}
	for _, f := range change {
		f(d)
	}
	d.start()
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d, d.doorman
}

// Proves CL-7: at the Raft port a node of another protocol gets no Raft connection and no request served, only an answer to the question
// who is there; with the same protocol it gets all of that. Zero is a build from before there was a number.
func TestRaftPortKeepsOtherProtocolsOut(t *testing.T) {
	for _, x := range []struct{ theirs, ours ident.Protocol }{{3, 3}, {0, 0}, {4, 3}, {3, 4}, {0, 3}} {
		them, _ := doorOf(t, x.theirs)
		us, doorman := doorOf(t, x.ours)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		same := x.theirs == x.ours

		taken := make(chan net.Conn, 1)
		go func() {
			conn, _ := streams{us}.Accept()
			taken <- conn
		}()
		conn, err := streams{them}.Dial(raft.ServerAddress(us.address), 10*time.Second)
		if same != (err == nil) {
			t.Errorf("protocol %s to %s: raft connection: %v", x.theirs, x.ours, err)
		}
		if err == nil {
			_ = conn.Close()
			<-taken
		}
		var other *ident.OtherProtocolError
		if x.theirs != 0 && !same && (!errors.As(err, &other) || other.Theirs != x.ours || other.Ours != x.theirs) {
			t.Errorf("protocol %s to %s: %v", x.theirs, x.ours, err)
		}

		r, err := them.call(ctx, string(us.address), request{Propose: &fsm.Command{}})
		switch {
		case err != nil:
			t.Errorf("protocol %s to %s: %v", x.theirs, x.ours, err)
		case same != (r.Code == "served"):
			t.Errorf("protocol %s to %s: a command was answered with %+v", x.theirs, x.ours, r)
		}
		r, err = them.call(ctx, string(us.address), request{Join: &joinRequest{Name: "demo", Node: fsm.RegisterNode{ID: "x"}}})
		switch {
		case err != nil:
			t.Errorf("protocol %s to %s: %v", x.theirs, x.ours, err)
		case same:
		case x.theirs == 0 && (r.Code != codeCluster || !strings.Contains(r.Detail, "another build")): // which such a build takes for final
			t.Errorf("a build from before the number was answered with %+v", r)
		case x.theirs != 0 && (r.Code != codeProtocol || r.Info == nil || r.Info.Protocol != x.ours || r.Leader == ""):
			t.Errorf("protocol %s to %s: %+v", x.theirs, x.ours, r)
		}
		if known := doorman.list(); len(known) != 0 == same || !same && (known[0].Node != "x" || known[0].Protocol != x.theirs) {
			t.Errorf("protocol %s to %s: met %+v", x.theirs, x.ours, known)
		}
		if r, err := them.call(ctx, string(us.address), question(Options{Node: "x", Name: "demo", Protocol: x.theirs})); err != nil || r.Info == nil || r.Info.Protocol != x.ours {
			t.Errorf("protocol %s to %s: the question was answered with %+v, %v", x.theirs, x.ours, r, err)
		}
	}
}

// What builds before the number read and send stays as it was: their hello, and the question to which they answer.
func TestHelloOfBuildsBeforeTheProtocol(t *testing.T) {
	var b bytes.Buffer
	old, now := &port{}, &port{protocol: 3}
	if old.version(true) != 1 || old.version(false) != 1 || now.version(true) != 1 || now.version(false) != 3 {
		t.Error("byte 1 of the hello is another one")
	}
	if err := writeHello(&b, hello{helloRaft, now.version(false), "id"}); err != nil || !bytes.Equal(b.Bytes(), []byte{'R', 3, 2, 'i', 'd'}) {
		t.Errorf("%q %v", b.Bytes(), err)
	}
}

// A Raft connection of an old build hears the one answer that it understands.
func TestOldRaftConnectionIsRefused(t *testing.T) {
	us, _ := doorOf(t, 3)
	conn, err := net.Dial("tcp", string(us.address))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("R\x01\x07cluster")); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "X" {
		t.Errorf("%q %v", answer, err)
	}
}

// testClock is a wall clock in the test's hand.
type testClock struct {
	host.Clock
	now time.Time
}

func (c *testClock) Now() time.Time { return c.now }

// An incident is told once, whatever comes; again for another build, and when the node had been away.
func TestDoormanTellsOnce(t *testing.T) {
	clock := &testClock{Clock: host.Real().Clock, now: time.Unix(1000, 0)}
	h := host.Real()
	h.Clock = clock
	told := 0
	d := newDoorman(Options{Protocol: 3, Host: h, Logger: testLogger(t, "p"), OnOther: func(Knock) { told++ }})
	want := func(n, shown int) {
		t.Helper()
		if told != n || len(d.list()) != shown {
			t.Fatalf("told %d times, want %d; shows %v", told, n, d.list())
		}
	}
	for range 5 {
		d.saw("c", 4, "x:1")
		clock.now = clock.now.Add(knockForgotten / 2)
	}
	want(1, 1)
	if k := d.list()[0]; k.Since != time.Unix(1000, 0) || k.Address != "x:1" {
		t.Errorf("%+v", k)
	}
	d.saw("c", 5, "x:1")
	want(2, 1)
	clock.now = clock.now.Add(knockForgotten + 1)
	want(2, 0)
	d.saw("c", 5, "x:1")
	want(3, 1)
	if !d.keepsOut("c") || d.keepsOut("a") {
		t.Error("keeps others out than it met")
	}
	clock.now = clock.now.Add(knockForgotten + 1)
	if d.keepsOut("c") { // nothing was shown or met since
		t.Error("keeps out a node that was away for long")
	}
	d.saw("c", 5, "x:1")
	want(4, 1)
	d.saw("c", 3, "x:1") // it runs the right build
	want(4, 0)
	d.saw("", 4, "x:1")
	want(4, 0)
	for i := range 2 * maxKnocks {
		d.saw(ident.NodeID("n"+strings.Repeat("x", i)), 4, "x:1")
	}
	if n := len(d.list()); n != maxKnocks {
		t.Errorf("%d are remembered", n)
	}
}

// Proves CL-7: a node of another protocol does not start while the others run, and takes nothing from them; gossip does not see it. It is
// asked before, and refused when it joins all the same; both ways round.
func TestOtherProtocolDoesNotJoin(t *testing.T) {
	a, b, c := trio(t, func(m *machine) { m.speaks = 5 })
	term := func() string { return leader(t, a, b).RaftStats()["term"] }
	eventually(t, "a leads", func() bool { return a.Leader() != "" })
	c.stop(true)
	eventually(t, "c is gone", func() bool { return !a.Alive("c") && !b.Alive("c") })
	was := term()
	for _, p := range []ident.Protocol{4, 6} {
		c.speaks = p
		err := c.refuse(20*time.Second, join(a.raftAddr, b.raftAddr))
		var other *ident.OtherProtocolError
		if !errors.As(err, &other) || other.Theirs != 5 || other.Ours != p {
			t.Fatalf("got %v", err)
		}
		o := c.options(join(a.raftAddr, b.raftAddr))
		_ = o.RaftListener.Close()
		if err := Survey(context.Background(), o); !errors.As(err, &other) || other.Theirs != 5 {
			t.Fatalf("the survey says %v", err)
		}
		for _, m := range []*machine{a, b} {
			if m.Alive("c") {
				t.Errorf("%s takes it for alive", m.name)
			}
			eventually(t, "it is shown", func() bool { k := m.Knocks(); return len(k) == 1 && k[0].Node == "c" && k[0].Protocol == p })
		}
	}
	fresh := newMachine(t, "d") // it never belonged to the cluster
	fresh.speaks = 6
	if err := fresh.refuse(20*time.Second, join(a.raftAddr)); !strings.Contains(err.Error(), "inter-node protocol 5") {
		t.Fatalf("got %v", err)
	}
	if now := term(); now != was {
		t.Errorf("raft's term was %s, is %s: there was an election", was, now)
	}
	c.speaks = 5
	c.start(join(a.raftAddr))
	c.play()
	knocks := func(m *machine) bool {
		return slices.ContainsFunc(m.Knocks(), func(k Knock) bool { return k.Node == "c" })
	}
	eventually(t, "c is back", func() bool { return a.Alive("c") && b.Alive("c") && !knocks(a) && !knocks(b) })
}

// Proves CL-7: a node that was left running when the others were stopped, and come back with another protocol, has no part in what they
// do; they show it, and it ends itself.
func TestNodeLeftBehindEndsItself(t *testing.T) {
	ended := make(chan error, 1)
	a, b, c := trio(t, func(m *machine) {
		m.speaks = 5
		if m.name == "c" {
			m.ended = func(err error) { ended <- err }
		}
	})
	for _, m := range []*machine{a, b} {
		m.stop(true)
	}
	eventually(t, "c has no leader", func() bool { return c.Leader() == "" })
	opened := make(chan *Cluster, 1)
	a.speaks, b.speaks = 6, 6
	go func() {
		n, err := Open(context.Background(), a.options())
		if err != nil {
			t.Error(err)
		}
		opened <- n
	}()
	b.start()
	a.Cluster = <-opened
	if a.Cluster == nil {
		t.FailNow()
	}
	t.Cleanup(func() { a.stop(false) })
	leader(t, a, b)
	var other *ident.OtherProtocolError
	if err := <-ended; !errors.As(err, &other) || other.Theirs != 6 || other.Ours != 5 {
		t.Fatalf("it ended with %v", err)
	}
	for _, m := range []*machine{a, b} {
		eventually(t, "it is shown", func() bool { k := m.Knocks(); return len(k) == 1 && k[0].Node == "c" && k[0].Protocol == 5 })
		if m.Alive("c") {
			t.Errorf("%s takes it for alive", m.name)
		}
	}
}

// Proves CL-7: those of another protocol that elect a leader just then are waited for before a start, which would bind the directory to this
// build; those that stay without one are not.
func TestSurveyWaitsForAnElection(t *testing.T) {
	var asked, elected atomic.Int32
	elected.Store(3)
	them, _ := doorOf(t, 4, func(p *port) {
		p.control = func(context.Context, bool, request) response {
			r := response{Code: codeOK, Info: &info{Node: "p", Name: "demo", Cluster: "cluster", Protocol: 4}}
			if n := elected.Load(); n != 0 && asked.Add(1) >= n {
				r.Leader = "somewhere"
			}
			return r
		}
	})
	o := Options{Node: "x", Directory: "dir-x", Name: "demo", Protocol: 3, Identity: boundTo("cluster"), Join: []string{string(them.address)}, Host: host.Real(), Logger: testLogger(t, "x")}
	var other *ident.OtherProtocolError
	if err := Survey(context.Background(), o); !errors.As(err, &other) || other.Theirs != 4 {
		t.Errorf("got %v", err)
	}
	elected.Store(0)
	if err := Survey(context.Background(), o); err != nil {
		t.Errorf("one that knows no leader for long: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Survey(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Whatever else answers at an address in join, or does not, is no reason not to start.
func TestSurveyIgnoresStrangers(t *testing.T) {
	var join []string
	for _, says := range []string{"", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x04\x00\x00\x00null", "\x02\x00\x00\x00{}", "\xff\xff\x0f\x00{", "-"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		join = append(join, ln.Addr().String())
		if says == "-" { // hangs: nobody accepts
			continue
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(says))
				_ = conn.Close()
			}
		}()
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	join = append(join, gone.Addr().String())
	_ = gone.Close()
	same, _ := doorOf(t, 3)
	o := Options{Node: "x", Directory: "dir-x", Name: "demo", Protocol: 3, Identity: boundTo("cluster"), Join: join, Host: host.Real(), Logger: testLogger(t, "x")}
	if err := Survey(context.Background(), o); err != nil {
		t.Error(err)
	}
	them, _ := doorOf(t, 4)
	for _, cluster := range []ident.ClusterID{"another", ""} { // a member of another cluster; one that this directory does not know yet, but of another name
		o.Identity, o.Join = boundTo(cluster), append(slices.Clone(join), string(them.address))
		if cluster == "" {
			o.Name = "another"
		}
		if err := Survey(context.Background(), o); err != nil {
			t.Errorf("a stranger kept the node from starting: %v", err)
		}
	}
	o.Name, o.Identity, o.Join = "demo", boundTo("cluster"), append(slices.Clone(join), string(them.address), string(same.address))
	if err := Survey(context.Background(), o); err != nil {
		t.Errorf("a leader of this protocol is there: %v", err)
	}
}

// Gossip of one protocol is not heard by another; builds before the number have the cluster's id alone.
func TestGossipLabel(t *testing.T) {
	for p, want := range map[ident.Protocol]string{0: "id", 3: "id/3", 4: "id/4"} {
		if got := GossipLabel("id", p); got != want {
			t.Errorf("protocol %s: label %q, want %q", p, got, want)
		}
	}
}

// boundTo is a directory that belongs to a cluster; "": to none.
func boundTo(cluster ident.ClusterID) *memoryIdentity { return &memoryIdentity{id: cluster} }
