package resp

import (
	"strings"
	"testing"
	"time"
)

// Proves BX-5: each line is a command and what Redis answers to it.
const commandScript = `
PING => PONG
PING hello => hello
ECHO x => x
GET k => nil
SET k v => OK
GET k => v
TYPE k => string
SET k v2 NX => nil
SET k v2 XX GET => v
SET none v XX => nil
SET none v XX GET => nil
GET k => v2
SET k v3 EX 100 => OK
TTL k => :100
SET k v4 KEEPTTL => OK
TTL k => :100
SET k v5 => OK
TTL k => :-1
TTL none => :-2
SET k v PX 0 => -ERR invalid expire time in 'set' command
SET k v EX x => -ERR value is not an integer or out of range
SET k v EX 9223372036854775807 => -ERR invalid expire time in 'set' command
SET k v EX 10 PX 10 => -ERR syntax error
SET k v NX XX => -ERR syntax error
SET k v EX 10 KEEPTTL => -ERR syntax error
SET k v EX => -ERR syntax error
SET k => -ERR wrong number of arguments for 'set' command
SET k v EXAT 1 => OK
GET k => nil
SETNX k 1 => :1
SETNX k 2 => :0
SETEX e 10 v => OK
PSETEX e 10000 v => OK
TTL e => :10
SETEX e 0 v => -ERR invalid expire time in 'setex' command
GETSET k 5 => 1
GETDEL k => 5
GETDEL k => nil
GETEX e PERSIST => v
TTL e => :-1
GETEX e EX 7 => v
TTL e => :7
GETEX e => v
TTL e => :7
MSET a 1 b 2 => OK
MSET a 1 b => -ERR wrong number of arguments for 'mset' command
MGET a b none => [1 2 nil]
MSETNX a 3 n 4 => :0
GET n => nil
MSETNX m 3 n 4 => :1
EXISTS a b a none => :3
DEL a b none => :2
UNLINK m n => :2
INCR n => :1
INCRBY n 41 => :42
DECR n => :41
DECRBY n 41 => :0
DECRBY n -9223372036854775808 => -ERR decrement would overflow
SET n 9223372036854775807 => OK
INCR n => -ERR increment or decrement would overflow
SET n 010 => OK
INCR n => -ERR value is not an integer or out of range
INCRBY n 1.5 => -ERR value is not an integer or out of range
SET n 10.50 => OK
INCRBYFLOAT n 0.1 => 10.6
INCRBYFLOAT n -5 => 5.6
INCRBYFLOAT n 1e5000 => -ERR value is not a valid float
INCRBYFLOAT n inf => -ERR increment would produce NaN or Infinity
SET n 5.0e3 => OK
INCRBYFLOAT n 2.0e2 => 5200
APPEND ap ab => :2
APPEND ap cd => :4
GET ap => abcd
STRLEN ap => :4
STRLEN none => :0
EXPIRE ap 100 => :1
EXPIRE none 100 => :0
EXPIRE ap 50 GT => :0
EXPIRE ap 50 LT => :1
EXPIRE ap 60 NX => :0
EXPIRE ap 60 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
EXPIRE ap 60 FOO => -ERR Unsupported option FOO
EXPIRE ap 9223372036854775807 => -ERR invalid expire time in 'expire' command
TTL ap => :50
PERSIST ap => :1
PERSIST ap => :0
PEXPIRE ap 5000 => :1
TTL ap => :5
EXPIREAT ap 4000000000 => :1
EXPIRETIME ap => :4000000000
PEXPIREAT ap 4000000000500 => :1
PEXPIRETIME ap => :4000000000500
EXPIRE ap -1 => :1
EXISTS ap => :0
HSET h f 1 g 2 f 3 => :2
HGET h f => 3
HGET h none => nil
HGET none f => nil
HSET h f => -ERR wrong number of arguments for 'hset' command
HMSET h i 4 => OK
HMGET h f i none => [3 4 nil]
HGETALL h => [f 3 g 2 i 4]
HGETALL none => []
HKEYS h => [f g i]
HVALS h => [3 2 4]
HLEN h => :3
HSTRLEN h f => :1
HEXISTS h f => :1
HEXISTS h none => :0
HSETNX h f 9 => :0
HSETNX h j 9 => :1
HINCRBY h j 1 => :10
HINCRBY h new 5 => :5
HINCRBYFLOAT h j 0.5 => 10.5
HINCRBY h j 1 => -ERR hash value is not an integer
HSCAN h 0 MATCH [fg] => [0 [f 3 g 2]]
HDEL h f g none => :2
TYPE h => hash
INCR h => -WRONGTYPE Operation against a key holding the wrong kind of value
GET h => -WRONGTYPE Operation against a key holding the wrong kind of value
APPEND h x => -WRONGTYPE Operation against a key holding the wrong kind of value
SET h x GET => -WRONGTYPE Operation against a key holding the wrong kind of value
MGET h e => [nil v]
EXPIRE h 100 => :1
HSET h z 1 => :1
TTL h => :100
HDEL h i j new z => :4
EXISTS h => :0
SET s x => OK
HGET s f => -WRONGTYPE Operation against a key holding the wrong kind of value
HSET s f v => -WRONGTYPE Operation against a key holding the wrong kind of value
SET default:s y => OK
GET s => y
SET orders:1 x => OK
GET orders:1 => x
MGET s orders:1 => -CROSSSLOT Keys in request don't belong to the same group: "s" is of group default, "orders:1" of group other; a command and a transaction touch one group
SET _no:1 x => -ERR no group has the file _no
SET :x y => -ERR the key has no file name: keys are ¦file:key¦, or ¦key¦ in the file default
SET x: y => -ERR the key is empty
NOPE a b => -ERR unknown command 'NOPE', with args beginning with: 'a' 'b' 
SELECT 0 => OK
SELECT 1 => -ERR DB index is out of range
AUTH x => -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
HELLO 4 => -NOPROTO unsupported protocol version
HELLO x => -ERR Protocol version is not an integer or out of range
EXEC => -ERR EXEC without MULTI
DISCARD => -ERR DISCARD without MULTI
MULTI => OK
MULTI => -ERR MULTI calls can not be nested
WATCH x => -ERR WATCH inside MULTI is not allowed
SET t 1 => QUEUED
INCR t => QUEUED
HGET t f => QUEUED
SET t x EX abc => QUEUED
PING => QUEUED
GET t => QUEUED
EXEC => [OK :2 -WRONGTYPE Operation against a key holding the wrong kind of value -ERR value is not an integer or out of range PONG 2]
MULTI => OK
SET t 9 => QUEUED
DISCARD => OK
GET t => 2
MULTI => OK
NOPE => -ERR unknown command 'NOPE', with args beginning with: 
EXEC => -EXECABORT Transaction discarded because of previous errors.
MULTI => OK
SET t => -ERR wrong number of arguments for 'set' command
EXEC => -EXECABORT Transaction discarded because of previous errors.
MULTI => OK
EXEC => []
MULTI => OK
SET t 1 => QUEUED
SET orders:1 1 => QUEUED
EXEC => -CROSSSLOT Keys in request don't belong to the same group: "t" is of group default, "orders:1" of group other; a command and a transaction touch one group
MULTI => OK
KEYS * => -ERR Command not allowed inside a transaction
EXEC => -EXECABORT Transaction discarded because of previous errors.
WATCH t => OK
UNWATCH => OK
WAIT 1 100 => :2
WAIT 9 10 => :2
WAIT x 10 => -ERR value is not an integer or out of range
SCAN x => -ERR invalid cursor
SCAN 0 COUNT 0 => -ERR syntax error
SCAN 0 COUNT => -ERR syntax error
SUBSCRIBE ch => [subscribe ch :1]
GET k => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
PING => [pong ]
UNSUBSCRIBE ch => [unsubscribe ch :0]
UNSUBSCRIBE => [unsubscribe nil :0]
CLIENT SETNAME me => OK
CLIENT GETNAME => me
CLIENT SETNAME a\nb => -ERR Client names cannot contain spaces, newlines or special characters.
CLIENT SETINFO LIB-NAME lib => OK
CLIENT NO-EVICT on => OK
CLIENT NOPE => -ERR unknown subcommand 'NOPE'. Try CLIENT HELP.
COMMAND INFO get nope => [[get :2 [readonly fast] :1 :1 :1 [@read @fast @string] [] [] []] none]
COMMAND LIST FILTERBY PATTERN h*all => [hgetall]
COMMAND LIST nope => -ERR syntax error
SET looked 12 => OK
OBJECT ENCODING looked => int
OBJECT ENCODING none => nil
OBJECT REFCOUNT looked => :1
OBJECT IDLETIME looked => -ERR idle times are not tracked
OBJECT NOPE looked => -ERR unknown subcommand 'NOPE'. Try OBJECT HELP.
MEMORY USAGE looked => :15
MEMORY USAGE looked SAMPLES 5 => :15
MEMORY USAGE looked NOPE => -ERR syntax error
MEMORY USAGE none => nil
MEMORY DOCTOR => -ERR unknown subcommand 'DOCTOR'. Try MEMORY HELP.
SET looked 012 => OK
OBJECT ENCODING looked => embstr
HSET lookedhash f v => :1
OBJECT ENCODING lookedhash => listpack
MEMORY USAGE none SAMPLES x => -ERR value is not an integer or out of range
DEL looked lookedhash => :2
CLUSTER INFO => -ERR This instance has cluster support disabled
MODULE LIST => []
ACL WHOAMI => default
CLIENT LIST TYPE master => 
CLIENT LIST TYPE nope => -ERR Unknown client type 'nope'
CLIENT LIST ID x => -ERR Invalid client ID
CLIENT LIST ID 999999 => 
CLIENT LIST NOPE => -ERR syntax error
CONFIG GET save => [save ]
CONFIG GET append* => [appendfsync always appendonly yes]
CONFIG SET a b => -ERR CONFIG SET is not possible here: settings stand in the node's configuration file
SENTINEL NOPE => -ERR unknown subcommand 'NOPE'. Try SENTINEL HELP.
SENTINEL MASTER none => -ERR No such master with that name
SENTINEL GET-MASTER-ADDR-BY-NAME none => none
SENTINEL CKQUORUM default => OK 3 usable Sentinels. Quorum and failover authorization can be reached
SENTINEL RESET def* => :1
RESET => RESET
CLIENT GETNAME => nil
QUIT => OK
`

// Proves BX-5: commands answer what Redis answers; on the primary, and through a node that relays them.
func TestCommands(t *testing.T) {
	for _, node := range []int{0, 2} {
		w := newWorld(t, 3)
		c := w.nodes[node].dial(t)
		for _, l := range strings.Split(strings.TrimSpace(commandScript), "\n") {
			command, want, _ := strings.Cut(l, " => ")
			words := strings.Split(command, " ")
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], `\n`, "\n")
			}
			if got := c.do(words...); got != strings.ReplaceAll(want, "¦", "`") {
				t.Errorf("node %d: %s\n got %s\nwant %s", node, command, got, want)
			}
		}
		c.closed()
	}
}

// Proves BX-5: what has expired is gone, and expiry is stored as a point in time.
func TestExpiry(t *testing.T) {
	w := newWorld(t, 1)
	c := w.nodes[0].dial(t)
	c.do("SET", "k", "v", "EX", "100")
	r := w.groups["default"].files["default"]["k"]
	if left := time.Until(time.Unix(0, r.Expiry)); left < 90*time.Second || left > 100*time.Second {
		t.Fatalf("stored expiry in %s", left)
	}
	w.advance(101 * time.Second)
	for command, want := range map[string]string{"GET k": "nil", "EXISTS k": ":0", "TTL k": ":-2", "KEYS *": "[]"} {
		if got := c.do(strings.Split(command, " ")...); got != want {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := c.do("SET", "k", "w", "NX"); got != "OK" {
		t.Errorf("SET NX of an expired key: %s", got)
	}
}

// Proves BX-5: RESP3 has maps, sets, nulls and pushes.
func TestRESP3(t *testing.T) {
	w := newWorld(t, 2)
	for i, n := range w.nodes {
		c := n.dial(t)
		if got := c.do("HELLO", "3", "SETNAME", "me"); !strings.HasPrefix(got, "{server redis version 7.2.0 proto :3 id :") {
			t.Fatalf("HELLO 3: %s", got)
		}
		c.do("HSET", "h", "f", "1")
		c.send(frame("HGETALL", "h") + frame("GET", "none") + frame("EXISTS", "h"))
		raw := make([]byte, len("%1\r\n$1\r\nf\r\n$1\r\n1\r\n_\r\n:1\r\n"))
		for n := 0; n < len(raw); {
			m, err := c.in.Read(raw[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if string(raw) != "%1\r\n$1\r\nf\r\n$1\r\n1\r\n_\r\n:1\r\n" {
			t.Errorf("node %d: %q", i, raw)
		}
		if got := c.do("SUBSCRIBE", "x"); got != ">[subscribe x :1]" {
			t.Errorf("subscribe: %s", got)
		}
		if got := c.do("GET", "none"); got != "nil" {
			t.Errorf("a command beside a subscription: %s", got)
		}
	}
}

// Proves BX-5: WATCH makes EXEC fail when another client was faster; also through a node that relays, with the commands in one write.
func TestWatch(t *testing.T) {
	w := newWorld(t, 2)
	for _, n := range w.nodes {
		c, rival := n.dial(t), w.nodes[0].dial(t)
		c.do("SET", "k", "1")
		c.do("DEL", "absent")
		for _, key := range []string{"k", "absent"} {
			c.do("WATCH", key)
			rival.do("SET", key, "2")
			c.send(frame("MULTI") + frame("SET", "k", "3") + frame("EXEC"))
			c.read()
			c.read()
			if got := c.read(); got != "none" {
				t.Errorf("node %s, EXEC after a change of %s: %s", n.id, key, got)
			}
		}
		if got := c.do("GET", "k"); got != "2" {
			t.Errorf("GET k: %s", got)
		}
		for between, want := range map[string]string{"none": "[OK]", "made and deleted": "none", "deleted": "[OK]"} { // of a key that is absent
			c.do("DEL", "gone")
			c.do("WATCH", "gone")
			switch between {
			case "made and deleted":
				rival.do("SET", "gone", "x")
				rival.do("DEL", "gone")
			case "deleted":
				rival.do("DEL", "gone")
			}
			c.send(frame("MULTI") + frame("SET", "other", "3") + frame("EXEC"))
			c.read()
			c.read()
			if got := c.read(); got != want {
				t.Errorf("node %s, EXEC with an absent key, %s: %s, want %s", n.id, between, got, want)
			}
		}
		for _, want := range []string{"[nil]", "none"} { // it changes nothing, and is refused all the same
			c.do("WATCH", "gone")
			if want == "none" {
				rival.do("SET", "gone", "x")
				rival.do("DEL", "gone")
			}
			c.send(frame("MULTI") + frame("GET", "gone") + frame("EXEC"))
			c.read()
			c.read()
			if got := c.read(); got != want {
				t.Errorf("node %s, EXEC that only reads: %s, want %s", n.id, got, want)
			}
		}
		c.send(frame("WATCH", "k") + frame("GET", "k") + frame("MULTI") + frame("SET", "k", "3") + frame("GET", "k") + frame("EXEC") + frame("GET", "k"))
		for i, want := range []string{"OK", "2", "OK", "QUEUED", "QUEUED", "[OK 3]", "3"} {
			if got := c.read(); got != want {
				t.Errorf("node %s, reply %d: %s, want %s", n.id, i, got, want)
			}
		}
		c.do("WATCH", "k")
		c.do("SET", "k", "4") // one's own changes count, too
		c.do("MULTI")
		c.do("GET", "k")
		if got := c.do("EXEC"); got != "none" {
			t.Errorf("node %s, EXEC after an own change: %s", n.id, got)
		}
	}
}

// Proves BX-5: the commands of one write are one deposit; each has its reply, in order; an error harms nobody else; reads see writes before.
func TestPipelineIsOneDeposit(t *testing.T) {
	w := newWorld(t, 2)
	c := w.nodes[0].dial(t)
	c.do("HSET", "h", "f", "v")
	before := w.deposits
	var b strings.Builder
	for range 50 {
		b.WriteString(frame("INCR", "n") + frame("INCR", "h") + frame("GET", "n") + frame("NOPE") + frame("PING"))
	}
	c.send(b.String())
	for i := range 50 {
		want := []string{":" + itoa(i+1), "-" + string(errWrongType), itoa(i + 1), "-" + string(errUnknownCommand([][]byte{[]byte("NOPE")})), "PONG"}
		for _, x := range want {
			if got := c.read(); got != x {
				t.Fatalf("round %d: %s, want %s", i, got, x)
			}
		}
	}
	if n := w.deposits - before; n > 3 { // one, unless the kernel cut the write into pieces
		t.Errorf("%d deposits", n)
	}
}

func itoa(n int) string { return string(number(n)) }
