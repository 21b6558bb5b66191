package testcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// ports gives out the ports of one loopback address, which is one cluster's alone: while a node is down nobody else binds what it
// comes back to, however many clusters the machine runs.
type ports struct {
	address string
	last    int
}

// claim is the port whose listener makes an address ours, in every process that runs clusters. It and all that follow are below
// those that the kernel gives to outgoing connections.
const claim = 11999

// claimPorts takes a loopback address for as long as the test runs.
func claimPorts(t testing.TB) *ports {
	t.Helper()
	var err error
	for range 100 {
		p := &ports{fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)), claim}
		var ln net.Listener
		if ln, err = net.Listen("tcp", p.at(claim)); err == nil {
			t.Cleanup(func() {
				if err := ln.Close(); err != nil {
					t.Error(err)
				}
			})
			return p
		}
	}
	t.Fatalf("no loopback address can be had: %v", err)
	return nil
}

func (p *ports) at(port int) string { return net.JoinHostPort(p.address, fmt.Sprint(port)) }

// next returns the next address and port. It passes over those on which somebody listens at all addresses of the machine.
func (p *ports) next(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		p.last++
		var ln net.Listener
		if ln, err = net.Listen("tcp", p.at(p.last)); err == nil {
			defer ln.Close()
			return p.at(p.last)
		}
	}
	t.Fatalf("no free port: %v", err)
	return ""
}
