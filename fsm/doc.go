// Package fsm is the replicated role state: what Raft agrees on, and the rules by which it changes.
//
// State.Apply is pure and deterministic: no clock, no randomness, no I/O, no map order. Times inside come from the
// proposer and are shown, never decided upon. Every command is a compare-and-set on epoch, set version, operation or
// life, so a command that arrives late, twice or from somebody who does not know better is refused and changes nothing.
//
// # The life of an epoch
//
//	          Fence                 Promote                 Open
//	opened ─────────────► fenced ─────────────► promoted ─────────────► opened
//	epoch e    epoch e+1    ▲  nodes Promise       │ one node,            Primary may serve,
//	   │                    │  and report          │ one life             rows and set replaced
//	   │                    └──────── Fence ───────┘ (the chosen one died)
//	   └─ Handover: epoch e+1 is opened by another node at once, row and set in the command
//
// An epoch has at most one primary, and of that node one life: Promote and Handover name both, Open repeats them. Nothing
// leads back to an older epoch. In PhaseFenced nobody is primary; Primary then names the node that was fenced.
//
// # Covers
//
// A Renew covers the groups that its Result lists in Covers, and no others: those of which the node is primary, promoted or
// opened, in the renewing life. Result.Ended lists the groups whose primary's cover ended for certain with the command,
// because that life is known to be over (Release, Renew by the next life) or gave the role away (Handover). A life that is
// over can never renew again, even if its command was under way for long: it would end the cover of the life after it.
// Renewals of one life are numbered. One that arrives after a later one (Result.Passed) covers nothing, and what it tells of
// the node's copies is not taken over what is known already.
//
// # Orders
//
// A pause and the maintenance of a node are what an operator ordered for a while. They move no role. Commands that nobody
// asked for say so (Automatic), and the State refuses to let them begin during a pause; MayFence and MayJoin say what a
// pause does not stop. The end of an order is a command, too: no clock is read here.
//
// # Sharing
//
// A State hands out Snapshots that share everything with it. Apply therefore never changes a map, slice or struct
// reachable from the State: it copies what it changes, one level at a time, and replaces it. A renewal copies one Node and
// the map of nodes. The Machine is the adapter to hashicorp/raft.
//
// docs/formats/raft.md describes commands and snapshots as they are stored.
package fsm
