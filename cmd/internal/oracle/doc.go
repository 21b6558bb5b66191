// Package oracle judges what clients of a cluster saw. A Recorder takes down concurrent operations; the checks say what is
// wrong with a history: lost, repeated or invented writes, reads that fit into no order, sums that do not hold, copies that
// differ. The simulation of nodes and the tests with real processes share it.
//
// A check returns every finding as an error, joined, or nil. Guards are checks too: a history in which nothing happened, or
// faults that touched nothing, must fail a run.
package oracle
