package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// A repair asks the one who wrote a journal first, then the other data nodes, and neither itself nor a witness nor who has no address.
func TestTwinsOfAJournal(t *testing.T) {
	nodes := map[ident.NodeID]*fsm.Node{}
	for _, id := range []ident.NodeID{"a", "b", "c", "d"} {
		nodes[id] = &fsm.Node{ID: id, Kind: fsm.KindData, Addresses: fsm.Addresses{HTTP: string(id) + ":1"}}
	}
	nodes["mute"] = &fsm.Node{ID: "mute", Kind: fsm.KindData}
	nodes["w"] = &fsm.Node{ID: "w", Kind: fsm.KindWitness, Addresses: fsm.Addresses{HTTP: "w:1"}}
	for _, c := range []struct{ self, author, want string }{
		{"a", "c", "c b d"}, {"a", "a", "b c d"}, {"d", "a", "a b c"}, {"b", "d", "d a c"}, {"w", "b", "b a c d"}, {"a", "left", "b c d"},
	} {
		for range 10 { // a map gives another order each time
			var got []string
			for _, n := range twinNodes(nodes, ident.NodeID(c.self), ident.NodeID(c.author)) {
				got = append(got, string(n.ID))
			}
			if strings.Join(got, " ") != c.want {
				t.Fatalf("%+v: %v", c, got)
			}
		}
	}
	if twins := new(Node).twins(ident.JournalID{Group: "orders", Node: replica.Replays}); twins != nil {
		t.Errorf("of what was replayed: %v", twins)
	}
}

// What another node has of a receiver is read to the byte at any place, in pieces that are bounded; its end is io.EOF, and an answer that
// breaks off is an error that names the receiver.
func TestReceiverOfATwin(t *testing.T) {
	content := make([]byte, 2*farPiece+12345)
	for i := range content {
		content[i] = byte(i*7 + i>>11)
	}
	asked, most, broken := 0, int64(0), false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var from, to int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil {
			most = max(most, to-from+1)
		}
		switch {
		case broken:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(r.URL.Path, "/receivers"):
			_, _ = io.WriteString(w, `{"items":[{"number":3},{"number":4}]}`)
		default:
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		}
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	twin := farTwin{node: "b", id: ident.JournalID{Group: "orders", Node: "a"}, client: client.NewWith(client.Options{
		Addresses: []string{strings.TrimPrefix(server.URL, "http://")}, HTTPClient: &http.Client{Transport: transport}, Retry: -1})}
	got, err := twin.Receiver(t.Context(), 3)
	if err != nil || got.Size() != int64(len(content)) {
		t.Fatal(got.Size(), err)
	}
	if most != journal.HeaderSize || asked != 1 {
		t.Errorf("the beginning: %d bytes in %d requests", most, asked)
	}
	size := got.Size()
	for _, c := range []struct{ at, n int64 }{
		{0, 100}, {journal.HeaderSize - 10, 20}, {journal.HeaderSize, 1}, {size - 1, 1}, {size - 5, 10}, {size, 1}, {size + 1, 1}, {100, farPiece + 7}, {5, 1}, {4, 1},
		{farPiece - 1, 2}, {0, size}, {size - 10, 10}, {7, 0},
	} {
		p := make([]byte, c.n)
		n, err := got.ReadAt(p, c.at)
		want := content[min(c.at, size):min(c.at+c.n, size)]
		if n != len(want) || !bytes.Equal(p[:n], want) || (err == io.EOF) != (int64(n) < c.n) || err != nil && err != io.EOF {
			t.Errorf("%d bytes at %d: %d, %v, equal %v", c.n, c.at, n, err, bytes.Equal(p[:n], want))
		}
	}
	if got, err = twin.Receiver(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	before := asked
	most = 0
	for at := range int64(1000) { // one piece serves many reads
		if _, err := got.ReadAt(make([]byte, 10), size/2+at); err != nil {
			t.Fatal(err)
		}
	}
	if asked > before+1 || most != farPiece {
		t.Errorf("%d requests of up to %d bytes for 1000 reads that are next to each other", asked-before, most)
	}
	if _, err := got.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	content = content[:farPiece] // it was made shorter there
	if n, err := got.ReadAt(make([]byte, 10), size-10); n != 0 || err != io.EOF {
		t.Errorf("of what is not there any more: %d %v", n, err)
	}
	if numbers, err := twin.Numbers(t.Context()); err != nil || fmt.Sprint(numbers) != fmt.Sprint([]ident.ReceiverNumber{3, 4}) {
		t.Errorf("receivers %v %v", numbers, err)
	}
	broken = true
	fresh := &farContent{ctx: t.Context(), twin: twin, number: 3, size: size}
	if n, err := fresh.ReadAt(make([]byte, 10), 0); n != 0 || err == nil || !strings.Contains(err.Error(), "orders/a") {
		t.Errorf("a node that fails: %d %v", n, err)
	}
	if _, err := twin.Numbers(t.Context()); err == nil {
		t.Error("a node that fails has receivers")
	}
	if _, err := twin.Receiver(t.Context(), 3); err == nil {
		t.Error("a node that fails has a receiver")
	}
}
