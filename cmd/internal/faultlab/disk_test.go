package faultlab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// diskSize leaves room for a store, two journals and Raft's log, and some minutes of the workload.
const diskSize = 64 << 20

// disks mounts a disk for each node named. They go after the lab.
func disks(t *testing.T, names ...string) (map[string]*Disk, map[string]string) {
	t.Helper()
	all, dirs := map[string]*Disk{}, map[string]string{}
	root, err := os.MkdirTemp(*keepFlag, "understudy-faultlab-disks-")
	must(t, err)
	t.Cleanup(func() {
		for _, d := range all {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		dir := filepath.Join(root, name)
		d, err := MountDisk(dir, diskSize)
		if errors.Is(err, ErrNotRoot) {
			t.Skip(err)
		}
		must(t, err)
		all[name] = d
		dirs[name] = filepath.Join(dir, "data")
	}
	return all, dirs
}

// Proves S19 and the row ENOSPC: the disk of a primary, or of a secondary, fills under load. Nothing acknowledged is lost, the cluster
// goes on without that node, and the node comes back when there is space again.
func TestDiskFills(t *testing.T) {
	for _, whose := range []string{"primary", "secondary"} {
		t.Run(whose, func(t *testing.T) {
			mounted, dirs := disks(t, "a", "b", "c")
			s := tell(t, true, Options{Data: dirs})
			victim := s.primary
			if whose == "secondary" {
				g, err := s.primary.Client.Group(t.Context(), group)
				must(t, err)
				if len(g.InSync) == 0 {
					t.Fatal("nobody is in sync")
				}
				victim = s.Node(g.InSync[0])
			}
			must(t, mounted[victim.Name].Fill())
			must(t, Await(t.Context(), "the node notices", 30*time.Second, func(ctx context.Context) error {
				if !victim.Running() || strings.Contains(victim.Log(), "no space left on device") {
					return nil
				}
				return errors.New("it does not")
			}))
			s.goesOn()
			if !sleep(t.Context(), lease) {
				t.Fatal(t.Context().Err())
			}
			s.goesOn()
			t.Logf("the node whose disk is full runs: %v", victim.Running())
			if !victim.Running() { // started again while there is no space: it must not do harm
				must(t, victim.Start())
				sleep(t.Context(), time.Second)
				s.goesOn()
			}
			must(t, mounted[victim.Name].Release())
			if victim.Running() { // a failed journal stays failed until a restart
				sleep(t.Context(), time.Second)
			}
			if g, err := victim.local(t.Context()); victim.Running() && (err != nil || g.Local.Error != "") {
				t.Logf("the node does not go on by itself and is restarted: %v, %s", err, g.Local.Error)
				victim.Kill()
			}
			s.end()
		})
	}
}
