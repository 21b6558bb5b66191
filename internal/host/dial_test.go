package host

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A connection to a machine that is gone breaks by itself.
func TestConnectionsAreImpatient(t *testing.T) {
	network := Real().Network
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
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if want := int(lostAfter.Milliseconds()); got != want {
		t.Errorf("the kernel gives up after %d ms, want %d", got, want)
	}
}
