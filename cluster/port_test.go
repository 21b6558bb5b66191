package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

func TestHello(t *testing.T) {
	for _, h := range []hello{{helloControl, 1, ""}, {helloRaft, 3, "0123456789abcdef"}, {helloControl, 255, ident.ClusterID(strings.Repeat("x", 255))}} {
		var b bytes.Buffer
		if err := writeHello(&b, h); err != nil {
			t.Fatal(err)
		}
		raw := b.Bytes()
		if got, err := readHello(bytes.NewReader(raw)); err != nil || got != h {
			t.Fatalf("%+v: got %+v %v", h, got, err)
		}
		for cut := range raw {
			if _, err := readHello(bytes.NewReader(raw[:cut])); err == nil {
				t.Fatalf("%+v cut at %d was accepted", h, cut)
			}
		}
	}
	if raw := []byte{'C', 1, 2, 'i', 'd'}; true { // golden bytes
		var b bytes.Buffer
		if _ = writeHello(&b, hello{helloControl, helloQuestion, "id"}); !bytes.Equal(b.Bytes(), raw) {
			t.Fatalf("%q", b.Bytes())
		}
	}
	for _, raw := range []string{"GET / HTTP/1.1\r\n\r\n", "C\x00\x00", "\x00\x00\x00\x00"} {
		if _, err := readHello(strings.NewReader(raw)); !errors.Is(err, errHello) {
			t.Fatalf("%q: %v", raw, err)
		}
	}
}

func TestFrame(t *testing.T) {
	want := request{Propose: &fsm.Command{Version: 1, ID: 7, Release: &fsm.Release{Node: "a", Incarnation: 3}}}
	var b bytes.Buffer
	if err := writeFrame(&b, want); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	var got request
	if err := readFrame(bytes.NewReader(raw), maxFrame, &got); err != nil || got.Propose == nil || got.Propose.ID != 7 || got.Propose.Release.Incarnation != 3 {
		t.Fatalf("got %+v %v", got, err)
	}
	for cut := range raw {
		if err := readFrame(bytes.NewReader(raw[:cut]), maxFrame, &got); err == nil {
			t.Fatalf("cut at %d was accepted", cut)
		}
	}
	if err := readFrame(bytes.NewReader(raw), uint32(len(raw)-5), &got); err == nil || !strings.Contains(err.Error(), "exceeds") {
		t.Fatalf("too long: %v", err)
	}
	if err := writeFrame(io.Discard, strings.Repeat("x", maxFrame)); err == nil {
		t.Fatal("a frame beyond the limit was written")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r request
		_ = readFrame(bytes.NewReader(raw), maxFrame, &r)
		_, _ = readHello(bytes.NewReader(raw))
	})
}

func testPort(t *testing.T, control func(context.Context, bool, request) response) *port {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{listener: ln, network: host.Real().Network, address: advertised(ln.Addr().String()), log: testLogger(t, "p"),
		cluster: func() ident.ClusterID { return "cluster" }, control: control}
	p.start()
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPortBounds(t *testing.T) {
	var served atomic.Int32
	p := testPort(t, func(_ context.Context, foreign bool, r request) response {
		served.Add(1)
		return response{Code: codeOK, Info: &info{Node: "p"}}
	})
	addr := string(p.address)

	// A stranger's request is bounded tightly, before anything is allocated for it.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := writeHello(conn, hello{kind: helloControl, version: helloQuestion}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(binary.LittleEndian.AppendUint32(nil, maxForeignFrame+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	if served.Load() != 0 {
		t.Fatal("it was served")
	}

	// Connections beyond the bound are closed, those within it are served again when others have gone.
	var open []net.Conn
	for range maxConnections + 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	eventually(t, "bound reached", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) == maxConnections })
	for _, c := range open {
		_ = c.Close()
	}
	eventually(t, "served again", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r, err := p.call(ctx, addr, request{Info: &infoRequest{Node: "x"}})
		return err == nil && r.Info.Node == "p"
	})
}

func TestCallSaysWhetherItWasSent(t *testing.T) {
	block := make(chan struct{})
	p := testPort(t, func(ctx context.Context, _ bool, _ request) response {
		select {
		case <-block:
		case <-ctx.Done():
		}
		return response{Code: codeOK}
	})
	defer close(block)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var failed *callError
	if _, err := p.call(ctx, string(p.address), request{Propose: &fsm.Command{}}); !errors.As(err, &failed) || !failed.Sent {
		t.Fatalf("got %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	_ = ln.Close()
	if _, err := p.call(context.Background(), gone, request{Propose: &fsm.Command{}}); !errors.As(err, &failed) || failed.Sent {
		t.Fatalf("got %v", err)
	}
}
