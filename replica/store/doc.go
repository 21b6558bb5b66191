// Package store keeps the records of all groups of one node in one Pebble database.
//
// The journals are the write-ahead log, so Pebble's own is off. Every batch of a group carries the group's history
// position with the changes that lead to it. Pebble flushes memtables in the order in which they were written and a batch
// is atomic, so after a crash the store holds, for each group, exactly the content of some earlier position, and
// Group.Position says which. The journals bring it forward from there. Until a position is flushed nobody may delete what
// leads to it; Group.Flushed says how far that is.
//
// # Key map (part of the format)
//
//	01 "format"                              -> version of this map, one byte, now 2
//	02 name(group)                           -> position: epoch u64, h u64, little endian
//	03 name(group) name(file) key            -> record: see docs/formats/store.md
//	04 name(group) expiry name(file) key     -> nothing: the record expires then
//
// A name is its bytes with 00 written as 00 FF, closed by 00 01. So no name is a prefix of another one, names sort as
// their bytes do, and the order (group, file, key) is the order of the database. A Group builds every key and every
// bound with its own name in front: it cannot reach another group's records. A first byte not listed is unused.
//
// The rows 04 are an index: a row stands there exactly for every record with an expiry, since Apply changes both in one batch,
// whatever it applies or undoes. They follow from the records, so they are no part of a group's content and of its digest.
//
// # Records in memory
//
// Records that were looked at lately are answered from memory, bounded in bytes for all groups together; recent.go says why that is never
// stale. It is in this package because every change of a record goes through Apply: of a primary, of a backup, and of an undo. A batch
// brings nothing in that nobody looked at, so a backup keeps nothing there. Scan and Digest do not use it.
//
// # Failure
//
// An error inside Pebble that leaves its state unsure (MANIFEST, commit, corruption, a flush that keeps failing, a call
// that does not come back) fails the store for good: from then on nothing is written by this process (a fuse between
// Pebble and the file system is blown), every call returns a *FailedError, and Options.OnFatal is told once. Recovery is a
// new process: it finds a prefix, and the journals do the rest. Calls that write run on a goroutine of their own, so
// that a caller gets its error even when Pebble never returns; such goroutines are abandoned with the database.
//
// # Goroutines
//
// The watcher re-reads the flushed positions after each flush; the reporter calls OnFatal. Close joins both.
//
// It does not: know roles, epochs in force or journals; decide what may be applied; delete what has expired, it only finds it.
package store
