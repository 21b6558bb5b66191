// Package replica is one group's copy of the data on one node: its journals, its part of the store, and the role that the
// node plays for the group at the moment.
//
// A role is the lifetime of one call. RunPrimary plays the primary of one epoch: it makes the best branch held here the
// history (takeover) or continues after a planned Handover, has Raft open the epoch, then sequences writes, ships them,
// commits what the in-sync set holds, and decides with Raft who belongs to that set. RunBackup follows whoever is primary:
// it undoes what is outside the history, applies what is committed and durable here, and removes tails of copies that live
// on elsewhere. Between them stand the promises: Promise makes an epoch durable, and from its return on no session or frame
// of an older epoch changes anything here.
//
// What the replica needs of the control plane comes in as Control; what it is to other nodes' shipping sessions is a
// remote.Admission. It knows neither Raft nor the network.
//
// The decisions are pure and stand in files of their own: chain.go (which branch do these journals form), commit_rule.go
// (what may be acknowledged), members.go (who belongs to the set), the cut rule in admission.go (what may be removed).
// DESIGN.md beside this file gives the invariants, the goroutines and the failure modes.
package replica
