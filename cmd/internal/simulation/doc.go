// Package simulation runs the decisions of the product (fsm, cluster/core, replica/core) in small random worlds: nodes with
// clocks that drift, disks that lose what was not synced, a network that loses, delays and cuts, processes that crash,
// restart and stand still, and a Raft log that every node applies at its own pace. One goroutine plays one world, event by
// event, from one seed, so a seed replays byte for byte.
//
// What decides is the product's own code. What carries it out is modelled here: journals are lists of bundles, a store is a
// position, a session is a queue of messages. After every event, and at the end when all faults are over, the oracles look
// for a broken invariant; its number (S1 to S28) stands in the failure.
package simulation
