package client

import (
	"errors"
	"syscall"
	"time"
)

// lostAfter is how long a node's machine may leave what was sent unacknowledged before the connection counts as lost. A
// process that merely hangs does not matter: its kernel goes on acknowledging.
const lostAfter = 4 * time.Second

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name

// impatient breaks a connection when the other machine is gone; TCP alone would try for a quarter of an hour.
func impatient(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(lostAfter.Milliseconds()))
	})
	return errors.Join(err, set)
}
