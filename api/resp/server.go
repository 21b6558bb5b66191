package resp

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serverCommands tell about the server.
func serverCommands() []command {
	const family = "server"
	return []command{
		{name: "command", arity: -1, family: family, since: "2.8.13", summary: "Returns detailed information about all commands.", own: ownCommand, light: true,
			parts: map[string]int{"count": 2, "docs": -2, "info": -2, "list": -2, "help": 2}},
		{name: "config", arity: -2, flags: admin | noMulti, family: family, since: "2.0.0", summary: "A container for server configuration commands.", own: ownConfig, light: true,
			parts: map[string]int{"get": -3, "set": -4, "resetstat": 2, "help": 2}},
		{name: "info", arity: -1, family: family, since: "1.0.0", summary: "Returns information and statistics about the server.", own: ownInfo},
		{name: "role", arity: 1, flags: fast, family: family, since: "2.8.12", summary: "Returns the replication role.", own: ownRole},
		{name: "time", arity: 1, flags: fast, family: family, since: "2.6.0", summary: "Returns the server time.", own: ownTime, light: true},
	}
}

// serves tells whether this node is the primary of a group.
func (srv *Server) serves() bool {
	return slices.ContainsFunc(srv.o.Roles.Groups(), func(g Group) bool { return g.Serving })
}

func ownTime(s *session, _ [][]byte) reply {
	now := s.srv.o.Clock()
	return array{number(now.Unix()), number(now.UnixMicro() % 1e6)}
}

func ownCommand(s *session, args [][]byte) reply {
	listed := make([]*command, 0, len(s.srv.commands))
	for _, name := range slices.Sorted(maps.Keys(s.srv.commands)) {
		if c := s.srv.commands[name]; c.flags&internal == 0 {
			listed = append(listed, c)
		}
	}
	named := func(row func(*command) reply) array { // rows of the commands that the arguments name
		all := array{}
		for _, a := range args[2:] {
			if c := s.srv.commands[lower(a[:min(len(a), 64)])]; c != nil && c.flags&internal == 0 {
				all = append(all, row(c))
			} else {
				all = append(all, nothing{})
			}
		}
		return all
	}
	every := func(row func(*command) reply) array {
		all := array{}
		for _, c := range listed {
			all = append(all, row(c))
		}
		return all
	}
	switch {
	case len(args) == 1 || is(args[1], "INFO") && len(args) == 2:
		return every((*command).row)
	case is(args[1], "INFO"):
		return named((*command).row)
	case is(args[1], "COUNT"):
		return integer(len(listed))
	case is(args[1], "LIST") && len(args) == 2:
		return every(func(c *command) reply { return text(c.name) })
	case is(args[1], "LIST"):
		if len(args) != 5 || !is(args[2], "FILTERBY") || !is(args[3], "PATTERN") || len(args[4]) > 256 {
			return errSyntax
		}
		all := array{}
		for _, c := range listed {
			if matches([]byte(lower(args[4])), []byte(c.name)) {
				all = append(all, text(c.name))
			}
		}
		return all
	case is(args[1], "DOCS"):
		docs := pairs{}
		for _, c := range listed {
			if len(args) == 2 || slices.ContainsFunc(args[2:], func(a []byte) bool { return is(a, strings.ToUpper(c.name)) }) {
				docs = append(docs, text(c.name), pairs{
					text("summary"), text(c.summary), text("since"), text(c.since), text("group"), text(c.family), text("arity"), integer(c.arity),
				})
			}
		}
		return docs
	case is(args[1], "HELP"):
		return help("COMMAND", "(no subcommand)", "COUNT", "DOCS [<command-name> ...]", "INFO [<command-name> ...]", "LIST [FILTERBY PATTERN <pattern>]", "HELP")
	}
	return errSubcommand("command", args[1])
}

// row describes a command as COMMAND does.
func (c *command) row() reply {
	var list, categories []reply
	for _, f := range []struct {
		flag           flags
		name, category string
	}{
		{writes, "write", "@write"}, {reads, "readonly", "@read"}, {bigger, "denyoom", ""}, {admin, "admin", "@admin"}, {pubsub, "pubsub", "@pubsub"},
		{early, "no_auth", ""}, {noMulti, "no_multi", ""}, {fast, "fast", "@fast"},
	} {
		if c.flags&f.flag == 0 {
			continue
		}
		list = append(list, simple(f.name))
		if f.category != "" {
			categories = append(categories, simple(f.category))
		}
	}
	if c.flags&fast == 0 {
		categories = append(categories, simple("@slow"))
	}
	categories = append(categories, simple("@"+c.family))
	return array{
		text(c.name), integer(c.arity), set(list), integer(c.first), integer(c.last), integer(c.step), set(categories), array{}, array{}, array{},
	}
}

func ownConfig(s *session, args [][]byte) reply {
	switch {
	case is(args[1], "GET") && len(args) > 2:
		values := s.srv.settings()
		all := pairs{}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if slices.ContainsFunc(args[2:], func(p []byte) bool { return len(p) <= 256 && matches([]byte(lower(p)), []byte(name)) }) {
				all = append(all, text(name), text(values[name]))
			}
		}
		return all
	case is(args[1], "SET"):
		return failure("ERR CONFIG SET is not possible here: settings stand in the node's configuration file")
	case is(args[1], "RESETSTAT") && len(args) == 2:
		return ok
	case is(args[1], "HELP"):
		return help("CONFIG", "GET <pattern>", "RESETSTAT", "HELP")
	}
	return errSubcommand("config", args[1])
}

// settings are the settings of Redis that clients and tools ask for, as they would be there.
func (srv *Server) settings() map[string]string {
	l := &srv.o.Limits
	return map[string]string{
		"save": "", "appendonly": "yes", "appendfsync": "always", "maxmemory": "0", "maxmemory-policy": "noeviction", "databases": "1",
		"maxclients": strconv.Itoa(l.Connections), "timeout": strconv.Itoa(int(l.Idle.Seconds())), "proto-max-bulk-len": strconv.Itoa(l.Bulk),
		"replica-read-only": "yes", "notify-keyspace-events": "",
	}
}

func ownRole(s *session, _ [][]byte) reply {
	groups := s.srv.o.Roles.Groups()
	if len(groups) == 0 {
		return array{text("sentinel"), array{}}
	}
	i := max(slices.IndexFunc(groups, func(g Group) bool { return g.Serving }), 0)
	g := groups[i]
	if g.Serving {
		replicas := array{}
		for _, n := range g.replicas() {
			host, port := hostPort(n.Address)
			replicas = append(replicas, array{text(host), text(port), number(n.Offset)})
		}
		return array{text("master"), integer(g.Last.History), replicas}
	}
	host, port := hostPort(g.address())
	p, _ := strconv.Atoi(port)
	state := "connect"
	var offset uint64
	for _, n := range g.Nodes {
		if n.ID == s.srv.o.Node {
			offset = n.Offset
			if n.Linked {
				state = "connected"
			}
		}
	}
	return array{text("slave"), text(host), integer(p), text(state), integer(offset)}
}

// address is that of the primary; "" when there is none.
func (g *Group) address() string {
	for _, n := range g.Nodes {
		if n.ID == g.Primary && g.Primary != "" {
			return n.Address
		}
	}
	return ""
}

// replicas are the nodes with a copy besides the primary that Redis clients can reach.
func (g *Group) replicas() []Node {
	var all []Node
	for _, n := range g.Nodes {
		if n.ID != g.Primary && n.Address != "" {
			all = append(all, n)
		}
	}
	return all
}

// runID is a Redis run id for a node, or for a name.
func runID(n Node) string {
	if n.RunID != "" {
		return n.RunID
	}
	sum := sha1.Sum([]byte("understudy " + n.ID)) // an identifier, no secret
	return hex.EncodeToString(sum[:])
}

func ownInfo(s *session, args [][]byte) reply {
	wanted := func(section string) bool {
		return len(args) == 1 || slices.ContainsFunc(args[1:], func(a []byte) bool {
			return is(a, strings.ToUpper(section)) || is(a, "ALL") || is(a, "DEFAULT") || is(a, "EVERYTHING")
		})
	}
	var b strings.Builder
	for _, section := range []struct {
		name  string
		lines func(*session, func(string, any))
	}{
		{"Server", (*session).infoServer}, {"Clients", (*session).infoClients}, {"Memory", (*session).infoMemory}, {"Persistence", (*session).infoPersistence},
		{"Stats", (*session).infoStats}, {"Replication", (*session).infoReplication}, {"Cluster", (*session).infoCluster}, {"Keyspace", (*session).infoKeyspace},
	} {
		if !wanted(section.name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + section.name + "\r\n")
		section.lines(s, func(name string, value any) { fmt.Fprintf(&b, "%s:%v\r\n", name, value) })
	}
	return verbatim(b.String())
}

func (s *session) infoServer(put func(string, any)) {
	up := s.srv.o.Clock().Sub(s.srv.began)
	put("redis_version", s.srv.o.Version)
	put("redis_mode", "standalone")
	put("server_name", "understudy")
	put("understudy_node", s.srv.o.Node)
	put("understudy_cluster", s.srv.o.Cluster)
	put("os", runtime.GOOS+" "+runtime.GOARCH)
	put("arch_bits", strconv.IntSize)
	put("process_id", os.Getpid())
	put("run_id", s.srv.runID())
	_, port := hostPort(s.conn.LocalAddr().String())
	put("tcp_port", port)
	put("uptime_in_seconds", int(up.Seconds()))
	put("uptime_in_days", int(up.Hours()/24))
}

// runID is this node's own.
func (srv *Server) runID() string {
	for _, g := range srv.o.Roles.Groups() {
		for _, n := range g.Nodes {
			if n.ID == srv.o.Node {
				return runID(n)
			}
		}
	}
	return runID(Node{ID: srv.o.Node})
}

func (s *session) infoClients(put func(string, any)) {
	clients := 0
	for _, other := range s.srv.sessions.list() {
		if !other.identity.Load().peer { // as Redis leaves its replicas out
			clients++
		}
	}
	put("connected_clients", clients)
	put("maxclients", s.srv.o.Limits.Connections)
	put("blocked_clients", s.srv.waiting.used.Load())
}

func (s *session) infoMemory(put func(string, any)) {
	put("used_memory", s.srv.memory.used.Load())
	put("maxmemory", 0)
	put("maxmemory_policy", "noeviction")
}

func (s *session) infoPersistence(put func(string, any)) {
	put("loading", 0)
	put("aof_enabled", 1)
	put("aof_last_write_status", "ok")
}

func (s *session) infoStats(put func(string, any)) {
	put("total_connections_received", s.srv.ids.Load())
	put("total_commands_processed", s.srv.processed.Load())
}

// infoReplication describes the first group that this node is primary of, or else the first one, as Redis does; then all of them.
func (s *session) infoReplication(put func(string, any)) {
	groups := s.srv.o.Roles.Groups()
	if len(groups) == 0 {
		put("role", "slave")
		put("master_link_status", "down")
		return
	}
	g := groups[max(slices.IndexFunc(groups, func(g Group) bool { return g.Serving }), 0)]
	if g.Serving {
		put("role", "master")
		replicas := g.replicas()
		put("connected_slaves", len(replicas))
		for i, n := range replicas {
			host, port := hostPort(n.Address)
			state := "online"
			if !n.Alive {
				state = "down"
			}
			put("slave"+strconv.Itoa(i), fmt.Sprintf("ip=%s,port=%s,state=%s,offset=%d,lag=%d", host, port, state, n.Offset, n.Lag))
		}
		put("master_failover_state", "no-failover")
	} else {
		host, port := hostPort(cmp.Or(g.address(), "?:0"))
		own := Node{Lag: -1}
		for _, n := range g.Nodes {
			if n.ID == s.srv.o.Node {
				own = n
			}
		}
		link := "up" // whatever this node's own copy is: clients that wait for it wait for somebody who answers
		if g.address() == "" {
			link = "down"
		}
		put("role", "slave")
		put("master_host", host)
		put("master_port", port)
		put("master_link_status", link)
		put("master_last_io_seconds_ago", own.Lag)
		put("master_sync_in_progress", 0)
		put("slave_read_only", 1)
		put("slave_priority", 100)
		put("connected_slaves", 0)
	}
	sum := sha1.Sum([]byte(fmt.Sprintf("%s %d", g.Name, g.Epoch))) // names a branch of history, as Redis's replication id does
	put("master_replid", hex.EncodeToString(sum[:]))
	put("master_repl_offset", uint64(g.Last.History))
	for i, g := range groups {
		put("understudy_group"+strconv.Itoa(i), fmt.Sprintf("name=%s,primary=%s,epoch=%d,last=%s,in_sync=%s", g.Name, g.Primary, g.Epoch, g.Last, strings.Join(g.InSync, "+")))
	}
}

func (s *session) infoCluster(put func(string, any)) { put("cluster_enabled", 0) }

func (s *session) infoKeyspace(put func(string, any)) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	if n, err := s.srv.o.Store.Count(ctx); err == nil && n > 0 {
		put("db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", n))
	}
}
