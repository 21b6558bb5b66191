package client

// LocalGroup stands where a group is named for the files that no group selects: each data node that is configured to keeps its own,
// ships them to nobody, and takes writes to them always. It is no group: it has no primary and no copies.
const LocalGroup = "local"

// LocalFiles is what one node keeps for itself. It is not replicated: no other node has any of it.
type LocalFiles struct {
	Node     string        `json:"node"`
	Writable bool          `json:"writable"`
	Error    string        `json:"error,omitempty"` // why not
	Position string        `json:"position,omitempty"`
	Journal  *Journal      `json:"journal"`        // null: nothing was ever written, or it could not be opened
	Full     string        `json:"full,omitempty"` // why writes are refused with journal_full, and what helps
	Runway   float64       `json:"runway_seconds"` // as in GroupStatus
	Hidden   []HiddenFiles `json:"hidden,omitempty"`
}

// HiddenFiles are local records in files that a group has come to select: the group does not have them, and only requests with
// Group: LocalGroup reach them.
type HiddenFiles struct {
	Group   string `json:"group"`
	Files   uint64 `json:"files"`
	Records uint64 `json:"records"`
	First   string `json:"first"`             // one of the files
	Planned bool   `json:"planned,omitempty"` // the group is not there yet: it hides them already
}
