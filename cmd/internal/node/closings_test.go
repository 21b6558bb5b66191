package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// fakeClosing is a control plane with two groups, and the primary's part of one, for a closer.
type fakeClosing struct {
	mu       sync.Mutex
	state    *fsm.State
	changed  chan struct{}
	log      []string
	withheld bool
	lost     int // answers that are not heard before one is
	held     *replica.Held
	drained  error
}

func (f *fakeClosing) State() (*fsm.State, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.changed
}

func (f *fakeClosing) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

func (f *fakeClosing) Withhold(_ ident.GroupName, e ident.Epoch, yes bool) {
	f.note("withhold %s %t", e, yes)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withheld = yes
}

func (f *fakeClosing) Drain(context.Context) error {
	f.note("drain")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drained
}

func (f *fakeClosing) FirstHeld() (*replica.Held, error) {
	f.note("look")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held, nil
}

func (f *fakeClosing) Propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	a := cmd.AnswerClosing
	f.note("answer %d %s %t", a.Closing, a.Epoch, a.Holds == "")
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.withheld {
		f.log = append(f.log, "answered while it serves")
	}
	if f.lost > 0 {
		f.lost--
		return fsm.Result{}, errors.New("the outcome is not known")
	}
	return fsm.Result{}, nil
}

// show makes the state show a closing; 0: none.
func (f *fakeClosing) show(id uint64, e ident.Epoch) {
	g := &fsm.Group{Spec: fsm.GroupSpec{Name: "g"}, Phase: fsm.PhaseOpened, Primary: "a", Incarnation: 7, Epoch: e}
	if id != 0 {
		g.Closing = &fsm.Closing{ID: id}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = &fsm.State{Groups: map[ident.GroupName]*fsm.Group{"g": g}}
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until the log is as wanted, and begins another one.
func (f *fakeClosing) await(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		got = f.log
		if len(got) >= len(want) {
			f.log = nil
		}
		f.mu.Unlock()
		if len(got) >= len(want) {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

// TestCloser: the primary looks after the end of what was before, and after it has stopped to answer reads; it begins to answer again only when
// its state shows that the closing is over. An answer whose outcome is not known is given again. Proves TR-7, I8.
func TestCloser(t *testing.T) {
	f := &fakeClosing{changed: make(chan struct{})}
	f.show(0, 3)
	c := &closer{control: f, self: "a", life: 7, part: func(ident.GroupName) closingPart { return f }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.run(ctx, func(ident.GroupName, string, error) {})
	}()
	defer func() {
		cancel()
		<-ended
	}()

	f.show(64, 3)
	f.await(t, "drain", "withhold 3 true", "look", "answer 64 3 true")
	f.show(64, 3) // it has said so
	f.show(0, 3)
	f.await(t, "withhold 3 false")

	f.mu.Lock()
	f.lost, f.held = 1, &replica.Held{File: "f", Key: []byte("k")}
	f.mu.Unlock()
	f.show(128, 3)
	f.await(t, "drain", "withhold 3 true", "look", "answer 128 3 false", "look", "answer 128 3 false")
	f.show(192, 3) // it was closed again before this node saw the end
	f.await(t, "withhold 3 false", "drain", "withhold 3 true", "look", "answer 192 3 false")
	f.show(0, 4)
	f.await(t, "withhold 3 false")

	f.mu.Lock()
	f.drained = errors.New("writes are held")
	f.mu.Unlock()
	f.show(256, 4)
	f.await(t, "drain", "drain") // it is tried again, and nothing is withheld meanwhile
	if all := closings(f.state, "a", 8); len(all) != 0 {
		t.Errorf("another life answers: %v", all)
	}
	if all := closings(f.state, "b", 7); len(all) != 0 {
		t.Errorf("another node answers: %v", all)
	}
}
