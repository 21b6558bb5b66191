package fsm

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
)

// SnapshotVersion is the version of snapshots this code writes.
const SnapshotVersion = 1

type snapshotFile struct {
	Version int    `json:"version"`
	State   *State `json:"state"`
}

// EncodeCommand returns the bytes of a command as they stand in the Raft log. A zero Version becomes the present one.
func EncodeCommand(c Command) ([]byte, error) {
	if c.Version == 0 {
		c.Version = CommandVersion
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return b, nil
}

// DecodeCommand reads what EncodeCommand wrote. A newer version decodes as far as it is known; Apply refuses it.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	if err := json.Unmarshal(b, &c); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

// Encode writes the state as a snapshot. Equal states have equal bytes.
func (s *State) Encode(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(snapshotFile{Version: SnapshotVersion, State: s}); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	return nil
}

// Decode reads a snapshot that Encode wrote.
func Decode(r io.Reader) (*State, error) {
	var f snapshotFile
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	if f.Version != SnapshotVersion {
		return nil, fmt.Errorf("snapshot of version %d, this program knows %d: use the program version that wrote it, or a newer one", f.Version, SnapshotVersion)
	}
	if f.State == nil {
		return nil, fmt.Errorf("decode snapshot: it holds no state")
	}
	for name, g := range f.State.Groups {
		if g == nil || g.Spec.Name != name {
			return nil, fmt.Errorf("decode snapshot: group %q is malformed", name)
		}
	}
	for id, n := range f.State.Nodes {
		if n == nil || n.ID != id {
			return nil, fmt.Errorf("decode snapshot: node %q is malformed", id)
		}
	}
	if f.State.Nodes == nil {
		f.State.Nodes = map[ident.NodeID]*Node{}
	}
	if f.State.Groups == nil {
		f.State.Groups = map[ident.GroupName]*Group{}
	}
	return f.State, nil
}
