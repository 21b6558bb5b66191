package cluster

import (
	"slices"
	"sync"

	"github.com/understudy-ha/understudy/fsm"
)

// board publishes the applied state to readers and tells proposers what became of their commands. Raft's FSM goroutine is
// its only writer.
type board struct {
	mu      sync.Mutex
	state   *fsm.State
	changed chan struct{} // closed when state is replaced
	waiting map[uint64][]chan outcome
}

// outcome is an applied command's result, and State.Applied after it: a node whose state has counted that far shows it.
type outcome struct {
	result  fsm.Result
	applied uint64
}

func newBoard(initial *fsm.State) *board {
	return &board{state: initial, changed: make(chan struct{}), waiting: map[uint64][]chan outcome{}}
}

// read returns the present state and a channel that is closed at the next change.
func (b *board) read() (*fsm.State, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.changed
}

// publish replaces the state.
func (b *board) publish(st *fsm.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publishLocked(st)
}

func (b *board) publishLocked(st *fsm.State) {
	b.state = st
	close(b.changed)
	b.changed = make(chan struct{})
}

// applied publishes the state after a command and hands the result to those who wait for it. A command that was applied
// twice is told by its first application.
func (b *board) applied(id uint64, res fsm.Result, st *fsm.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publishLocked(st)
	for _, ch := range b.waiting[id] {
		ch <- outcome{result: res, applied: st.Applied}
	}
	delete(b.waiting, id)
}

// watch returns a channel that gets the outcome of the command once it is applied here. Call the function when done.
func (b *board) watch(id uint64) (<-chan outcome, func()) {
	ch := make(chan outcome, 1) // the writer never blocks
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[id] = append(b.waiting[id], ch)
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		list := slices.DeleteFunc(b.waiting[id], func(have chan outcome) bool { return have == ch })
		if len(list) == 0 {
			delete(b.waiting, id)
		} else {
			b.waiting[id] = list
		}
	}
}
