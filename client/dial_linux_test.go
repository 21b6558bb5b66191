package client

import (
	"net"
	"syscall"
	"testing"
)

// A connection to a machine that is gone breaks by itself.
func TestConnectionsAreImpatient(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{Control: impatient}
	conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if cerr := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if want := int(lostAfter.Milliseconds()); got != want {
		t.Errorf("the kernel gives up after %d ms, want %d", got, want)
	}
}
