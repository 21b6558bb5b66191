package archive

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // opens s3:// addresses
)

// Check tells what is wrong with the address of an archive, or nil. It does not go there.
func Check(address string) error {
	_, err := parse(address)
	return err
}

// Shown is the address without what may be a secret, for logs, events and answers.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	have, keep := u.Query(), url.Values{}
	for _, name := range []string{"region", "endpoint"} {
		if v := have.Get(name); v != "" {
			if e, err := url.Parse(v); err != nil {
				v = "…"
			} else {
				e.User, e.RawQuery = nil, ""
				v = e.String()
			}
			keep.Set(name, v)
		}
	}
	u.User, u.RawQuery, u.Fragment = nil, keep.Encode(), ""
	return u.String()
}

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no address of an archive: %w", address, err)
	case u.User != nil:
		return nil, fmt.Errorf("%s has credentials in the address of the archive: leave them out, and put them where the AWS tools look for them", Shown(address))
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path) && u.RawQuery == "":
		return u, nil
	case u.Scheme == "s3" && u.Host != "":
		return u, nil
	}
	return nil, fmt.Errorf("%q is no address of an archive: want file:///absolute/folder or s3://bucket/prefix?region=…", address)
}

// Open opens the archive at an address: file:///folder, which is made when it is missing unless o.Find, or s3://bucket/prefix with the driver's
// parameters (region, endpoint, …); credentials come from where the AWS tools look for them.
func Open(ctx context.Context, address string, o Options) (*Archive, error) {
	u, err := parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		dir := filepath.Clean(u.Path)
		// Temporary files stand beside the objects: a rename does not cross file systems.
		bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{CreateDir: !o.Find, NoTempDir: true, Metadata: fileblob.MetadataDontWrite, DirFileMode: 0o755})
		if err != nil {
			return nil, fmt.Errorf("open archive %s: %w", Shown(address), err)
		}
		for up := filepath.Dir(dir); ; up = filepath.Dir(up) { // the folder may have been made now
			if d, err := os.Open(up); err == nil { // not everybody may read what is far above; that was not made here
				_ = errors.Join(d.Sync(), d.Close())
			}
			if up == filepath.Dir(up) {
				break
			}
		}
		a := New(bucket, o)
		a.settle = func(key string) error { return settleFile(dir, key) }
		return a, nil
	}
	prefix := strings.Trim(u.Path, "/")
	u.Path = ""
	bucket, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("open archive %s: %w", Shown(address), err)
	}
	if prefix != "" {
		bucket = blob.PrefixedBucket(bucket, prefix+"/")
	}
	return New(bucket, o), nil
}

// settleFile syncs a finished object of a folder and the directories that name it: the driver renames, but does not sync, and
// receivers are deleted because of what is archived.
func settleFile(dir, key string) error {
	path := filepath.Join(dir, filepath.FromSlash(key))
	for {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("sync archived receiver: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync archived receiver: %w", err)
		}
		if path == dir || len(path) < len(dir) {
			return nil
		}
		path = filepath.Dir(path)
	}
}
