package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-ha/understudy/internal/ident"
)

// place is where a data directory lies: what tells it from a copy of itself, whose lock is another lock. What is zero is not
// known and proves nothing. The first four survive a reboot; a device number does not, so it counts only within one boot.
type place struct {
	Inode   uint64 `json:"inode,omitempty"`   // of the LOCK file: a copy has another one, a renamed directory the same
	Birth   int64  `json:"birth,omitempty"`   // when that file was made, in ns: nothing that copies can set it
	Volume  string `json:"volume,omitempty"`  // id of the file system where a snapshot, with the same inodes, has another
	Machine string `json:"machine,omitempty"` // its machine id
	Boot    string `json:"boot,omitempty"`    // id of the boot, which no other machine has
	Device  uint64 `json:"device,omitempty"`  // number of the device in that boot
}

// copied says why a directory that lay at p, and lies at now, is a copy or came from another machine; "" if it does not show.
func (p place) copied(now place) string {
	switch {
	case differ(p.Inode, now.Inode), differ(p.Birth, now.Birth):
		return "its LOCK file is not the one that the node has used"
	case differ(p.Volume, now.Volume):
		return fmt.Sprintf("it lies on another file system or in another snapshot (%s, before %s)", now.Volume, p.Volume)
	case differ(p.Machine, now.Machine):
		return fmt.Sprintf("it lies on another machine (machine id %s, before %s)", now.Machine, p.Machine)
	}
	return ""
}

// silent says why the lock of a directory at now proves nothing about a life that was recorded at p; "" if it does. It asks for
// more than a start does: here a wrong answer ends the lease of a life, and no answer only lets it run out.
func (p place) silent(now place) string {
	switch why := p.copied(now); {
	case why != "":
		return why
	case differ(p.Boot, now.Boot):
		return "the life was recorded on another machine, or before this one was booted"
	case differ(p.Device, now.Device):
		return "the file system is mounted from another device than when the life was recorded"
	}
	return ""
}

// differ tells whether both are known and not the same.
func differ[T comparable](a, b T) bool {
	var unknown T
	return a != unknown && b != unknown && a != b
}

// machineID is the form of a machine id; a file that says "uninitialized", as in container images, has none.
var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// findPlace looks where the directory lies whose lock is held. A file system in memory has no places: all is zero.
func findPlace(fsys vfs.FS, dir string) (place, error) {
	lock := fsys.PathJoin(dir, "LOCK")
	info, err := fsys.Stat(lock)
	if err != nil {
		return place{}, fmt.Errorf("look where data directory %s lies: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return place{}, nil
	}
	p := place{Inode: stat.Ino, Device: stat.Dev}
	var more unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, lock, 0, unix.STATX_BTIME, &more); err == nil && more.Mask&unix.STATX_BTIME != 0 {
		p.Birth = more.Btime.Sec*1e9 + int64(more.Btime.Nsec)
	}
	var system unix.Statfs_t
	if err := unix.Statfs(dir, &system); err == nil {
		switch uint32(system.Type) {
		case unix.BTRFS_SUPER_MAGIC, zfsMagic:
			p.Volume = fmt.Sprintf("%08x%08x", uint32(system.Fsid.Val[0]), uint32(system.Fsid.Val[1]))
		case unix.FUSE_SUPER_MAGIC: // many make inode numbers up at each mount
			p.Inode, p.Birth = 0, 0
		}
	}
	if raw, err := os.ReadFile("/etc/machine-id"); err == nil && machineID.Match([]byte(strings.TrimSpace(string(raw)))) {
		p.Machine = strings.TrimSpace(string(raw))
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.Boot = strings.TrimSpace(string(raw))
	}
	return p, nil
}

const zfsMagic = 0x2fc12fc1

// lifeFile records the last life: its number, and in a second line, which older versions did not write, where it lived.
const lifeFile = "incarnation"

// recordLife replaces the life file.
func recordLife(fsys vfs.FS, dir string, life ident.Incarnation, at place) error {
	where, err := json.Marshal(at)
	if err == nil {
		err = writeAtomic(fsys, dir, lifeFile, []byte(strconv.FormatUint(uint64(life), 16)+"\n"+string(where)+"\n"))
	}
	if err != nil {
		return fmt.Errorf("record a new life in %s: %w", dir, err)
	}
	return nil
}

// readLife returns the last life and where it lived.
func readLife(fsys vfs.FS, dir string) (ident.Incarnation, place, error) {
	raw, err := readFile(fsys, fsys.PathJoin(dir, lifeFile))
	if err != nil {
		return 0, place{}, fmt.Errorf("read the last life in %s: %w", dir, err)
	}
	number, where, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
	var at place
	life, err := strconv.ParseUint(number, 16, 64)
	if err == nil && where != "" {
		err = json.Unmarshal([]byte(where), &at)
	}
	if err == nil && life == 0 {
		err = errors.New("a life is never 0")
	}
	if err != nil {
		return 0, place{}, fmt.Errorf("%w: %s: %w", errDamagedLife, fsys.PathJoin(dir, lifeFile), err)
	}
	return ident.Incarnation(life), at, nil
}

var errDamagedLife = errors.New("the record of the last life is damaged")
