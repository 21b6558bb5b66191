package host

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurnExcludes(t *testing.T) {
	turn, n := NewTurn(), 0
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 1000 {
				turn.Lock()
				n++
				turn.Unlock()
			}
		})
	}
	work.Wait()
	if n != 8000 {
		t.Errorf("counted to %d", n)
	}
}

// A holder that sleeps does not stop virtual time for who waits.
func TestTurnInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn, began := NewTurn(), time.Now()
		turn.Lock()
		go func() {
			time.Sleep(time.Minute)
			turn.Unlock()
		}()
		turn.Lock()
		if d := time.Since(began); d != time.Minute {
			t.Errorf("waited %s", d)
		}
	})
}
