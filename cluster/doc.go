// Package cluster is the control plane of one node: the Raft group that replicates fsm.State, the gossip that tells who
// is reachable, and the node lease that lets a primary serve.
//
// One listener carries both Raft and the control protocol; the first byte of a connection tells them apart. A node
// proposes commands through Cluster.Propose wherever the Raft leader is, reads Cluster.State, and asks Cluster.CheckLease
// after the work and before the reply. Safety never depends on gossip, on who Raft says is leader, or on a timer: only
// applied commands and comparisons of CLOCK_BOOTTIME decide. DESIGN.md beside this file gives the reasons.
package cluster
