package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Proves HB-6: the keys of the archive, and what is refused.
func TestArchiveConfiguration(t *testing.T) {
	read := func(archive string) (Config, error) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		text := "node: a\ncluster: test\ndata: " + t.TempDir() + "\nbootstrap: true\n" + archive
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readConfig(path, func(string) (string, bool) { return "", false })
	}
	c, err := read("archive: {url: \"file:///backup/understudy\", after: 90s, rate: 50MiB, keep_local: 0}\n")
	if err != nil || c.Archive.Rate != 50<<20 || c.Archive.After != 90*time.Second || c.Archive.KeepLocal == nil || *c.Archive.KeepLocal != 0 {
		t.Fatalf("%+v %v", c.Archive, err)
	}
	if c, err = read(""); err != nil || c.Archive != (Archive{}) {
		t.Fatalf("%+v %v", c.Archive, err)
	}
	for _, taken := range []string{`{url: "file:///x", after: 0s}`, `{url: "file:///x", rate: 64KiB}`, `{url: "file:///x", rate: 0}`} {
		if _, err := read("archive: " + taken + "\n"); err != nil {
			t.Errorf("%s: %v", taken, err)
		}
	}
	for archive, want := range map[string]string{
		`{url: "file://relative"}`:               "archive.url",
		`{url: "gs://bucket"}`:                   "archive.url",
		`{after: 5s}`:                            "archive.url: is missing",
		`{url: "file:///x", after: -1s}`:         "archive.after",
		`{url: "file:///x", rate: 1KiB}`:         "archive.rate",
		`{url: "file:///x", rate: 65535}`:        "archive.rate",
		`{url: "file:///x", rate: fast}`:         "no number of bytes",
		`{url: "file:///x", keep_local: -1}`:     "archive.keep_local",
		`{url: "file:///x", somewhere: "else"}`:  "somewhere",
		`{url: "s3://bucket/p", rate: "-50MiB"}`: "no number of bytes",
	} {
		if _, err := read("archive: " + archive + "\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", archive, err)
		}
	}
}
