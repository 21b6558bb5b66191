// Package host gathers what a node takes from the machine it runs on: clocks, network, randomness, failpoints and the
// sink for safety events. Production code gets Real(); tests replace single parts. The file system is a pebble vfs.FS and
// travels beside it.
package host

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what a node takes from its machine. All fields are set; the value is copied freely.
type Host struct {
	Clock     Clock
	Network   Network
	Random    func() uint64                     // never 0
	Failpoint func(name string) error           // returns nil unless a test injects an error or blocks
	Trace     func(event string, fields ...any) // safety events: key, value pairs; must not block
}

// Clock tells the time. Durations and timers come from package time, so that testing/synctest governs them; only the two
// readings below are taken through the interface.
type Clock interface {
	// Now is the wall clock, for showing and for expiry, never for safety.
	Now() time.Time
	// Boot is the time since boot, including suspend (CLOCK_BOOTTIME). Leases are counted in it.
	Boot() time.Duration
}

// Network makes connections.
type Network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Real returns the host the process runs on.
func Real() Host {
	return Host{
		Clock:     realClock{},
		Network:   RealNetwork(LostAfter),
		Random:    random,
		Failpoint: func(string) error { return nil },
		Trace:     func(string, ...any) {},
	}
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// RealNetwork returns the network of the machine. A connection breaks when the peer takes nothing for lost: its machine is
// gone, or its process reads nothing while much is sent.
func RealNetwork(lost time.Duration) Network { return realNetwork{lost} }

type realNetwork struct{ lost time.Duration }

func (realNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (n realNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 5 * time.Second, Control: n.impatient}
	return d.DialContext(ctx, "tcp", addr)
}

// LostAfter is how long a peer may take nothing of what was sent: longer than the lease that nodes have by default and what
// its rule adds, so that a connection to a node that may still hold its roles is never broken. A node with a longer lease needs
// a longer time. TCP alone would try for a quarter of an hour; a host that is gone should not hold requests up for longer than
// it takes to replace it.
const LostAfter = 3 * time.Second

// impatient breaks a connection to a machine that is gone. The kernel counts a closed window, too: a process that is stopped or
// hangs looks the same once its buffers are full, though its kernel goes on acknowledging probes. What is small and fits into them
// waits on.
func (n realNetwork) impatient(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(n.lost.Milliseconds()))
	})
	return errors.Join(err, set)
}

func random() uint64 {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			panic("read random bytes: " + err.Error())
		}
		if v := binary.LittleEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}
