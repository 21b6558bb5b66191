package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/understudy-ha/understudy/internal/host"
	"github.com/understudy-ha/understudy/internal/ident"
)

// identity is what a data directory remembers of itself. It is written when the node has found its cluster: a start that was
// refused before leaves a directory that any node may use.
type identity struct {
	Format    int               `json:"format"`
	Node      ident.NodeID      `json:"node"`
	Name      string            `json:"cluster"`
	Cluster   ident.ClusterID   `json:"cluster_id,omitempty"`
	Directory ident.DirectoryID `json:"directory"`
	Protocol  ident.Protocol    `json:"protocol,omitempty"` // of the build that started from it last; since format 2
}

// identityFormat is 2 since the identity knows the protocol: builds from before it must not start from what a later one wrote.
const (
	identityFormat   = 2
	identityUnstated = 1 // without a protocol
)

// directory is the locked data directory of one node: its identity and the life that uses it.
type directory struct {
	fs   vfs.FS
	path string
	life ident.Incarnation
	lock io.Closer
	here place          // where it is
	own  ident.Protocol // of this build
	from string         // why it counted as a copy, when the operator said that it was moved; else ""

	mu host.Turn // held while the identity is written
	id identity
}

// openDirectoryFor locks path, checks that no newer build than one of the given protocol used it, that it belongs to this node and
// cluster and is no copy, and records a new life in it. moved: the operator vouches for a directory that looks like one.
func openDirectoryFor(protocol ident.Protocol, fs vfs.FS, path string, node ident.NodeID, cluster string, moved bool, h host.Host) (_ *directory, err error) {
	if err := fs.MkdirAll(path, 0o750); err != nil {
		return nil, &PreconditionError{fmt.Errorf("create data directory %s: correct `data`, or let this user write there: %w", path, err)}
	}
	if err := syncDirectory(fs, fs.PathDir(path)); err != nil {
		return nil, fmt.Errorf("make data directory %s durable: %w", path, err)
	}
	lock, err := fs.Lock(fs.PathJoin(path, "LOCK"))
	if err != nil {
		return nil, &PreconditionError{fmt.Errorf("data directory %s is in use by another process: stop it first, or give this node a directory of its own: %w", path, err)}
	}
	d := &directory{fs: fs, path: path, lock: lock, own: protocol, mu: host.NewTurn()}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	here, err := findPlace(fs, path)
	if err != nil {
		return nil, err
	}
	last, from, err := lastLife(fs, path, here)
	if err != nil {
		return nil, err
	}
	raw, err := readFile(fs, d.file("identity.json"))
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, &d.id); err != nil {
			return nil, fmt.Errorf("%s is damaged; restore it from a save of this directory, or start the node with an empty directory: %w", d.file("identity.json"), err)
		}
		if d.id.Format != identityFormat && d.id.Format != identityUnstated {
			return nil, &PreconditionError{fmt.Errorf("data directory %s has format %d, this program writes %d: use the version that wrote it", path, d.id.Format, identityFormat)}
		}
		if d.id.Protocol > protocol {
			return nil, &PreconditionError{fmt.Errorf("data directory %s of node %s was used by a newer build: its protocol is %s, this build's is %s; nothing was changed: start the newer build "+
				"(`understudy version` prints the number), or restore a save of the directory from before", path, d.id.Node, d.id.Protocol, protocol)}
		}
		if d.id.Node != node {
			return nil, &PreconditionError{fmt.Errorf("data directory %s belongs to node %q, the configuration says node %q: correct `data` or `node`, or empty the directory if %q never held records there", path, d.id.Node, node, d.id.Node)}
		}
		if d.id.Name != cluster {
			return nil, &PreconditionError{fmt.Errorf("data directory %s belongs to cluster %q, the configuration says cluster %q: correct `data` or `cluster`, or empty the directory if nothing in it is needed", path, d.id.Name, cluster)}
		}
		d.from = from
		if d.from != "" && !moved {
			return nil, &PreconditionError{fmt.Errorf("data directory %s belongs to node %q, but %s: it is a copy, or was moved here. Two processes with one identity break the cluster: to add a node give it a name and an empty directory of its own; only if the directory was moved on purpose, and nothing will ever start from the old place again, start the node once with `understudy server --moved`", path, d.id.Node, d.from)}
		}
	case errors.Is(err, os.ErrNotExist):
		d.id = identity{Format: identityFormat, Node: node, Name: cluster, Directory: ident.DirectoryID(fmt.Sprintf("%016x%016x", h.Random(), h.Random()))}
	default:
		return nil, fmt.Errorf("read identity of data directory: %w", err)
	}
	// The clock only helps a directory that was set back to an old state: its next life follows those that it has forgotten, too.
	d.here, d.life = here, max(last+1, ident.Incarnation(max(0, h.Clock.Now().UnixNano())))
	if err := recordLife(fs, path, d.life, here); err != nil {
		return nil, err
	}
	return d, nil
}

// follow has the next life follow one that the cluster knows and this directory has forgotten, though the clock may be behind it for years.
func (d *directory) follow(life ident.Incarnation) error {
	if life <= d.life {
		return nil
	}
	return recordLife(d.fs, d.path, life, d.here)
}

// lastLife returns the life before this one, 0 if none is known, and says why a directory that belongs to a node is a copy of the
// one it used; "" if that does not show.
func lastLife(fs vfs.FS, path string, here place) (ident.Incarnation, string, error) {
	life, recorded, err := readLife(fs, path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, "", nil
	case errors.Is(err, errDamagedLife):
		return 0, err.Error(), nil
	case err != nil:
		return 0, "", err
	}
	return life, recorded.copied(here), nil
}

func (d *directory) file(name string) string { return d.fs.PathJoin(d.path, name) }

func (d *directory) save() error {
	raw, err := json.MarshalIndent(d.id, "", "  ")
	if err != nil {
		return err
	}
	if err := writeAtomic(d.fs, d.path, "identity.json", append(raw, '\n')); err != nil {
		return fmt.Errorf("write identity of data directory: %w", err)
	}
	return nil
}

// ClusterID returns the id of the cluster this directory belongs to, "" while it has not joined one.
func (d *directory) ClusterID() ident.ClusterID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Cluster
}

// SetClusterID binds the directory to a cluster for ever.
func (d *directory) SetClusterID(c ident.ClusterID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.Cluster == c {
		return nil
	}
	if d.id.Cluster != "" {
		return fmt.Errorf("data directory %s belongs to cluster %s, not to %s", d.path, d.id.Cluster, c)
	}
	d.id.Cluster = c
	d.id.Format, d.id.Protocol = identityFormat, d.own
	return d.save()
}

// adopt records that this build starts from the directory: no older one may after it. It is called when nothing speaks against the
// start, before anything else is written.
func (d *directory) adopt() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.Cluster == "" || d.id.Format == identityFormat && d.id.Protocol == d.own {
		return nil
	}
	d.id.Format, d.id.Protocol = identityFormat, d.own
	return d.save()
}

func (d *directory) Close() error { return d.lock.Close() }

// writeAtomic replaces a small file so that a crash leaves the old or the new content.
func writeAtomic(fs vfs.FS, dir, name string, content []byte) error {
	temp := fs.PathJoin(dir, name+".new")
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := fs.Rename(temp, fs.PathJoin(dir, name)); err != nil {
		return err
	}
	return syncDirectory(fs, dir)
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(f)
	return raw, errors.Join(err, f.Close())
}
