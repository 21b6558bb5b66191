package resp

import (
	"context"
	"fmt"
	"testing"
)

// Proves BX-5, HB-2: a scan lists the local files once, gives each key of them once, and the next scan knows what has come since.
func TestScanListsLocalFilesOnce(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	n.server.o.Local = "default"
	const files = 4 * scanPage
	for i := range files {
		w.fill(fmt.Sprint("f", i), "k")
	}
	clients := []*wireClient{n.dial(t)}
	steps := 0
	once := func(want int) {
		t.Helper()
		got := scanAll(t, func() { steps++ }, clients, "COUNT", "100")
		if len(got) != want {
			t.Errorf("%d of %d names", len(got), want)
		}
		for name, times := range got {
			if times != 1 {
				t.Errorf("%s came %d times", name, times)
			}
		}
	}
	once(files)
	if listed := n.server.names.listed; listed != 1 || steps < files/100-1 {
		t.Errorf("listed %d times in %d steps", listed, steps)
	}
	w.fill("fresh", "k")
	once(files + 1)
	n.server.names.forget() // in the midst of a scan they are listed anew
	got := scanAll(t, n.server.names.forget, clients, "COUNT", "1000")
	if len(got) != files+1 {
		t.Errorf("%d of %d names", len(got), files+1)
	}
}

// A step takes some of the names, whatever there are; too many to remember are listed each time.
func TestLocalNamesAreBounded(t *testing.T) {
	var l localNames
	names := make([]string, 3*lastCode)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	list := func(context.Context) ([]string, error) { return names, nil }
	seen, steps := 0, 0
	for cursor := uint64(0); ; steps++ {
		part, next, all, err := l.after(t.Context(), cursor, 100, list)
		if err != nil || all != len(names) || len(part) > 120 || len(part) == 0 {
			t.Fatalf("%d of %d names, %v", len(part), all, err)
		}
		if seen += len(part); next == 0 {
			break
		}
		cursor = makeCursor(next, 0, 0)
	}
	if seen != len(names) || l.listed != 1 {
		t.Errorf("%d names of %d in %d steps, listed %d times", seen, len(names), steps, l.listed)
	}
	names = append(names, "fresh")
	if _, _, all, err := l.after(t.Context(), makeCursor(1, 0, 0), 100, list); err != nil || all != len(names)-1 {
		t.Errorf("in the midst of a scan they were listed anew: %d, %v", all, err)
	}
	if _, _, all, err := l.after(t.Context(), 0, 100, list); err != nil || all != len(names) {
		t.Errorf("a scan begins with %d of %d names, %v", all, len(names), err)
	}
	l.remember([]file{{name: string(make([]byte, namesBytes))}})
	if l.remembered() != nil {
		t.Error("more is remembered than there is room for")
	}
}
