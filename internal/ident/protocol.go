package ident

import "fmt"

// Protocol is the number of what nodes say to each other, on all their connections, and of what they leave on disk for the next
// start. Nodes of one number may share a cluster, others never do: they turn each other away before anything else is said.
// Zero: a build from before this number.
type Protocol uint8

// CurrentProtocol is the number of this build. Raise it by one with every change after which a build with the change and one
// without must not run in one cluster, or after which the one without must not start from a data directory of the other:
//
//   - a command of the state machine that is new, or is applied otherwise, or a field of one that counts
//   - anything new or otherwise understood in gossip, on the Raft port, between journals, in relays and forwarded requests
//   - a promise, a lease or a mark that a node relies on, and that another build does not keep
//   - a file that the build without the change would refuse, or read otherwise
//
// What is only added, and left away or ignored without harm, does not raise it. docs/formats/protocol.md lists what each number
// brought. Once for a release is enough, but a number that was released is never used for something else. At 255 the field of
// the Raft port's hello has to grow.
//
// The numbers begin with 3: 1 and 2 stood, as versions of single formats, where builds before this number said nothing else.
const CurrentProtocol Protocol = firstProtocol

const firstProtocol = 3

// Spoken returns which number a peer means by a version on a connection; zero for what builds before the number put there.
func Spoken(version uint16) Protocol {
	if version < firstProtocol || version > 255 {
		return 0
	}
	return Protocol(version)
}

// Version is what p puts where builds before the number had their version, plain.
func (p Protocol) Version(plain uint16) uint16 { return max(uint16(p), plain) }

// String returns the number, and says of zero what that means.
func (p Protocol) String() string {
	if p == 0 {
		return "0 (a build from before these numbers)"
	}
	return fmt.Sprintf("%d", uint8(p))
}

// OtherProtocolError says that two nodes must not share a cluster.
type OtherProtocolError struct {
	Node   NodeID // the other one; "" if it is not known
	Theirs Protocol
	Ours   Protocol
}

func (e *OtherProtocolError) Error() string {
	who := "the other node"
	if e.Node != "" {
		who = "node " + string(e.Node)
	}
	return fmt.Sprintf("%s speaks inter-node protocol %s, this node speaks %s: they must not run in one cluster; "+
		"run the build that the other nodes run (`understudy version` prints the number), or stop all nodes, then start all with one build", who, e.Theirs, e.Ours)
}
