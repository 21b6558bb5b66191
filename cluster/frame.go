package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// A connection to the Raft port begins with a hello, then carries either Raft's own stream or one control exchange:
//
//	byte 0     'R' Raft, 'C' control
//	byte 1     1 in a question, which every build answers; else the inter-node protocol of the sender, ident.Protocol.
//	           Builds before that number send 1 in any case
//	byte 2     length n of the cluster id; 0 only in 'C', from a node that has joined none
//	3..3+n     cluster id
//
// The acceptor of an 'R' connection answers one byte: helloAccepted, helloRefused, or helloOther and one more with its own
// protocol. Every later build reads the hello as it stands here. A control exchange is one request
// and one response, each a 32-bit little-endian length and that many bytes of JSON.
const (
	helloRaft     = 'R'
	helloControl  = 'C'
	helloQuestion = 1
	helloAccepted = 'A'
	helloRefused  = 'X'
	helloOther    = 'P'

	maxFrame        = 1 << 20  // a request or response of a member
	maxForeignFrame = 64 << 10 // a request of a node that is not a member
)

type hello struct {
	kind    byte
	version uint8 // helloQuestion, or the sender's protocol
	cluster ident.ClusterID
}

func writeHello(w io.Writer, h hello) error {
	if len(h.cluster) > 255 {
		return fmt.Errorf("cluster id of %d bytes is too long", len(h.cluster))
	}
	b := append([]byte{h.kind, h.version, byte(len(h.cluster))}, h.cluster...)
	_, err := w.Write(b)
	return err
}

var errHello = errors.New("not a connection of this program")

func readHello(r io.Reader) (hello, error) {
	var b [3]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return hello{}, err
	}
	if b[0] != helloRaft && b[0] != helloControl {
		return hello{}, errHello
	}
	if b[1] == 0 {
		return hello{}, errHello
	}
	id := make([]byte, b[2])
	if _, err := io.ReadFull(r, id); err != nil {
		return hello{}, err
	}
	return hello{kind: b[0], version: b[1], cluster: ident.ClusterID(id)}, nil
}

// request is what one node asks of another. Exactly one of the pointers is set.
type request struct {
	Propose *fsm.Command `json:"propose,omitempty"`
	Join    *joinRequest `json:"join,omitempty"`
	Info    *infoRequest `json:"info,omitempty"`
}

// infoRequest asks who the peer is and what cluster it belongs to.
type infoRequest struct {
	Node     ident.NodeID   `json:"node"`           // who asks
	Name     string         `json:"name,omitempty"` // of the cluster it is configured for
	Protocol ident.Protocol `json:"protocol,omitempty"`
}

// joinRequest asks the Raft leader to register a node, or to update its registration, and to let it vote.
type joinRequest struct {
	Name string           `json:"name"` // of the cluster
	Node fsm.RegisterNode `json:"register"`
}

// Codes of responses, part of the format.
const (
	codeOK        = "ok"
	codeNotLeader = "not_leader"      // surely not proposed; Leader may know better
	codeUnknown   = "unknown_outcome" // handed to Raft, result not known
	codeCluster   = "other_cluster"
	codeName      = "other_name"
	codeDirectory = "other_directory"
	codeRefused   = "refused"
	codeBusy      = "busy" // surely not done, try again
	codeInvalid   = "invalid"
	codeProtocol  = "other_protocol" // surely not done; Info says who refuses, and Leader whether its cluster runs
)

type response struct {
	Code    string      `json:"code"`
	Detail  string      `json:"detail,omitempty"`
	Leader  string      `json:"leader,omitempty"` // raft address, a hint
	Result  *fsm.Result `json:"result,omitempty"` // propose
	Applied uint64      `json:"applied,omitempty"`
	Info    *info       `json:"info,omitempty"`
}

// info is what a node says of itself and of its cluster.
type info struct {
	Node      ident.NodeID                       `json:"node"`
	Directory ident.DirectoryID                  `json:"directory"`
	Name      string                             `json:"name"`
	Cluster   ident.ClusterID                    `json:"cluster"` // "" while it belongs to none
	Bootstrap bool                               `json:"bootstrap"`
	Protocol  ident.Protocol                     `json:"protocol,omitempty"`
	Nodes     map[ident.NodeID]ident.DirectoryID `json:"nodes,omitempty"` // registered
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("message of %d bytes exceeds %d", len(body), maxFrame)
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

func readFrame(r io.Reader, limit uint32, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > limit {
		return fmt.Errorf("message of %d bytes exceeds %d", n, limit)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n))) // grows with what arrives, not with what is promised
	if err != nil {
		return err
	}
	if len(body) != int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(body, v)
}

// advertised is an address as others reach it.
type advertised string

func (a advertised) Network() string { return "tcp" }
func (a advertised) String() string  { return string(a) }

var _ net.Addr = advertised("")
