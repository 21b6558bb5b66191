// Package entry is the byte format of journal entries and bundles. It is pure: no I/O, no clock, no goroutine.
//
// A bundle is what one group commit writes: a header, the entries, and zero bytes up to a multiple of 8. The same bytes stand
// in the receiver file, travel to the remote journals and stand there, so two copies can be compared by address. All
// integers are little endian. A bundle never begins with a zero byte, so the zeros ahead of the write position in a receiver
// can not be taken for one.
//
// Header, 112 bytes:
//
//	  0  u32  magic "USBN"      tells a bundle from anything else when a receiver is searched
//	  4  u32  length            of the whole bundle with header and padding; a multiple of 8, at most 64 MiB
//	  8  u16  flags             1 local, 2 echo, 4 compressed; other bits zero
//	 10  u8   version           1
//	 11  u8   zero
//	 12  u32  count             entries, at least 1; they take the sequences first .. first+count-1
//	 16  u32  facts             entries that take a history position
//	 20  u32  body checksum     CRC-32C of everything after the header, padding included
//	 24  u64  session           epoch in which it was deposited; the fence is the session's epoch, this one is history
//	 32  u64  first             sequence of the first entry
//	 40  u64  before.epoch      the history before the bundle, so that appliers can insist on it and branches can be walked;
//	 48  u64  before.h          zero only together
//	 56  u64  fact.epoch        epoch in which the facts were first sequenced; zero without facts. The facts take
//	                            before.h+1 .. before.h+facts, so their h is not stored
//	 64  u64  origin            re-journaled: first sequence in the journal it came from; else zero
//	 72  i64  time              unix nanoseconds; kept when re-journaled
//	 80  u64  chain             checksum over all bundles before this one, see NextChain
//	 88  u64  durable           what was durable at the source when the bundle was sealed; less than first
//	 96  u64  committed         what was committed there; less than first
//	104  u32  zero
//	108  u32  header checksum   CRC-32C of bytes 0 to 107
//
// Entry, 24 bytes and what they announce, one after the other without padding:
//
//	 0  u32  length            of the whole entry
//	 4  u8   code              R C J U
//	 5  2    type              two capital letters or digits
//	 7  u8   parts             1 before-image, 2 before-image left out, 4 after-image, 8 data, 16 the before-image has a kind,
//	                            32 the after-image has one
//	 8  i64  time              unix nanoseconds
//	16  u32  back              how many entries back its transaction begins; zero: here
//	20  u16  key length        at most 4096
//	22  u8   file length
//	23  u8   zero
//	24       file, key
//	         before-image:     u64 epoch, u64 h, i64 time, i64 expiry, u8 kind (parts 16), u32 length, value
//	         after-image:      i64 expiry, u8 kind (parts 32), u32 length, value (position and time are the entry's own)
//	         data:             u32 length, bytes
//
// In a compressed bundle the header is followed by u32 expanded, u32 stored, one frame of zstd and padding; expanded it is the
// entries. J PR and J NR never stand in one, and every entry takes at least a byte of it.
//
// Decoding allocates nothing but the entries it returns, whose slices point into the bundle, so a forged length can not make
// it allocate; a compressed bundle costs what it expands to, at most MaxBundle, and not before its claims fit together. The format is final; a change takes a new version number.
package entry
