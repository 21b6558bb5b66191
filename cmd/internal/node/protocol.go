package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// survey looks whether the cluster runs with another protocol, before anything is written that counts, and records this build's
// in the directory if it does not.
func (n *Node) survey(ctx context.Context, advertise fsm.Addresses, log hclog.Logger) error {
	c := n.config
	err := cluster.Survey(ctx, cluster.Options{Node: c.Node, Directory: n.directory.id.Directory, Name: c.Cluster, Protocol: n.protocol,
		Identity: n.directory, Join: c.Join, Addresses: advertise, Host: n.host, Logger: log})
	var other *ident.OtherProtocolError
	if errors.As(err, &other) {
		return &PreconditionError{err}
	}
	if err != nil {
		return err
	}
	return n.directory.adopt()
}

// keptOut tells of a node of another build.
func (n *Node) keptOut(k cluster.Knock) {
	n.events.add(client.SeverityWarning, "", "OTHER_BUILD", fmt.Sprintf("node %s runs another build and is kept out: it speaks inter-node protocol %s, this node %s; "+
		"start it with the build that the other nodes run", k.Node, k.Protocol, n.protocol),
		map[string]string{"peer": string(k.Node), "address": k.Address, "theirs": fmt.Sprint(uint8(k.Protocol)), "ours": fmt.Sprint(uint8(n.protocol))})
}

func (n *Node) knocking() []client.Knock {
	var out []client.Knock
	for _, k := range n.cluster.Knocks() {
		out = append(out, client.Knock{Node: string(k.Node), Protocol: uint8(k.Protocol), Address: k.Address, Since: k.Since, Last: k.Last})
	}
	return out
}
