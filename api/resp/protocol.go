package resp

import "github.com/understudy-ha/understudy/internal/ident"

// otherProtocol judges what a node says when it begins to relay: nothing, in builds from before the number.
func (s *Server) otherProtocol(said [][]byte) *ident.OtherProtocolError {
	theirs := ident.Protocol(0)
	if len(said) > 0 {
		if n, valid := integerOf(said[0]); valid && n > 0 && n < 256 {
			theirs = ident.Spoken(uint16(n))
		}
	}
	if theirs == s.o.Protocol {
		return nil
	}
	return &ident.OtherProtocolError{Node: ident.NodeID(s.o.Node), Theirs: s.o.Protocol, Ours: theirs} // as the other node will read it
}
