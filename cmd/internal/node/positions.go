package node

import (
	"fmt"
	"strings"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// HistoryOf names the history that a journal's positions are of: its group's, or that of one node's local files.
func HistoryOf(id ident.JournalID) ident.GroupName {
	if id.Group == localGroup {
		return id.Group.Of(id.Node)
	}
	return id.Group
}

// history names the history of what this node answers for under the name of a group.
func (n *Node) history(group ident.GroupName) ident.GroupName {
	return HistoryOf(ident.JournalID{Group: group, Node: n.config.Node})
}

// position prints a position so that no other history has one of the same text.
func (n *Node) position(group ident.GroupName, p ident.Position) string {
	return p.Format(n.history(group))
}

// owns refuses a position, read as name and text, that is not surely of the local files of this node: each node counts its own, so
// numbers alone say nothing.
func (l *local) owns(name ident.GroupName, text string) error {
	own := l.n.history(localGroup)
	if name == own {
		return nil
	}
	e := &client.Error{Code: client.CodeInvalid, Remedy: fmt.Sprintf("take the position that the record was read with at this node, such as %s@3.42", own)}
	switch other, local := strings.CutPrefix(string(name), string(localGroup.Of(""))); {
	case local:
		e.Detail = fmt.Sprintf("position %s is of the local files of node %s, and this is node %s, which has nothing of them", text, other, l.n.config.Node)
		e.Remedy = fmt.Sprintf("send the request to node %s", other)
	case name == "" || name == localGroup:
		e.Detail = fmt.Sprintf("position %s does not say whose local files it is of, and each node has one of that name", text)
	default:
		e.Detail = fmt.Sprintf("position %s is of group %s, and not of the local files of node %s", text, name, l.n.config.Node)
	}
	return e
}

// placed refuses positions from which local files are to be read when they are another node's. Mere numbers are this node's: the
// request names its journal. The empty text is no position.
func (n *Node) placed(group string, positions ...string) error {
	if group != string(localGroup) {
		return nil
	}
	for _, text := range positions {
		name, _, err := ident.ParsePosition(text)
		if err != nil || name == "" {
			continue // no position at all, such as the number of an entry, or "now"
		}
		if err := n.local.owns(name, text); err != nil {
			return err
		}
	}
	return nil
}
