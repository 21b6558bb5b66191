package resp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// soon waits for a condition.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to pass: %s", what)
		}
	}
}

// Proves BX-5: clients of every node go on through switch-overs on their own connections, without a failed request; each increment counts once.
func TestSwitchoverWithoutFailedRequests(t *testing.T) {
	w := newWorld(t, 3)
	const clients, rounds = 6, 60
	var all sync.WaitGroup
	for i := range clients {
		c := w.nodes[i%3].dial(t)
		all.Go(func() {
			for n := 1; n <= rounds; n++ {
				c.send(frame("INCR", fmt.Sprint("n", i)) + frame("MULTI") + frame("INCR", fmt.Sprint("m", i)) + frame("EXEC") + frame("GET", fmt.Sprint("n", i)))
				for j, want := range []string{":" + itoa(n), "OK", "QUEUED", "[:" + itoa(n) + "]", itoa(n)} {
					if got := c.read(); got != want {
						t.Errorf("client %d, round %d, reply %d: %s, want %s", i, n, j, got, want)
						return
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-time.After(3 * time.Millisecond):
			w.move("default", w.nodes[i%3].id, true) // held: nobody answers
		}
		time.Sleep(time.Millisecond)
		w.move("default", []string{"", w.nodes[(i+1)%3].id}[i%2], false) // nobody, or the next
		w.move("default", w.nodes[(i+1)%3].id, false)
	}
}

// Proves BX-5: when no node becomes primary in time, the client hears that nothing was done, and the connection lives on.
func TestNoPrimary(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.Limits.Wait = 50 * time.Millisecond })
	w.move("default", "", false)
	c := w.nodes[0].dial(t)
	for _, command := range []string{"SET k v", "GET k", "WATCH k", "KEYS *"} {
		if command == "KEYS *" {
			w.groups["default"].files["default"] = map[string]Record{"x": {}}
		}
		if got := c.do(strings.Split(command, " ")...); !strings.HasPrefix(got, "-TRYAGAIN") {
			t.Errorf("%s: %s", command, got)
		}
	}
	w.move("default", "b", false)
	if got := c.do("SET", "k", "v"); got != "OK" {
		t.Errorf("SET: %s", got)
	}
}

// Proves BX-5: nodes that point to each other make no loop.
func TestRelaysDoNotLoop(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.Limits.Wait = 100 * time.Millisecond })
	w.nodes[0].server.o.Store = pointing{w.nodes[0], w.nodes[1]}
	w.nodes[1].server.o.Store = pointing{w.nodes[1], w.nodes[0]}
	c := w.nodes[0].dial(t)
	got := ""
	soon(t, "an answer that knows the outcome", func() bool { // a busy machine may be late with that of the other node
		got = c.do("SET", "k", "v")
		return !strings.HasPrefix(got, "-UNKNOWNOUTCOME")
	})
	if !strings.HasPrefix(got, "-TRYAGAIN") {
		t.Errorf("SET: %s", got)
	}
	for i, n := range w.nodes {
		var m dto.Metric
		if err := n.server.counters.relayed.Write(&m); err != nil || m.GetCounter().GetValue() > 0 != (i == 0) {
			t.Errorf("node %s relayed %v commands, %v", n.id, m.GetCounter().GetValue(), err)
		}
	}
}

// pointing always names another node.
type pointing struct {
	*fakeNode
	to *fakeNode
}

func (p pointing) Update(_ context.Context, _ string, batch []Program) []Outcome {
	out := make([]Outcome, len(batch))
	for i := range out {
		out[i].Err = &Elsewhere{Redis: p.to.address}
	}
	return out
}

// Proves BX-5: a write whose outcome is lost is answered with neither success nor failure, whether it was done here or relayed.
func TestUnknownOutcome(t *testing.T) {
	w := newWorld(t, 2)
	for _, n := range w.nodes {
		c := n.dial(t)
		w.lost = errors.New("the lease ended")
		c.send(frame("INCR", "k") + frame("PING"))
		if got := c.read(); !strings.HasPrefix(got, "-UNKNOWNOUTCOME ") {
			t.Errorf("node %s: %s", n.id, got)
		}
		if got := c.read(); got != "PONG" {
			t.Errorf("node %s: %s", n.id, got)
		}
	}
	w.refused = &Refusal{Code: "NOREPLICAS", Text: "no in-sync secondary"}
	if got := w.nodes[1].dial(t).do("INCR", "k"); got != "-NOREPLICAS no in-sync secondary" {
		t.Errorf("refused: %s", got)
	}
	if got := w.nodes[1].dial(t).do("GET", "k"); got != "2" {
		t.Errorf("GET k: %s", got)
	}
}

// Proves BX-5: a primary that dies with a relayed write leaves its outcome unknown, and reads are asked again of the next one.
func TestPrimaryDiesWithARelayedWrite(t *testing.T) {
	w := newWorld(t, 2)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a primary that takes commands and dies
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	dies := &fakeNode{w: w, id: "x", address: ln.Addr().String()}
	w.mu.Lock()
	w.nodes = append(w.nodes, dies)
	w.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			_, _ = readReply(in, 1<<20) // HELLO
			_, _ = readReply(in, 1<<20) // UNDERSTUDY RELAY
			_, _ = conn.Write([]byte("+OK\r\n+OK\r\n"))
			_, _ = readReply(in, 1<<20) // UNDERSTUDY RELAY of the batch
			_, _ = readReply(in, 1<<20) // the command
			_ = conn.Close()
		}
	}()
	c := w.nodes[1].dial(t)
	w.move("default", "x", false)
	if got := c.do("INCR", "k"); !strings.HasPrefix(got, "-UNKNOWNOUTCOME ") {
		t.Errorf("INCR: %s", got)
	}
	c.send(frame("GET", "k"))
	w.move("default", "a", false)
	if got := c.read(); got != "nil" {
		t.Errorf("GET: %s", got)
	}
	_ = ln.Close()
	<-ended
}

// A node that stops says so to another one whose commands it did not take: those are done elsewhere, once. Proves BX-1.
func TestFarewell(t *testing.T) {
	w := newWorld(t, 2)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a primary that answers what it takes, and leaves
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	leaves := &fakeNode{w: w, id: "x", address: ln.Addr().String()}
	w.mu.Lock()
	w.nodes = append(w.nodes, leaves)
	w.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		in := bufio.NewReader(conn)
		_, _ = readReply(in, 1<<20) // HELLO
		_, _ = readReply(in, 1<<20) // UNDERSTUDY RELAY
		_, _ = conn.Write([]byte("+OK\r\n+OK\r\n"))
		_, _ = readReply(in, 1<<20)                                    // UNDERSTUDY RELAY of the batch
		_, _ = conn.Write(farewell.render([]byte("+OK\r\n:7\r\n"), 2)) // the first command is answered
		_ = conn.Close()
		w.move("default", "a", false)
	}()
	c := w.nodes[1].dial(t)
	w.move("default", "x", false)
	c.send(frame("INCR", "k") + frame("INCR", "k"))
	if got := c.read(); got != ":7" {
		t.Errorf("the one that was done: %s", got)
	}
	if got := c.read(); got != ":1" {
		t.Errorf("the one that was not: %s", got)
	}
	_ = ln.Close()
	<-ended
}

// Proves BX-5: with not_primary readonly a node refuses writes as a Redis replica does, and READONLY makes reads local.
func TestReadOnlyNode(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.NotPrimary = ReadOnly })
	c := w.nodes[1].dial(t)
	if got := c.do("SET", "k", "v"); got != "-"+string(errReadOnly) {
		t.Errorf("SET: %s", got)
	}
	if got := w.nodes[0].dial(t).do("SET", "k", "v"); got != "OK" {
		t.Errorf("SET at the primary: %s", got)
	}
	if got := c.do("GET", "k"); got != "v" {
		t.Errorf("GET, relayed: %s", got)
	}
	c.do("READONLY")
	w.move("default", "", false)
	for command, want := range map[string]string{"GET k": "v", "KEYS *": "[k]", "SET k w": "-" + string(errReadOnly)} {
		if got := c.do(strings.Split(command, " ")...); got != want {
			t.Errorf("%s without a primary: %s", command, got)
		}
	}
}

// Proves BX-5: subscribers hear of a new primary; with on_role_change close, clients of the old one are let go, and nobody else.
func TestRoleChange(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.OnRoleChange = Close })
	listener, pattern, client, far := w.nodes[0].dial(t), w.nodes[1].dial(t), w.nodes[0].dial(t), w.nodes[1].dial(t)
	listener.do("SUBSCRIBE", "+switch-master")
	pattern.do("PSUBSCRIBE", "+switch*")
	client.do("PING")
	far.do("SET", "k", "v") // over a relay to a
	if got := far.do("SENTINEL", "FAILOVER", "default"); got != "OK" {
		t.Fatal(got)
	}
	host, from := hostPort(w.nodes[0].address)
	_, to := hostPort(w.nodes[1].address)
	message := "default " + host + " " + from + " " + host + " " + to
	if got := listener.read(); got != "[message +switch-master "+message+"]" {
		t.Errorf("message: %s", got)
	}
	if got := pattern.read(); got != "[pmessage +switch* +switch-master "+message+"]" {
		t.Errorf("message by pattern: %s", got)
	}
	client.closed()
	if got := far.do("GET", "k"); got != "v" {
		t.Errorf("a client of the new primary: %s", got)
	}
	if got := listener.do("PING"); got != "[pong ]" {
		t.Errorf("the subscriber: %s", got)
	}
}

// Proves BX-5: Sentinel's answers have the fields that client libraries look for.
func TestSentinel(t *testing.T) {
	w := newWorld(t, 3)
	host, port := hostPort(w.nodes[0].address)
	c := w.nodes[2].dial(t)
	if got := c.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "default"); got != "["+host+" "+port+"]" {
		t.Errorf("address: %s", got)
	}
	for sub, fields := range map[string][]string{
		"master":    {"name default", "ip " + host, "port " + port, "flags master", "num-slaves 2", "quorum 2", "num-other-sentinels 2", "config-epoch 1"},
		"replicas":  {"name " + w.nodes[1].address, "flags slave", "master-link-status ok", "slave-priority 100", "master-port " + port},
		"slaves":    {"name " + w.nodes[2].address},
		"sentinels": {"flags sentinel", "port " + port, "runid " + runID(Node{ID: "a"})},
	} {
		got := c.do("SENTINEL", sub, "default")
		for _, f := range fields {
			if !strings.Contains(got, f) {
				t.Errorf("SENTINEL %s lacks %q: %s", sub, f, got)
			}
		}
	}
	if got := c.do("SENTINEL", "MASTERS"); !strings.Contains(got, "name default") || !strings.Contains(got, "name other") {
		t.Errorf("MASTERS: %s", got)
	}
	if got := c.do("SENTINEL", "MYID"); got != runID(Node{ID: "c"}) {
		t.Errorf("MYID: %s", got)
	}
	w.move("default", "", false)
	if got := c.do("SENTINEL", "MASTER", "default"); !strings.Contains(got, "flags s_down,master,disconnected") {
		t.Errorf("a group without primary: %s", got)
	}
	for command, want := range map[string]string{"ROLE": "[slave", "INFO replication": "role:slave", "INFO server": "redis_version:7.2.0", "INFO": "# Keyspace"} {
		if got := c.do(strings.Split(command, " ")...); !strings.Contains(got, want) {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := w.nodes[1].dial(t).do("ROLE"); !strings.HasPrefix(got, "[master :0 [") { // of group other
		t.Errorf("ROLE of a primary: %s", got)
	}
}

// Proves BX-5: a stop answers what was read, and lets nothing hang.
func TestStop(t *testing.T) {
	w := newWorld(t, 2)
	idle, waiting, listener := w.nodes[1].dial(t), w.nodes[1].dial(t), w.nodes[1].dial(t)
	idle.do("PING")
	listener.do("SUBSCRIBE", "x")
	w.move("default", "", false)
	waiting.send(frame("PING") + frame("SET", "k", "v"))
	soon(t, "the write waits", func() bool { return w.nodes[1].server.waiting.used.Load() == 1 })
	w.nodes[1].stop()
	idle.closed()
	listener.closed()
	if got := waiting.read(); got != "PONG" {
		t.Errorf("before the write: %s", got)
	}
	if got := waiting.read(); got != "-"+string(errStopping) {
		t.Errorf("the write: %s", got)
	}
	waiting.closed()
	if n := w.nodes[1].server.memory.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// Proves BX-5: bounds on what waits for a primary.
func TestWaitingIsBounded(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Waiting = 1 })
	w.move("default", "", false)
	first, second := w.nodes[0].dial(t), w.nodes[0].dial(t)
	first.send(frame("SET", "k", "v"))
	soon(t, "the write waits", func() bool { return w.nodes[0].server.waiting.used.Load() == 1 })
	if got := second.do("SET", "k", "w"); got != "-"+string(errWaiting) {
		t.Errorf("one too many: %s", got)
	}
	w.move("default", "a", false)
	if got := first.read(); got != "OK" {
		t.Errorf("the first: %s", got)
	}
}

// Proves BX-5: a program that panics ends neither the node nor the connection, and what it was part of was not done.
func TestPanicIsContained(t *testing.T) {
	w := newWorld(t, 1)
	bad := *w.nodes[0].server.commands["strlen"]
	bad.plan = func(*call) (step, reply) { return func(*tx) reply { panic("a defect") }, nil }
	w.nodes[0].server.commands["strlen"] = &bad
	c := w.nodes[0].dial(t)
	c.send(frame("STRLEN", "k") + frame("MULTI") + frame("SET", "k", "v") + frame("STRLEN", "k") + frame("EXEC") + frame("GET", "k"))
	for i, want := range []string{"-" + string(errPanic), "OK", "QUEUED", "QUEUED", "-" + string(errPanic), "nil"} {
		if got := c.read(); got != want {
			t.Errorf("reply %d: %s, want %s", i, got, want)
		}
	}
}

// Proves BX-5: what is relayed wants the primary's answer, however the node is configured, and is not relayed again.
func TestRelayedReadsAreFresh(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.LocalReads = true })
	c := w.nodes[1].dial(t)
	if got := c.do("GET", "k"); got != "nil" {
		t.Errorf("a local read: %s", got)
	}
	c.do("UNDERSTUDY", "RELAY", "100")
	for _, command := range []string{"GET k", "SET k v", "SCAN 0"} {
		w.fill("default", "k")
		if got := c.do(strings.Split(command, " ")...); got != "-ELSEWHERE "+w.nodes[0].address {
			t.Errorf("%s: %s", command, got)
		}
	}
}

// Proves BX-5: of a group that was deleted subscribers hear that its master is not watched any more, Sentinel does not know it, and with
// on_role_change close clients of its primary are let go.
func TestDeletedMaster(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) { o.OnRoleChange = Close })
	listener, client := w.nodes[1].dial(t), w.nodes[0].dial(t)
	listener.do("SUBSCRIBE", "-monitor")
	client.do("PING")
	host, port := hostPort(w.nodes[0].address)
	w.delete("default")
	if got := listener.read(); got != "[message -monitor master default "+host+" "+port+"]" {
		t.Errorf("message: %s", got)
	}
	client.closed()
	if got := w.nodes[1].dial(t).do("SENTINEL", "MASTER", "default"); got != "-"+string(errNoSuchMaster) {
		t.Errorf("the master: %s", got)
	}
}
