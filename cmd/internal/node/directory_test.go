package node

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A directory follows a life that the cluster knows from a time when the clock was years ahead; an older one changes nothing.
func TestDirectoryFollowsALaterLife(t *testing.T) {
	fs, h := vfs.NewMem(), host.Real()
	open := func() *directory {
		t.Helper()
		d, err := openDirectory(fs, "/data", "a", "prod", false, h)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	ahead := d.life + ident.Incarnation(20*365*24*time.Hour)
	for _, life := range []ident.Incarnation{ahead, d.life - 1, 0} {
		if err := d.follow(life); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	next := open()
	defer next.Close()
	if next.life != ahead+1 {
		t.Errorf("the next life is %s, want %s", next.life, ahead+1)
	}
}
