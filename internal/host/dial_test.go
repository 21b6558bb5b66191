package host

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection to a machine that is gone breaks by itself, after the time that was asked for.
func TestConnectionsAreImpatient(t *testing.T) {
	for _, c := range []struct {
		network Network
		want    time.Duration
	}{{Real().Network, LostAfter}, {RealNetwork(11 * time.Second), 11 * time.Second}} {
		ln, err := c.network.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		conn, err := c.network.Dial(t.Context(), ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if want := int(c.want.Milliseconds()); got != want {
			t.Errorf("the kernel gives up after %d ms, want %d", got, want)
		}
	}
}

// A peer that reads nothing counts as lost as well, once its buffers are full, but not before its time: whoever chooses that time
// must know it.
func TestPeerThatReadsNothingIsLost(t *testing.T) {
	const lost = 600 * time.Millisecond
	network := RealNetwork(lost)
	ln, err := network.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := network.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := ln.Accept() // it never reads
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	began := time.Now()
	for err == nil {
		_, err = conn.Write(b)
	}
	if took := time.Since(began); !errors.Is(err, unix.ETIMEDOUT) || took < lost {
		t.Errorf("after %s: %v", took, err)
	}
}
