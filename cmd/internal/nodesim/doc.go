// Package nodesim runs whole nodes, with their real code from the HTTP server down to the journals and the database, in the
// virtual time of testing/synctest, breaks their network, disks and clocks according to a seed, and checks what the clients
// saw. The machines under the nodes are simulated: the network (network.go), the disk of data (disk.go), Raft's disk
// (raftdisk.go), gossip (gossip.go) and the clock (machine.go).
//
// # Seeds
//
// A schedule is its seed: which faults begin when, on which machine, and what a crash leaves of unsynced bytes. A run is
// not byte for byte the same each time: goroutines of one virtual instant run in any order, and Raft and memberlist take
// their jitter from the process's random source. A seed that fails once therefore fails often, not always; repeat it:
//
//	go test ./cmd/internal/nodesim -run TestSchedules -nodesim.seed=N -v -count=20
//
// # What is not simulated
//
// A process cannot be stopped inside a bubble. A pause is modelled from outside: nothing the machine sends or receives
// moves, its disk stands still, its clock goes on; timers in the process go on too. A single goroutine is held up where it
// has just checked a lease (fault "stalls"), nowhere else: real processes under SIGSTOP are, see the tests of real
// processes. Raft takes no snapshots in so short a time, and nothing rots on the disks. EIO at Raft's store of votes ends
// the process inside Raft itself, so Raft's disk fails only where it stores log entries.
//
// A goroutine that waits for a sync.Mutex keeps virtual time from moving. Whoever holds one must not wait for the disk or
// the network; the watch in schedule.go ends the process with all stacks when that happens.
package nodesim
