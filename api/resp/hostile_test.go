package resp

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Proves BX-5: what is not the protocol is answered with Redis's error, and the connection is closed.
func TestProtocolErrors(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Arguments = 100 })
	for sent, want := range map[string]string{
		"*1\r\n$9223372036854775807\r\n":     "invalid bulk length",
		"*1\r\n$-1\r\n":                      "invalid bulk length",
		"*1\r\n$16777217\r\n":                "invalid bulk length: 16777217 bytes, at most 16777216 are possible",
		"*1\r\n$99999999999999999999999\r\n": "invalid bulk length",
		"*1\r\n$+4\r\nPING\r\n":              "invalid bulk length",
		"*101\r\n":                           "invalid multibulk length",
		"*9223372036854775807\r\n":           "invalid multibulk length",
		"*x\r\n":                             "invalid multibulk length",
		"*1\n$4\r\nPING\r\n":                 "invalid multibulk length",
		"*1\r\n:4\r\nPING\r\n":               "expected '$', got ':'",
		"*1\r\n\x00":                         "expected '$', got '?'",
		"*1\r\n$4\r\nPINGxx":                 "expected CRLF behind a bulk",
		"SET k \"v\r\n":                      "unbalanced quotes in request",
		"SET k \"v\"x\r\n":                   "unbalanced quotes in request",
		strings.Repeat("a", 65<<10) + "\r\n": "too big inline request",
		"*" + strings.Repeat("1", 100):       "too big mbulk count string",
		"*1\r\n$" + strings.Repeat("1", 100): "too big bulk count string",
		strings.Repeat("a ", 200) + "\r\n":   "invalid multibulk length",
	} {
		c := w.nodes[0].dial(t)
		c.send(frame("PING") + sent)
		if got := c.read(); got != "PONG" {
			t.Errorf("%.40q: the command before: %s", sent, got)
		}
		if got := c.read(); got != "-ERR Protocol error: "+want {
			t.Errorf("%.40q: %s", sent, got)
		}
		c.closed()
	}
	c := w.nodes[0].dial(t)
	c.send("\r\n*0\r\n*-1\r\nPING\r\nset k \"a\\x41\\n\\\"\" \r\nGET k\n SET  k 'it\\'s'\r\nGET k\r\n")
	for _, want := range []string{"PONG", "OK", "aA\n\"", "OK", "it's"} {
		if got := c.read(); got != want {
			t.Errorf("inline: %q, want %q", got, want)
		}
	}
	// What a browser sends ends the connection without an answer, as in Redis; what came before it is answered.
	for _, request := range []string{"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "Host: x\r\n", frame("post", "/")} {
		c := w.nodes[0].dial(t)
		c.send(frame("PING") + request + "SET k bad\r\n")
		if got := c.read(); got != "PONG" {
			t.Errorf("before a request of HTTP: %s", got)
		}
		if strings.HasPrefix(request, "GET") { // a command of Redis with too many arguments
			c.read()
		}
		c.closed()
	}
	if got := w.nodes[0].dial(t).do("GET", "k"); got != "it's" {
		t.Errorf("a browser has written: %s", got)
	}
}

// Proves BX-5: who is not authenticated has smaller limits, little time, and hears nothing.
func TestAuthentication(t *testing.T) {
	w := newWorld(t, 2, func(o *Options) {
		o.PeerSecret = "between nodes"
		o.Authenticate = func(user, secret string) (Rights, bool) {
			switch user + "/" + secret {
			case "default/secret", "default/between nodes":
				return allRights, true
			case "viewer/v":
				return MayRead, true
			}
			return 0, false
		}
	})
	c := w.nodes[1].dial(t)
	for command, want := range map[string]string{
		"GET k": string(errNoAuth), "NOPE": string(errNoAuth), "PING": string(errNoAuth), "SUBSCRIBE x": string(errNoAuth), "MULTI": string(errNoAuth), "SENTINEL MASTERS": string(errNoAuth),
		"AUTH wrong": string(errWrongPass), "AUTH a b": string(errWrongPass), "HELLO 3 AUTH default wrong": string(errWrongPass),
	} {
		if got := c.do(strings.Split(command, " ")...); got != "-"+want {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := c.do("HELLO", "3"); !strings.HasPrefix(got, "-NOAUTH HELLO must be called") {
		t.Errorf("HELLO: %s", got)
	}
	if got := c.do("HELLO", "3", "AUTH", "default", "secret"); !strings.HasPrefix(got, "{server") {
		t.Errorf("HELLO: %s", got)
	}
	if got := c.do("SET", "k", strings.Repeat("x", 100<<10)); got != "OK" { // relayed, with the secret of nodes
		t.Errorf("SET: %.100s", got)
	}
	if got := c.do("RESET") + c.do("GET", "k"); got != "RESET-"+string(errNoAuth) {
		t.Errorf("after RESET: %s", got)
	}
	for sent, want := range map[string]string{"*11\r\n": "unauthenticated multibulk length", "*1\r\n$16385\r\n": "unauthenticated bulk length", strings.Repeat("x", 17<<10): "too big inline request"} {
		c := w.nodes[0].dial(t)
		c.send(sent)
		if got := c.read(); got != "-ERR Protocol error: "+want {
			t.Errorf("%.20q: %s", sent, got)
		}
		c.closed()
	}
	v := w.nodes[0].dial(t)
	v.do("AUTH", "viewer", "v")
	for command, want := range map[string]string{"GET none": "nil", "SET k v": "-NOPERM User viewer has no permissions to run the 'set' command", "SENTINEL FAILOVER default": "-NOPERM this user has no permissions to run the 'sentinel|failover' command"} {
		if got := v.do(strings.Split(command, " ")...); got != want {
			t.Errorf("%s: %s", command, got)
		}
	}
}

// Proves BX-5: clients that send slowly, do nothing, do not log in, or do not read are let go.
func TestTimeLimits(t *testing.T) {
	// Each limit stands alone: a client that has to hear something must not run into another one when the machine stalls.
	slow := newWorld(t, 1, func(o *Options) { o.Limits.Read = 50 * time.Millisecond }).nodes[0].dial(t)
	slow.send("*2\r\n$3\r\nGET\r\n$1\r\n")
	slow.closed()
	quiet := newWorld(t, 1, func(o *Options) { o.Limits.Idle = 2 * time.Second })
	listener := quiet.nodes[0].dial(t)
	listener.do("SUBSCRIBE", "x")
	quiet.nodes[0].dial(t).closed()
	if got := listener.do("PING"); got != "[pong ]" { // subscribers may be quiet
		t.Errorf("the subscriber: %s", got)
	}
	w := newWorld(t, 1, func(o *Options) { o.Limits.Write = time.Second })
	deaf := w.nodes[0].dial(t)
	deaf.do("SET", "k", strings.Repeat("x", 1<<20))
	go func() { _, _ = deaf.conn.Write(bytes.Repeat([]byte(frame("GET", "k")), 1000)) }()
	soon(t, "the client that does not read is cut", func() bool { return len(w.nodes[0].server.sessions.list()) == 0 })
	locked := newWorld(t, 1, func(o *Options) {
		o.Limits.Login = 50 * time.Millisecond
		o.Authenticate = func(string, string) (Rights, bool) { return 0, false }
	})
	stranger := locked.nodes[0].dial(t)
	stranger.closed()
}

// Proves BX-5: a client that sends a byte now and then is dropped a certain time after a command has begun, however often it sends; and one
// that takes no replies holds no more of them than a connection may.
func TestSlowClients(t *testing.T) {
	// Each limit stands alone: a client that has to hear something must not run into another one when the machine stalls.
	w := newWorld(t, 1, func(o *Options) { o.Limits.Read = 500 * time.Millisecond })
	slow := w.nodes[0].server
	for _, begin := range []string{"*2\r\n$3\r\nGET\r\n$1000000\r\n", "*1000\r\n", "", "SET "} { // a bulk, many arguments, an inline command
		c := w.nodes[0].dial(t)
		if begin != "" {
			c.send(begin)
		}
		sent := 0
		for ; sent < 20_000; sent++ { // ends when the server has closed the connection
			if _, err := c.conn.Write([]byte("1")); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if sent == 20_000 {
			t.Errorf("%q: the connection lives after %d bytes", begin, sent)
		}
	}
	soon(t, "all are gone, and what they had is given back", func() bool { return len(slow.sessions.list()) == 0 && slow.memory.used.Load() == 0 })
	w = newWorld(t, 1, func(o *Options) { o.Limits.Write, o.Limits.Reply = 500*time.Millisecond, 4<<20 })
	s := w.nodes[0].server
	deaf := w.nodes[0].dial(t)
	deaf.do("SET", "k", strings.Repeat("x", 1<<20))
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for { // until it is cut
			if _, err := deaf.conn.Write([]byte(frame("GET", "k"))); err != nil {
				return
			}
		}
	}()
	var most int64
	for over := false; !over; {
		select {
		case <-cut:
			over = true
		default:
			most = max(most, s.memory.used.Load())
			time.Sleep(time.Millisecond)
		}
	}
	if most > 4*4<<20 {
		t.Errorf("replies to a client that takes none have had %d bytes", most)
	}
	soon(t, "it is gone, and what it had is given back", func() bool { return len(s.sessions.list()) == 0 && s.memory.used.Load() == 0 })
}

// Proves BX-5: one connection too many hears why.
func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Connections = 2 })
	first, second := w.nodes[0].dial(t), w.nodes[0].dial(t)
	first.do("PING")
	second.do("PING")
	third := w.nodes[0].dial(t)
	if got := third.read(); got != "-ERR max number of clients reached" {
		t.Errorf("the third: %s", got)
	}
	third.closed()
	first.do("QUIT")
	first.closed()
	soon(t, "there is room again", func() bool { return len(w.nodes[0].server.sessions.list()) == 1 })
	if got := w.nodes[0].dial(t).do("PING"); got != "PONG" {
		t.Errorf("after one has left: %s", got)
	}
}

// Proves BX-5: large commands and replies are bounded for one connection and for all, and what was taken is given back.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t, 1, func(o *Options) { o.Limits.Memory, o.Limits.Reply, o.Limits.Command = 8<<20, 2<<20, 3<<20 })
	s := w.nodes[0].server
	c := w.nodes[0].dial(t)
	big := strings.Repeat("x", 1<<20)
	c.do("MSET", "a", big, "b", big)
	c.do("SET", "c", big)
	if got := c.do("MGET", "a", "b", "c"); got != "-"+string(errReplyTooLarge) {
		t.Errorf("MGET: %.60s", got)
	}
	var b strings.Builder // reads that do not fit at once are answered one after the other, and writes keep their place
	for i := range 20 {
		b.WriteString(frame("GET", "a") + frame("INCR", "n") + frame("GET", "n"))
		_ = i
	}
	go func() { _, _ = c.conn.Write([]byte(b.String())) }()
	for i := range 20 {
		if got := c.read(); got != big {
			t.Fatalf("round %d: GET: %.60s", i, got)
		}
		if got := c.read() + " " + c.read(); got != ":"+itoa(i+1)+" "+itoa(i+1) {
			t.Fatalf("round %d: %.60s", i, got)
		}
	}
	c.do("MULTI")
	for range 2 {
		c.do("SET", "x", big)
	}
	c.do("SET", "y", big)
	if got := c.do("EXEC"); got != "-"+string(errExecAbort) {
		t.Errorf("a transaction that is too large: %.60s", got)
	}
	huge := w.nodes[0].dial(t)
	huge.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3145729\r\n")
	if got := huge.read(); !strings.HasPrefix(got, "-ERR Protocol error: command larger than") {
		t.Errorf("a command that is too large: %s", got)
	}
	var holders []*wireClient // that send most of a command
	for range 20 {
		h := w.nodes[0].dial(t)
		holders = append(holders, h)
		go func() { _, _ = h.conn.Write([]byte("*2\r\n$3\r\nGET\r\n$2000000\r\n" + strings.Repeat("x", 1900000))) }()
	}
	refused := make(chan string, len(holders))
	for _, h := range holders {
		go func() {
			if r, err := readReply(h.in, 1<<20); err == nil {
				refused <- shown(r)
			}
		}()
	}
	if got := <-refused; got != "-"+string(errCommandMemory) {
		t.Errorf("without memory left: %s", got)
	}
	if used := s.memory.used.Load(); used > 8<<20 {
		t.Errorf("%d bytes are taken", used)
	}
	for _, h := range holders {
		_ = h.conn.Close()
	}
	soon(t, "all memory is given back", func() bool { return len(s.sessions.list()) == 1 && s.memory.used.Load() <= lastBuffer })
}

// hostile makes a frame: with deadly one that ends the connection, most likely; else one that does not.
func hostile(r *rand.Rand, b []byte, deadly bool) []byte {
	words := []string{"GET", "SET", "MULTI", "EXEC", "HSET", "k", "h", "1", "-1", "WATCH", "EX", "SCAN", "0", "SUBSCRIBE", "RESET", "HELLO", "3", "2", "MSET", "INCR", "SENTINEL",
		"MASTERS", "default", "UNDERSTUDY", "RELAY", "POSITION", "WATCHED", "1.1", "CLIENT", "LIST", "COMMAND", "CONFIG", "KEYS", "*", "[", "INFO", "WAIT", "DISCARD", "\xff\x00", "",
		"EXPIRE", "HINCRBYFLOAT", "1e308", "INCRBYFLOAT", "oo:1", "APPEND", "HSCAN", "COUNT", "MATCH", "DOCS", "GETEX", "UNSUBSCRIBE", "QUITE"}
	kind := 3 + r.IntN(9)
	if deadly {
		kind = r.IntN(3)
	}
	switch kind {
	case 0: // garbage
		for range r.IntN(40) {
			b = append(b, byte(r.Uint32()))
		}
		return append(b, '\r', '\n')
	case 1: // lengths that lie
		return fmt.Appendf(b, "*%d\r\n$%d\r\nx\r\n", r.Int64()>>r.IntN(64), r.Int64()>>r.IntN(64))
	case 2: // cut
		f := frame(words[r.IntN(len(words))], words[r.IntN(len(words))])
		return append(b, f[:r.IntN(len(f))]...)
	case 3: // inline
		b = append(b, words[r.IntN(4)]...)
		for range r.IntN(5) {
			b = append(append(b, " \t\\x"[r.IntN(4)]), words[r.IntN(len(words)-12)]...)
		}
		return append(b, '\r', '\n')
	}
	n := 1 + r.IntN(6)
	b = fmt.Appendf(b, "*%d\r\n", n)
	for range n {
		w := words[r.IntN(len(words))]
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

// pipeOf feeds a server without a network.
func pipeOf(s *Server, data []byte) {
	near, far := net.Pipe()
	done := make(chan struct{})
	session := newSession(s.baseForTest(), s, far)
	go func() {
		defer close(done)
		s.sessions.add(session)
		session.serve()
		s.sessions.remove(session)
	}()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, near)
	}()
	_, _ = near.Write(data)
	_ = near.SetReadDeadline(time.Now().Add(200 * time.Microsecond)) // what it answers to the last ones need not be seen
	<-drained
	_ = near.Close()
	<-done
}

// resetResident has residentMost begin anew, where the system can.
func resetResident() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// residentMost is the most memory that the process has had since resetResident, in bytes; 0 where the system does not say.
func residentMost() (n int64) {
	status, _ := os.ReadFile("/proc/self/status")
	if _, rest, found := strings.Cut(string(status), "VmHWM:"); found {
		_, _ = fmt.Sscan(rest, &n)
	}
	return n << 10
}

// Proves BX-5: a million frames, right and hostile, end neither the server nor its memory.
func TestMillionHostileFrames(t *testing.T) {
	frames := 1_000_000
	if raceEnabled || testing.Short() {
		frames = 50_000
	}
	resetResident()
	w := newWorld(t, 1, func(o *Options) { o.Limits.Wait = 10 * time.Millisecond })
	s := w.nodes[0].server
	r := rand.New(rand.NewPCG(1, 2))
	var peak uint64
	var b []byte
	rounds := 0
	for sent := 0; sent < frames; {
		b = b[:0]
		for range 1 + r.IntN(400) {
			b = hostile(r, b, false)
			sent++
		}
		for range r.IntN(4) {
			b = hostile(r, b, true)
		}
		pipeOf(s, b)
		if rounds++; rounds%16 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	if n := s.memory.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
	if peak > 256<<20 {
		t.Errorf("the heap grew to %d bytes", peak)
	}
	var m dto.Metric
	// The connection ends while the last commands of a round may still be unread, which on a busy machine are many.
	if err := s.counters.commands.Write(&m); err != nil || m.GetCounter().GetValue() < 0.5*float64(frames) {
		t.Errorf("only %v commands were read: %v", m.GetCounter().GetValue(), err)
	}
	if got := w.nodes[0].dial(t).do("PING"); got != "PONG" {
		t.Errorf("afterwards: %s", got)
	}
	resident := residentMost()
	if resident > 512<<20 && !raceEnabled { // the race detector takes several times as much
		t.Errorf("the process grew to %d bytes", resident)
	}
	t.Logf("%d frames, heap at most %d MiB, resident at most %d MiB", frames, peak>>20, resident>>20)
}
