package resp

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/understudy-ha/understudy/internal/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cluster in memory: the records of its groups, who is primary, and its nodes. Programs run one after the other, most of them
// twice, of which only the second run counts.
type world struct {
	mu       sync.Mutex
	ahead    time.Duration // of the clock
	groups   map[string]*fakeGroup
	nodes    []*fakeNode
	changed  chan struct{}
	deposits int    // batches that changed something
	lost     error  // the next write is done, and its outcome lost
	refused  error  // every write hears it
	taken    string // the file that group other has taken over; "": none
}

type fakeGroup struct {
	primary string // "": none
	held    bool   // a switch-over runs: the primary asks to come again
	epoch   uint64
	h       uint64
	files   map[string]map[string]Record
	deleted map[string]uint64 // h, by file and key
}

type fakeNode struct {
	w       *world
	id      string
	address string
	server  *Server
	stop    func() // ends Serve and waits for it
	behind  int    // so many times it does not know yet which file was taken over; guarded by w.mu
}

// newWorld starts n nodes, named a, b, …; a is primary of group default, and b, or a, of group other with the files that begin with "o".
func newWorld(t testing.TB, n int, change ...func(*Options)) *world {
	t.Helper()
	w := &world{groups: map[string]*fakeGroup{}, changed: make(chan struct{})}
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := &fakeNode{w: w, id: string(rune('a' + i)), address: ln.Addr().String()}
		o := Options{Node: f.id, Cluster: "test", Store: f, Roles: f, Logger: hclog.NewNullLogger(), Clock: w.now}
		for _, c := range change {
			c(&o)
		}
		f.server = New(o)
		w.nodes = append(w.nodes, f)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		f.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("node %s: %v", f.id, err)
			}
		})
		t.Cleanup(f.stop)
		defer func() { go func() { ended <- f.server.Serve(ctx, ln) }() }() // once the groups are there
	}
	w.groups["default"] = &fakeGroup{primary: "a", epoch: 1, files: map[string]map[string]Record{}}
	w.groups["other"] = &fakeGroup{primary: w.nodes[min(1, n-1)].id, epoch: 1, files: map[string]map[string]Record{}}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nowLocked()
}

func (w *world) nowLocked() time.Time { return time.Now().Add(w.ahead) }

// advance moves the clock.
func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// move changes roles.
func (w *world) move(group, to string, held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[group]
	if g.primary != to {
		g.epoch++
	}
	g.primary, g.held = to, held
	close(w.changed)
	w.changed = make(chan struct{})
}

// delete takes a group away.
func (w *world) delete(group string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.groups, group)
	close(w.changed)
	w.changed = make(chan struct{})
}

func groupOfFile(file string) string {
	if strings.HasPrefix(file, "o") {
		return "other"
	}
	return "default"
}

func (f *fakeNode) Group(k Key) (string, error) {
	if strings.HasPrefix(k.File, "_") {
		return "", &Refusal{Text: "no group has the file " + k.File}
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.behind > 0 {
		f.behind--
	} else if k.File == f.w.taken {
		return "other", nil
	}
	return groupOfFile(k.File), nil
}

// elsewhere is nil when the node is the serving primary.
func (f *fakeNode) elsewhere(g *fakeGroup) error {
	switch {
	case g.primary == f.id && g.held:
		return &Elsewhere{Retry: true}
	case g.primary == f.id:
		return nil
	}
	for _, n := range f.w.nodes {
		if n.id == g.primary {
			return &Elsewhere{Redis: n.address}
		}
	}
	return &Elsewhere{}
}

func (f *fakeNode) Update(_ context.Context, group string, batch []Program) []Outcome {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	g, out, changed := w.groups[group], make([]Outcome, len(batch)), false
	for i, p := range batch {
		if err := f.elsewhere(g); err != nil {
			out[i].Err = err
			continue
		}
		if !p.Reads && w.refused != nil {
			out[i].Err = w.refused
			continue
		}
		var v *fakeView
		for range 1 + i%2 { // programs may be run several times
			v = &fakeView{g: g, now: w.nowLocked().UnixNano(), own: map[string]*Record{}, keys: p.Keys}
			out[i].Err = p.Run(v)
		}
		if out[i].Err != nil {
			continue
		}
		if len(v.own) > 0 {
			if p.Reads {
				out[i].Err = errors.New("a program that only reads has changed something")
				continue
			}
			g.h++
			changed = true
		}
		out[i].Position = ident.Position{Epoch: ident.Epoch(g.epoch), History: ident.History(g.h)}
		for name, r := range v.own {
			file, key, _ := strings.Cut(name, "\x00")
			if r == nil {
				if g.deleted == nil {
					g.deleted = map[string]uint64{}
				}
				g.deleted[name] = g.h
				delete(g.files[file], key)
				continue
			}
			if g.files[file] == nil {
				g.files[file] = map[string]Record{}
			}
			r.Position = out[i].Position
			g.files[file][key] = *r
		}
		if len(v.own) > 0 && w.lost != nil {
			out[i].Err, w.lost = &Unknown{Position: out[i].Position, Err: w.lost}, nil
		}
	}
	if changed {
		w.deposits++
	}
	return out
}

func (f *fakeNode) Read(_ context.Context, group string, local bool, batch []Program) []Outcome {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	g, out := w.groups[group], make([]Outcome, len(batch))
	for i, p := range batch {
		if err := f.elsewhere(g); err != nil && !local {
			out[i].Err = err
			continue
		}
		v := &fakeView{g: g, now: w.nowLocked().UnixNano(), own: map[string]*Record{}, keys: p.Keys, reads: true}
		if out[i].Err = p.Run(v); len(v.own) > 0 {
			out[i].Err = errors.New("a program that only reads has changed something")
		}
	}
	return out
}

func (f *fakeNode) Files(_ context.Context, group string, local bool) ([]string, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	g := f.w.groups[group]
	if err := f.elsewhere(g); err != nil && !local {
		return nil, err
	}
	return slices.Collect(maps.Keys(g.files)), nil
}

func (f *fakeNode) Scan(_ context.Context, file string, from Bound, limit int, local bool) ([]Scanned, bool, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	g := f.w.groups[groupOfFile(file)]
	if err := f.elsewhere(g); err != nil && !local {
		return nil, false, err
	}
	keys := slices.Sorted(maps.Keys(g.files[file]))
	i, found := slices.BinarySearch(keys, string(from.Key))
	if found && from.After {
		i++
	}
	var page []Scanned
	now := f.w.nowLocked().UnixNano()
	for ; i < len(keys) && len(page) < limit; i++ {
		if r := g.files[file][keys[i]]; r.Expiry == 0 || r.Expiry > now {
			page = append(page, Scanned{Key: []byte(keys[i]), Kind: r.Kind})
		}
	}
	return page, i == len(keys), nil
}

func (f *fakeNode) Count(context.Context) (int64, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	n := 0
	for _, g := range f.w.groups {
		for _, file := range g.files {
			n += len(file)
		}
	}
	return int64(n), nil
}

func (f *fakeNode) Groups() []Group {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	var all []Group
	for name, g := range f.w.groups {
		d := Group{Name: name, Epoch: g.epoch, Primary: g.primary, Serving: g.primary == f.id, Last: ident.Position{Epoch: ident.Epoch(g.epoch), History: ident.History(g.h)}}
		for _, n := range f.w.nodes {
			d.InSync = append(d.InSync, n.id)
			d.Nodes = append(d.Nodes, Node{ID: n.id, Address: n.address, Alive: true, Offset: g.h, Linked: true})
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (f *fakeNode) Copies(_ context.Context, group string) []Node {
	for _, g := range f.Groups() {
		if g.Name == group {
			return g.Nodes
		}
	}
	return nil
}

func (f *fakeNode) Changed() <-chan struct{} {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return f.w.changed
}

func (f *fakeNode) Holders(context.Context, string, ident.Position) (int, error) {
	return len(f.w.nodes) - 1, nil
}

func (f *fakeNode) Failover(_ context.Context, group string) error {
	f.w.mu.Lock()
	i := slices.IndexFunc(f.w.nodes, func(n *fakeNode) bool { return n.id == f.w.groups[group].primary })
	f.w.mu.Unlock()
	if len(f.w.nodes) == 1 {
		return errors.New("no other node can take over")
	}
	f.w.move(group, f.w.nodes[(i+1)%len(f.w.nodes)].id, false)
	return nil
}

// fakeView is a program's view. It refuses keys that the program has not announced.
type fakeView struct {
	g    *fakeGroup
	now  int64
	own  map[string]*Record // nil: deleted
	keys []Key

	reads bool // of Read: when records were deleted is not known
}

func (v *fakeView) announced(file string, key []byte) error {
	for _, k := range v.keys {
		if k.File == file && bytes.Equal(k.Key, key) {
			return nil
		}
	}
	return fmt.Errorf("the program has not announced %s:%s", file, key)
}

func (v *fakeView) Now() int64 { return v.now }

func (v *fakeView) Get(file string, key []byte) (*Record, error) {
	if err := v.announced(file, key); err != nil {
		return nil, err
	}
	r, mine := v.own[file+"\x00"+string(key)]
	if !mine {
		if old, ok := v.g.files[file][string(key)]; ok {
			r = &old
		}
	}
	if r == nil || r.Expiry != 0 && r.Expiry <= v.now {
		return nil, nil
	}
	return r, nil
}

func (v *fakeView) Put(file string, key []byte, r Record) error {
	v.own[file+"\x00"+string(key)] = &r
	return v.announced(file, key)
}

func (v *fakeView) End() ident.Position {
	return ident.Position{Epoch: ident.Epoch(v.g.epoch), History: ident.History(v.g.h)}
}

func (v *fakeView) Deleted(file string, key []byte) ident.History {
	if v.reads {
		return math.MaxUint64
	}
	return ident.History(v.g.deleted[file+"\x00"+string(key)])
}

func (v *fakeView) Delete(file string, key []byte) (bool, error) {
	r, err := v.Get(file, key)
	if err == nil && r != nil {
		v.own[file+"\x00"+string(key)] = nil
	}
	return r != nil, err
}

// wireClient speaks the protocol by hand.
type wireClient struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func (f *fakeNode) dial(t testing.TB) *wireClient {
	t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wireClient{t, conn, bufio.NewReaderSize(conn, 64<<10)}
}

func (c *wireClient) send(raw string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(raw)); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next reply in RESP2, on one line.
func (c *wireClient) read() string {
	c.t.Helper()
	r, err := readReply(c.in, 1<<30)
	if err != nil {
		c.t.Fatalf("read a reply: %v", err)
	}
	return shown(r)
}

// closed waits for the end of the connection.
func (c *wireClient) closed() {
	c.t.Helper()
	if r, err := readReply(c.in, 1<<30); err == nil {
		c.t.Fatalf("the connection goes on: %s", shown(r))
	} else if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

// do sends words as one command and returns the reply.
func (c *wireClient) do(words ...string) string {
	c.t.Helper()
	c.send(frame(words...))
	return c.read()
}

func frame(words ...string) string {
	args := make([][]byte, len(words))
	for i, w := range words {
		args[i] = []byte(w)
	}
	return string(wire(nil, args...))
}

// shown prints a reply as redis-cli would, on one line.
func shown(r reply) string {
	list := func(open string, all []reply, end string) string {
		var parts []string
		for _, x := range all {
			parts = append(parts, shown(x))
		}
		return open + strings.Join(parts, " ") + end
	}
	switch r := r.(type) {
	case simple:
		return string(r)
	case failure:
		return "-" + string(r)
	case integer:
		return fmt.Sprintf(":%d", r)
	case bulk:
		return string(r)
	case verbatim:
		return string(r)
	case null:
		return "nil"
	case nothing:
		return "none"
	case array:
		return list("[", r, "]")
	case pairs:
		return list("{", r, "}")
	case set:
		return list("~[", r, "]")
	case push:
		return list(">[", r, "]")
	}
	return fmt.Sprintf("%T", r)
}
