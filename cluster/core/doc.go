// Package core holds the decisions of the control plane as pure code: how leases are counted, and what the Raft leader does
// next. It gets the state, applied commands and clock readings, and returns what follows from them. It starts nothing,
// waits for nothing, reads no clock and takes no lock; package cluster does all that around it, and the simulator does it
// with a clock and a network of its own.
package core
