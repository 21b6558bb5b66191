package node

import (
	"strings"
	"testing"
)

// Proves TR-5 where nothing can be set aside: it is said at the start, with what to do about it.
func TestFileSystemsThatReserveNothing(t *testing.T) {
	for kind, name := range map[uint64]string{
		0x2fc12fc1: "ZFS", 0x9123683e: "btrfs", 0xca451a4e: "bcachefs",
		0xef53: "", 0x58465342: "", 0x01021994: "", 0: "", // ext4, XFS, tmpfs
	} {
		why := unreserved(kind)
		if (why == "") != (name == "") || !strings.Contains(why, name) || name != "" && !strings.Contains(why, "quota") {
			t.Errorf("%#x: %q, want %q", kind, why, name)
		}
	}
}
