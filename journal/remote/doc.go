// Package remote ships a journal from one node to another: RunSource on the side that has it, Serve on the side that keeps
// a copy. A copy is identical to the byte, receiver headers included.
//
// One session is one TCP connection for one (group, journal, target), dialled by the source. The two sides find the
// highest bundle end at which their chains agree, the target removes what lies beyond it if its Host allows, and from
// there on the source sends: first from its files, then what is appended, without a seam between the two. What lies far
// behind goes as ranges of receiver files, which the kernel sends where file and connection are its own. The target
// acknowledges what it received, what its own disk holds, and what its Host says about the group as a whole.
//
// The package decides nothing about roles. Who may ship, what may be removed and which epoch still counts is asked of the
// Host at the last gate, frame by frame; the session only makes sure that it is asked. DESIGN.md beside this file holds
// the invariants, the goroutines and the failure modes; package wire holds the format.
package remote
