package node

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// EventNotReserved tells that the data directory lies on a file system where nothing can be set aside.
const EventNotReserved = "SPACE_NOT_RESERVED"

// copying lists file systems that write everything to a new place, or compress it, so that neither zeros nor fallocate keep space for
// what is written later. The numbers are f_type of statfs.
var copying = map[uint64]string{
	0x2fc12fc1: "ZFS",
	0x9123683e: "btrfs",
	0xca451a4e: "bcachefs",
	0x3434:     "NILFS",
}

// unreserved says, of the file system with an f_type, that journals cannot set space aside on it; "" when they can, as far as known.
func unreserved(kind uint64) string {
	name := copying[kind]
	if name == "" {
		return ""
	}
	return fmt.Sprintf("the data directory lies on %s, which sets no space aside for what is written later: when it is full, a write that was admitted already can fail, and the journal is then not used any more until "+
		"the node is restarted; keep it from filling up by a quota or reservation of its own, or use ext4 or XFS (see docs/journal.md, Space)", name)
}

// warnOfFileSystem tells of a file system on which a full disk is not met in time.
func (n *Node) warnOfFileSystem(dir string) {
	var system unix.Statfs_t
	if unix.Statfs(dir, &system) != nil {
		return // a file system of a test, or one that does not say
	}
	if why := unreserved(uint64(uint32(system.Type))); why != "" {
		n.log.Warn(why, "data", dir)
		n.events.add("warning", "", EventNotReserved, why, map[string]string{"data": dir})
	}
}
