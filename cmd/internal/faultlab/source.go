package faultlab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The proxy has to know which process opened a connection, since all of them come from one loopback address. The kernel tells
// the inode of a socket, and /proc which process holds it.

// Sizes and offsets of the kernel's inet_diag messages.
const (
	diagRequestSize = 56
	diagPortAt      = 8 // both in struct inet_diag_req_v2, which begins the socket's identity there
	diagAnswerInode = 68
)

// socketInode returns the inode of the TCP socket with these ends, seen from the process that owns local.
func socketInode(local, remote netip.AddrPort) (uint32, error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, fmt.Errorf("ask the kernel for sockets: %w", err)
	}
	defer unix.Close(s)
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, err
	}
	msg := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	ne := binary.NativeEndian
	ne.PutUint32(msg[0:], uint32(len(msg)))
	ne.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	req := msg[unix.SizeofNlMsghdr:]
	req[0], req[1] = unix.AF_INET, unix.IPPROTO_TCP
	ne.PutUint32(req[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(req[diagPortAt:], local.Port())
	binary.BigEndian.PutUint16(req[diagPortAt+2:], remote.Port())
	from, to := local.Addr().As4(), remote.Addr().As4()
	copy(req[diagPortAt+4:], from[:])
	copy(req[diagPortAt+20:], to[:])
	ne.PutUint32(req[diagPortAt+40:], ^uint32(0)) // no cookie
	ne.PutUint32(req[diagPortAt+44:], ^uint32(0))
	if err := unix.Sendto(s, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask the kernel for a socket: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return 0, fmt.Errorf("hear of a socket: %w", err)
	}
	if n < unix.SizeofNlMsghdr+diagAnswerInode+4 || ne.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		return 0, fmt.Errorf("no socket from %s to %s", local, remote)
	}
	return ne.Uint32(answer[unix.SizeofNlMsghdr+diagAnswerInode:]), nil
}

// holds tells whether a process has the socket with this inode open.
func holds(pid int, inode uint32) bool {
	want := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	names, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for i := len(names) - 1; i >= 0; i-- { // new ones have high numbers, mostly
		if to, err := os.Readlink(filepath.Join(dir, names[i].Name())); err == nil && to == want {
			return true
		}
	}
	return false
}

// owner returns which of the processes opened conn, which was accepted here.
func owner(conn net.Conn, pids map[string][]int) (string, error) {
	there, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return "", err
	}
	here, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "", err
	}
	inode, err := socketInode(there, here)
	if err != nil {
		return "", err
	}
	for node, list := range pids {
		for _, pid := range list {
			if holds(pid, inode) {
				return node, nil
			}
		}
	}
	return "", fmt.Errorf("no node holds the socket %s of the connection to %s", there, here)
}

// children lists the direct children of a process, as far as they live.
func children(pid int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a child belongs to the thread that made it
	if err != nil {
		return nil
	}
	var list []int
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(raw)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}
