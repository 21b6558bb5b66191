package switchload

import (
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var all []time.Duration
	if got := Quantile(all, 0.5); got != 0 {
		t.Errorf("of none: %s", got)
	}
	for i := range 100 {
		all = append(all, time.Duration(100-i))
	}
	for q, want := range map[float64]time.Duration{0.5: 50, 0.99: 99, 1: 100, 0: 1} {
		if got := Quantile(all, q); got != want {
			t.Errorf("%g: %d, want %d", q, got, want)
		}
	}
	if all[0] != 100 {
		t.Error("the values were sorted in place")
	}
}

// A counter that is found elsewhere than where its answers left it tells what happened.
func TestCounterJudges(t *testing.T) {
	l := &Load{o: Options{Nodes: make([]Endpoint, 1)}}
	c := newCounter(l, 0)
	c.count = 10
	c.compare(10)
	if got := l.Tally(); got.Wrong() {
		t.Errorf("as it should be: %s", got)
	}
	c.compare(8)
	c.compare(13)
	if got := l.Tally(); got.Lost != 2 || got.Duplicated != 3 {
		t.Errorf("two lost, three done again: %s", got)
	}
}
