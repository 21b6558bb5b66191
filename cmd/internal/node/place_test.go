package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/host"
)

// used returns a data directory with an identity, and its last life, which goes on.
func used(t *testing.T, path string) *directory {
	t.Helper()
	d, err := openDirectory(vfs.Default, path, "a", "demo", false, host.Real())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.save(); err != nil {
		t.Fatal(err)
	}
	return d
}

// Proves that a copied directory is refused: its lock ends no life, and no node starts on it under the old name, unless the
// operator says that it was moved. A directory that was renamed is no copy.
func TestCopiedDirectoryIsRefused(t *testing.T) {
	base := t.TempDir()
	original, copied, renamed := filepath.Join(base, "a"), filepath.Join(base, "copy"), filepath.Join(base, "renamed")
	d := used(t, original)
	if err := os.CopyFS(copied, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	if dead, err := FindDeadLife(Config{Node: "a", Data: copied}); !errors.Is(err, ErrForeignLock) || dead.Life != 0 {
		t.Errorf("the lock of a copy proves that life %s is over, while %s goes on: %v", dead.Life, d.life, err)
	}
	before, err := os.ReadFile(filepath.Join(copied, lifeFile))
	if err != nil {
		t.Fatal(err)
	}
	var refused *PreconditionError
	if _, err := openDirectory(vfs.Default, copied, "a", "demo", false, host.Real()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "server --moved") {
		t.Errorf("a copy starts under the old name: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(copied, lifeFile)); err != nil || string(after) != string(before) {
		t.Errorf("a refused start changed the life file to %q, %v", after, err)
	}
	if _, err := FindDeadLife(Config{Node: "a", Data: original}); !errors.Is(err, ErrStillRuns) {
		t.Errorf("the original: %v", err)
	}
	if err := errors.Join(d.Close(), os.Rename(original, renamed)); err != nil {
		t.Fatal(err)
	}
	if dead, err := FindDeadLife(Config{Node: "a", Data: renamed}); err != nil || dead.Life != d.life {
		t.Errorf("after its end, renamed: life %s, %v", dead.Life, err)
	}
	d = used(t, renamed)
	if err := d.Close(); err != nil || d.from != "" {
		t.Errorf("a renamed directory counts as a copy: %q, %v", d.from, err)
	}

	moved, err := openDirectory(vfs.Default, copied, "a", "demo", true, host.Real())
	if err != nil || moved.from == "" {
		t.Fatalf("moved on purpose: %v", err)
	}
	if err := moved.Close(); err != nil {
		t.Fatal(err)
	}
	if dead, err := FindDeadLife(Config{Node: "a", Data: copied}); err != nil || dead.Life != moved.life {
		t.Errorf("after a start at the new place: life %s, %v", dead.Life, err)
	}
	if err := used(t, copied).Close(); err != nil {
		t.Error(err)
	}
}

// What older versions wrote says no place, and is accepted; a record that cannot be read is not.
func TestLifeFileForms(t *testing.T) {
	dir := t.TempDir()
	if err := used(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, lifeFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("c0ffee\n")
	if dead, err := FindDeadLife(Config{Node: "a", Data: dir}); err != nil || dead.Life != 0xc0ffee {
		t.Errorf("life %s, %v", dead.Life, err)
	}
	if err := used(t, dir).Close(); err != nil {
		t.Errorf("refused: %v", err)
	}
	for _, content := range []string{"", "0\n", "rubbish\n", "c0ffee\nrubbish\n"} {
		write(content)
		if _, err := FindDeadLife(Config{Node: "a", Data: dir}); !errors.Is(err, errDamagedLife) {
			t.Errorf("%q shows a dead life: %v", content, err)
		}
		if _, err := openDirectory(vfs.Default, dir, "a", "demo", false, host.Real()); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q is accepted: %v", content, err)
		}
	}
}

// Proves which differences count: what a reboot changes keeps no node from starting, but it is no proof of a death either.
func TestPlacesThatDiffer(t *testing.T) {
	old := place{Inode: 7, Birth: 8, Volume: "v", Machine: "m", Boot: "b", Device: 9}
	for name, c := range map[string]struct {
		now            place
		copied, silent bool
	}{
		"the same":                    {old, false, false},
		"another file":                {place{17, 8, "v", "m", "b", 9}, true, true},
		"its inode used again":        {place{7, 18, "v", "m", "b", 9}, true, true},
		"a snapshot":                  {place{7, 8, "w", "m", "b", 10}, true, true},
		"the disk in another machine": {place{7, 8, "v", "n", "c", 9}, true, true},
		"after a reboot":              {place{7, 8, "v", "m", "c", 10}, false, true},
		"mounted from elsewhere":      {place{7, 8, "v", "m", "b", 10}, false, true},
		"nothing known":               {place{}, false, false},
		"a container":                 {place{7, 8, "v", "", "b", 9}, false, false},
	} {
		if got := old.copied(c.now) != ""; got != c.copied {
			t.Errorf("%s counts as a copy: %t (%s)", name, got, old.copied(c.now))
		}
		if got := old.silent(c.now) != ""; got != c.silent {
			t.Errorf("the lock proves nothing for %s: %t (%s)", name, got, old.silent(c.now))
		}
		if (place{}).silent(c.now) != "" {
			t.Errorf("%s differs from a place that is not known", name)
		}
	}
}
