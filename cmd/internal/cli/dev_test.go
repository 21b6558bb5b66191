package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A development cluster whose nodes have all died, each once, goes on until Ctrl-C, and says how each is started again.
func TestDevOutlivesItsNodes(t *testing.T) {
	c := &devCluster{dir: t.TempDir()}
	for _, name := range []string{"a", "b"} {
		p := &process{name: name, done: make(chan struct{}), err: errors.New("signal: killed")}
		close(p.done)
		c.nodes = append(c.nodes, &devNode{name: name, dir: c.dir + "/" + name, process: p})
	}
	log := &lockedBuffer{}
	a := &app{out: log, err: log}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.superviseDev(ctx, c, false) }()
	deadline := time.Now().Add(2 * time.Minute)
	for _, want := range []string{"node a was killed", "node b was killed", "/a/understudy.yaml", "/b/understudy.yaml", "Ctrl-C"} {
		for !strings.Contains(log.String(), want) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not say %q:\n%s", want, log.String())
			}
			time.Sleep(time.Millisecond)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended: %v\n%s", err, log.String())
	default:
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}
