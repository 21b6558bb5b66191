package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Unattended locks the data directory of a node that does not run, and says whose it is. Until the lock is closed no node starts there.
// A directory that no node has used yet belongs to nobody.
func Unattended(fs vfs.FS, path string) (node ident.NodeID, cluster ident.ClusterID, lock io.Closer, err error) {
	if _, err := fs.Stat(path); err != nil {
		return "", "", nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if lock, err = fs.Lock(fs.PathJoin(path, "LOCK")); err != nil {
		return "", "", nil, &PreconditionError{fmt.Errorf("data directory %s is in use: stop the node first: %w", path, err)}
	}
	raw, err := readFile(fs, fs.PathJoin(path, "identity.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", "", lock, nil
	}
	var d directory
	if err == nil {
		err = json.Unmarshal(raw, &d.id)
	}
	if err != nil {
		return "", "", nil, errors.Join(fmt.Errorf("read the identity of %s: %w", path, err), lock.Close())
	}
	return d.id.Node, d.id.Cluster, lock, nil
}
