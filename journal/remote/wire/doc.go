// Package wire is the format of what a shipping session says: frames on one TCP connection between the source of a
// journal and one target. It is pure: it knows no journal, no session and no clock. Package remote speaks it.
//
// # Frame
//
// All integers are little endian. A frame is a header of 24 bytes and a payload.
//
//	offset  size
//	     0     4   length of the payload in bytes
//	     4     1   type; zero is invalid
//	     5     1   version of the format
//	     6     2   zero
//	     8     8   epoch of the session
//	    16     4   CRC32C (Castagnoli) of the payload
//	    20     4   CRC32C of the 20 bytes before it
//	    24     -   payload
//
// The header has a checksum of its own, so that a flipped bit in the length is found before a buffer is made for it. The
// epoch stands in every frame, since a node that promised a higher one refuses the older in every frame, not only in
// Hello; the epoch inside a bundle is history and proves nothing about its sender. The 24 bytes keep their meaning in all
// versions, and so does the payload of Refuse: a peer of another version can be told why it is turned away.
//
// # Payloads
//
// A string is one byte of length and as many bytes. A flag byte has no bit set beyond those listed.
//
//	 1 Hello      source   version u16, flags u8 (1 free), epoch u64, session u64, life u64, end u64,
//	                       cluster, group, node, from, to: strings
//	 2 Offer      target   flags u8 (1 last, 2 checked), count u16 (at most 512), count x (sequence u64, chain u64), descending
//	 3 Match      source   flags u8 (1 found, 2 shorter), sequence u64, chain u64, end u64
//	 4 Start      target   flags u8 (1 idle, 2 ranges), from u64, window u64
//	 5 Receiver   source   the 4096 bytes of a receiver's header
//	 6 Bundle     source   a bundle as it stands in the journal
//	 7 Progress   source   durable u64, committed u64, committed position (epoch u64, h u64)
//	 8 Heartbeat  both     nothing
//	 9 Ack        target   received u64, durable u64, held (epoch u64, h u64), applied (epoch u64, h u64)
//	10 Refuse     target   code u16, text: up to 1024 bytes, to the end of the payload
//	11 Credit     target   bytes u64
//	12 End        source   code u16
//	13 Level      source   position (epoch u64, h u64), heard u64
//	14 Range      source   receiver u32, length u32, offset u64, first u64; length bytes follow the frame
//	15 Begin      source   flags u8 (1 found), sequence u64, chain u64, after u64, first u64
//
// # Ranges
//
// A Range announces bytes that follow it outside of any frame: whole bundles, as they stand in a receiver's file, so that the
// kernel can send them from there. They have the checksums of bundles only, and of no frame. After the last of them comes the
// next frame. A source sends ranges, and compressed bundles, only to a target whose Start says so; a target says it only to a
// source whose Hello names version 2 or later.
//
// # Limits
//
// A payload is never longer than its type allows, a frame never longer than MaxFrame, and before Hello was accepted never
// longer than MaxBeforeHello. A reader makes room for a long payload in steps, as the bytes arrive: a length that is only
// claimed costs the peer nothing and us nothing.
package wire
