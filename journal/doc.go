// Package journal keeps one journal of a group on disk: the local one, which is deposited here, or a copy of another node's.
// It knows no roles, no peers and no database.
//
// A journal is a chain of receivers <Dir>/<number>.rcv and a small file <Dir>/state. A receiver is a header of 4096 bytes, then
// bundles (package entry) one after the other, then zeros. Its first bundle holds J PR, and once it is detached its last one
// holds J NR; both take a sequence and no history position, and stand alone in their bundles. A copy is identical to the byte,
// header included. All integers are little endian.
//
// Receiver header:
//
//	   0  8    "USRECEIV"
//	   8  u32  version           1
//	  12  u32  number            from 1
//	  16  u64  first             sequence of its first bundle
//	  24  u64  start.epoch       history at the start, so that receivers without a new run need not be read when the journal is
//	  32  u64  start.h           opened; zero: no fact yet
//	  40  u64  chain             checksum over all bundles before; of the first receiver 0
//	  48  i64  created           unix nanoseconds
//	  56  u64  run.first         the run in progress at the start, from its very beginning: first sequence of its first bundle
//	  64  u64  run.last          with facts, last sequence of its newest one, and the position that it continues. Its facts
//	  72  u64  run.before.epoch    are start.epoch, run.before.h+1 .. start.h. Two neighbouring headers with the same run say
//	  80  u64  run.before.h        that no other run began between them. All zero: no fact yet
//	  88       zeros
//	 256  u8, 255 bytes          length and name of the cluster
//	 512  u8, 255 bytes          length and name of the group
//	 768  u8, 255 bytes          length and name of the node that writes the journal
//	1024       zeros
//	4092  u32  checksum          CRC-32C of all before
//
// The state file, 1536 bytes in three sectors of 512, each of which the disk writes whole or not at all:
//
//	   0  8    "USSTATE\n"
//	   8  u32  version           1
//	  12  u8   state             1 ACTIVE, 2 INACTIVE, 3 STANDBY
//	  13  u8   flags             1 deposited here, 2 received from another node, 4 torn, 8 a removal is going on
//	  16  u64  rewind            the removal's last sequence that stays
//	 508  u32  checksum          CRC-32C of all before
//	 512  36   slot              u64 counter, u64 durable mark, u32 CRC-32C of both, u8 state, u8 flags, u16 zero, u64 rewind,
//	                             u32 CRC-32C of all before
//	1024  36   slot              the whole one with the higher counter is valid
//
// The slots are overwritten in turns, in place: with the mark after each sync of a receiver, without a sync of their own, since the
// mark says after a crash what was synced at least; with another state or flags synced, and then once more everywhere else. So
// no change needs space. Where state is zero in a slot, as earlier releases wrote it, that of the first sector counts.
//
// What is assumed of the disk: a sync that returned nil is true; an unsynced write may be there in part, in any order, in
// sectors of 512 bytes; renames, creations and removals hold once the directory was synced. A failed write or sync is final.
//
// Beside them stand spare receivers, files of zeros named <n>.spare. A full disk is an error of the call that needs space, FullError, before anything is numbered; docs/journal.md says how.
//
// DESIGN.md says how recovery tells a torn tail from corruption, and who owns what.
package journal
