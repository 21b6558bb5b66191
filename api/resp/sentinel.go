package resp

import (
	"context"
	"slices"
	"strings"
)

// sentinelCommands are what client libraries ask a Sentinel. Every node answers as one, at its own Redis port; a master's name is that of
// its group, and the other sentinels are the other nodes.
func sentinelCommands() []command {
	return []command{{name: "sentinel", arity: -2, flags: admin | noMulti, family: "sentinel", since: "2.8.4", summary: "A container for Redis Sentinel commands.", own: ownSentinel}}
}

func ownSentinel(s *session, args [][]byte) reply {
	sub := strings.ToUpper(lower(args[1][:min(len(args[1]), 32)]))
	switch sub {
	case "MASTERS", "MYID", "HELP":
		if len(args) != 2 {
			return errArity("sentinel|" + strings.ToLower(sub))
		}
	case "GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS", "SLAVES", "SENTINELS", "CKQUORUM", "FAILOVER", "RESET":
		if len(args) != 3 {
			return errArity("sentinel|" + strings.ToLower(sub))
		}
	default:
		return errSubcommand("sentinel", args[1])
	}
	groups := s.srv.o.Roles.Groups()
	switch sub {
	case "MASTERS":
		all := array{}
		for _, g := range groups {
			all = append(all, s.master(g))
		}
		return all
	case "MYID":
		return text(s.srv.runID())
	case "RESET": // there is nothing to forget: roles come from the cluster
		n := integer(0)
		for _, g := range groups {
			if len(args[2]) <= 256 && matches(args[2], []byte(g.Name)) {
				n++
			}
		}
		return n
	case "HELP":
		return help("SENTINEL", "CKQUORUM <master-name>", "FAILOVER <master-name>", "GET-MASTER-ADDR-BY-NAME <master-name>", "MASTER <master-name>", "MASTERS",
			"MYID", "REPLICAS <master-name>", "RESET <pattern>", "SENTINELS <master-name>", "HELP")
	}
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == string(args[2]) })
	if i < 0 {
		if sub == "GET-MASTER-ADDR-BY-NAME" {
			return nothing{}
		}
		return errNoSuchMaster
	}
	g := groups[i]
	switch sub {
	case "MASTER":
		return s.master(g)
	case "REPLICAS", "SLAVES":
		ctx, cancel := context.WithTimeout(s.ctx, s.wait)
		defer cancel()
		g.Nodes = s.srv.o.Roles.Copies(ctx, g.Name)
		all := array{}
		for _, n := range g.replicas() {
			all = append(all, s.replica(g, n))
		}
		return all
	case "SENTINELS":
		all := array{}
		for _, n := range s.srv.others(groups) {
			all = append(all, sentinel(n))
		}
		return all
	case "CKQUORUM":
		return ckquorum(g)
	case "FAILOVER":
		return s.failover(g)
	}
	if address := g.address(); address != "" { // GET-MASTER-ADDR-BY-NAME
		host, port := hostPort(address)
		return texts(host, port)
	}
	return nothing{}
}

// entry is what is told of a master, a replica and a sentinel alike.
func entryOf(name string, n Node, role string) pairs {
	host, port := hostPort(n.Address)
	states := role
	if !n.Alive {
		states = "s_down," + role + ",disconnected"
	}
	return pairs{
		text("name"), text(name), text("ip"), text(host), text("port"), text(port), text("runid"), text(runID(n)), text("flags"), text(states),
		text("link-pending-commands"), text("0"), text("link-refcount"), text("1"), text("last-ping-sent"), text("0"), text("last-ok-ping-reply"), text("0"),
		text("last-ping-reply"), text("0"), text("down-after-milliseconds"), text("2000"),
	}
}

func (s *session) master(g Group) reply {
	n := Node{ID: "no primary of " + g.Name, Address: ":0"}
	for _, x := range g.Nodes {
		if x.ID == g.Primary && g.Primary != "" {
			n = x
		}
	}
	return append(entryOf(g.Name, n, "master"),
		text("info-refresh"), text("0"), text("role-reported"), text("master"), text("role-reported-time"), text("0"),
		text("config-epoch"), number(g.Epoch), text("num-slaves"), number(len(g.replicas())),
		text("num-other-sentinels"), number(len(s.srv.others(s.srv.o.Roles.Groups()))), text("quorum"), number(len(g.Nodes)/2+1),
		text("failover-timeout"), text("180000"), text("parallel-syncs"), text("1"))
}

func (s *session) replica(g Group, n Node) reply {
	host, port := hostPort(g.address())
	link := "ok"
	if !n.Alive || !n.Linked {
		link = "err"
	}
	return append(entryOf(n.Address, n, "slave"),
		text("info-refresh"), text("0"), text("role-reported"), text("slave"), text("role-reported-time"), text("0"),
		text("master-link-down-time"), text("0"), text("master-link-status"), text(link), text("master-host"), text(host), text("master-port"), text(port),
		text("slave-priority"), text("100"), text("slave-repl-offset"), number(n.Offset), text("replica-announced"), text("1"))
}

func sentinel(n Node) reply {
	return append(entryOf(runID(n), n, "sentinel"),
		text("last-hello-message"), text("0"), text("voted-leader"), text("?"), text("voted-leader-epoch"), text("0"))
}

// others are the other nodes that answer as sentinels: those of all groups, each once.
func (srv *Server) others(groups []Group) []Node {
	var all []Node
	for _, g := range groups {
		for _, n := range g.Nodes {
			if n.ID != srv.o.Node && n.Address != "" && !slices.ContainsFunc(all, func(o Node) bool { return o.ID == n.ID }) {
				all = append(all, n)
			}
		}
	}
	return all
}

// ckquorum tells whether a majority of the nodes is there and another one could take over.
func ckquorum(g Group) reply {
	alive := 0
	for _, n := range g.Nodes {
		if n.Alive {
			alive++
		}
	}
	usable := string(number(alive)) + " usable Sentinels. "
	if alive < len(g.Nodes)/2+1 {
		return failure("NOQUORUM " + usable + "Not enough available Sentinels to reach the specified quorum for this master")
	}
	return simple("OK " + usable + "Quorum and failover authorization can be reached")
}

// failover starts a planned switch-over: no write is lost.
func (s *session) failover(g Group) reply {
	if s.rights&MayOperate == 0 {
		return failure("NOPERM this user has no permissions to run the 'sentinel|failover' command")
	}
	if err := s.srv.o.Roles.Failover(s.ctx, g.Name); err != nil {
		if bad, is := told(err).(failure); is && !strings.HasPrefix(string(bad), "ERR ") {
			return bad
		}
		return failure("NOGOODSLAVE " + clean([]byte(strings.TrimPrefix(err.Error(), "ERR ")), 512))
	}
	return ok
}
