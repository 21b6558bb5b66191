package client

import (
	"errors"
	"syscall"
	"time"
)

// lostAfter is how long a node may take nothing of what was sent before the connection counts as lost. The kernel counts a
// closed window, too: a node that is stopped or hangs while a large request is on its way looks like a machine that is gone; a
// small request waits for the timeout of the request. The client does not know the lease of the cluster. The time is twice
// the default one, and longer than the nodes' own among themselves, so that the node that was asked can still say what became
// of its primary: a node that hangs for so long has lost its roles by then. With a longer lease it may not have; the outcome
// of the request is unknown then, as after any broken connection, and the receipt tells it.
const lostAfter = 4 * time.Second

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name

// impatient breaks a connection to a machine that is gone or takes nothing; TCP alone would try for a quarter of an hour.
func impatient(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(lostAfter.Milliseconds()))
	})
	return errors.Join(err, set)
}
