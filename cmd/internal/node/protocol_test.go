package node

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// openDirectory is openDirectoryFor this build.
func openDirectory(fs vfs.FS, path string, node ident.NodeID, cluster string, moved bool, h host.Host) (*directory, error) {
	return openDirectoryFor(ident.CurrentProtocol, fs, path, node, cluster, moved, h)
}

// TestDirectoryOfANewerBuild: a data directory that a newer build used is refused before anything in it is changed; one of an older
// build, or from before there was a number, is taken, and is the newer build's from then on.
func TestDirectoryOfANewerBuild(t *testing.T) {
	fs, h := vfs.NewMem(), host.Real()
	open := func(p ident.Protocol) (*directory, error) {
		return openDirectoryFor(p, fs, "/data", "a", "prod", false, h)
	}
	use := func(p ident.Protocol) {
		t.Helper()
		d, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.adopt(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
	d, err := open(7)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.SetClusterID("c1"), d.Close()); err != nil {
		t.Fatal(err)
	}
	before := filesOf(t, fs, "/data")
	if !strings.Contains(before["identity.json"], `"protocol": 7`) {
		t.Fatalf("the identity does not know the build: %s", before["identity.json"])
	}
	var refused *PreconditionError
	if _, err := open(6); !errors.As(err, &refused) || !strings.Contains(err.Error(), "protocol is 7, this build's is 6") {
		t.Fatalf("got %v", err)
	}
	for name, was := range before {
		if now := filesOf(t, fs, "/data")[name]; now != was {
			t.Errorf("%s was changed: %q, now %q", name, was, now)
		}
	}
	use(8)
	if _, err := open(7); !errors.As(err, &refused) {
		t.Fatalf("the directory was used by a newer build since: %v", err)
	}

	// From before there was a number.
	old := strings.NewReplacer(`"format": 2`, `"format": 1`, `,
  "protocol": 8`, "").Replace(filesOf(t, fs, "/data")["identity.json"])
	if strings.Contains(old, "protocol") || !strings.Contains(old, `"format": 1`) {
		t.Fatalf("not an old identity: %s", old)
	}
	if err := writeAtomic(fs, "/data", "identity.json", []byte(old)); err != nil {
		t.Fatal(err)
	}
	use(3)
	if now := filesOf(t, fs, "/data")["identity.json"]; !strings.Contains(now, `"format": 2`) || !strings.Contains(now, `"protocol": 3`) {
		t.Fatalf("it is still open to old builds: %s", now)
	}
}

// filesOf returns the files of a directory, without the lock.
func filesOf(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range names {
		if name == "LOCK" {
			continue
		}
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		out[name] = string(raw)
	}
	return out
}
