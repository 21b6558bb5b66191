package resp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// connectionCommands concern the connection itself.
func connectionCommands() []command {
	const family = "connection"
	return []command{
		{name: "ping", arity: -1, flags: fast | subscribed, family: family, since: "1.0.0", summary: "Returns the server's liveliness response.", own: ownPing, light: true},
		{name: "echo", arity: 2, flags: fast, family: family, since: "1.0.0", summary: "Returns the given string.", own: ownEcho, light: true},
		{name: "auth", arity: -2, flags: fast | early | noMulti, family: family, since: "1.0.0", summary: "Authenticates the connection.", own: ownAuth},
		{name: "hello", arity: -1, flags: fast | early | noMulti, family: family, since: "6.0.0", summary: "Handshakes with the server.", own: ownHello},
		{name: "select", arity: 2, flags: fast, family: family, since: "1.0.0", summary: "Changes the selected database; there is only 0.", own: ownSelect, light: true},
		{name: "readonly", arity: 1, flags: fast | noMulti, family: "cluster", since: "3.0.0", summary: "Lets this connection read from this node's own copy.", own: ownReadOnly(true)},
		{name: "readwrite", arity: 1, flags: fast | noMulti, family: "cluster", since: "3.0.0", summary: "Lets this connection read from the primary.", own: ownReadOnly(false)},
		{name: "reset", arity: 1, flags: fast | early | subscribed, family: family, since: "6.2.0", summary: "Resets the connection.", own: ownReset},
		{name: "quit", arity: -1, flags: fast | early | subscribed, family: family, since: "1.0.0", summary: "Closes the connection.", own: ownQuit, light: true},
		{name: "client", arity: -2, family: family, since: "2.4.0", summary: "A container for client connection commands.", own: ownClient, light: true,
			parts: map[string]int{"id": 2, "getname": 2, "setname": 3, "setinfo": 4, "info": 2, "list": -2, "no-evict": 3, "no-touch": 3, "help": 2, "getredir": 2}},
	}
}

func ownPing(s *session, args [][]byte) reply {
	if len(args) > 2 {
		return errArity("ping")
	}
	if s.proto == 2 && s.subscriptions() > 0 {
		if len(args) == 1 {
			return texts("pong", "")
		}
		return array{text("pong"), bulk(args[1])}
	}
	if len(args) == 2 {
		return bulk(args[1])
	}
	return simple("PONG")
}

func ownEcho(_ *session, args [][]byte) reply { return bulk(args[1]) }

// login checks a secret and, when it is right, gives the session its rights.
func (s *session) login(user, secret string) reply {
	check := s.srv.o.Authenticate
	if check == nil {
		if user == "default" {
			return ok // as Redis does with a user that needs no password
		}
		return errWrongPass
	}
	rights, valid := check(user, secret)
	if !valid {
		s.srv.o.Logger.Warn("a Redis client could not authenticate", "peer", s.conn.RemoteAddr(), "user", clean([]byte(user), 64))
		return errWrongPass
	}
	s.rights, s.user, s.rd.login = rights, user, rights == 0
	return ok
}

func ownAuth(s *session, args [][]byte) reply {
	switch {
	case len(args) > 3:
		return errSyntax
	case len(args) == 3:
		return s.login(string(args[1]), string(args[2]))
	case s.srv.o.Authenticate == nil:
		return errNoPass
	}
	return s.login("default", string(args[1]))
}

func ownHello(s *session, args [][]byte) reply {
	proto := s.proto
	if len(args) > 1 {
		n, valid := integerOf(args[1])
		if !valid {
			return failure("ERR Protocol version is not an integer or out of range")
		}
		if n != 2 && n != 3 {
			return errNoProto
		}
		proto = int(n)
	}
	name, named := "", false
	for i := 2; i < len(args); i++ {
		switch {
		case is(args[i], "AUTH") && i+2 < len(args):
			if bad, refused := s.login(string(args[i+1]), string(args[i+2])).(failure); refused {
				return bad
			}
			i += 2
		case is(args[i], "SETNAME") && i+1 < len(args):
			if !s.fits(args[i+1]) {
				return failure("ERR Client names cannot contain spaces, newlines or special characters.")
			}
			name, named = string(args[i+1]), true
			i++
		default:
			return failure(fmt.Sprintf("ERR Syntax error in HELLO option '%s'", clean(args[i], 64)))
		}
	}
	if s.rights == 0 {
		return failure("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	s.proto = proto
	s.present(func(i *identity) {
		i.proto = proto
		if named {
			i.name = name
		}
	})
	role := "master"
	if !s.srv.serves() {
		role = "replica"
	}
	return pairs{
		text("server"), text("redis"), text("version"), text(s.srv.o.Version), text("proto"), integer(proto), text("id"), integer(s.id),
		text("mode"), text("standalone"), text("role"), text(role), text("modules"), array{},
	}
}

// present changes what others see of the session.
func (s *session) present(change func(*identity)) {
	next := *s.identity.Load()
	change(&next)
	s.identity.Store(&next)
}

// fits tells whether a client may use that as a name of its own.
func (s *session) fits(name []byte) bool {
	if len(name) > s.srv.o.Limits.Names {
		return false
	}
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

func ownSelect(_ *session, args [][]byte) reply {
	n, valid := integerOf(args[1])
	switch {
	case !valid:
		return errNotInteger
	case n < math.MinInt32 || n > math.MaxInt32:
		return errSelect
	case n != 0:
		return errIndex
	}
	return ok
}

func ownReadOnly(on bool) func(*session, [][]byte) reply {
	return func(s *session, _ [][]byte) reply {
		s.readOnly = on
		return ok
	}
}

func ownReset(s *session, _ [][]byte) reply {
	s.endMulti()
	s.unsubscribeAll()
	s.subscriber.join()
	s.subscriber.done = nil
	s.proto, s.readOnly = 2, false
	if s.srv.o.Authenticate != nil {
		s.rights, s.user, s.rd.login = 0, "default", true
	}
	s.present(func(i *identity) { i.proto, i.name = 2, "" })
	return simple("RESET")
}

func ownQuit(s *session, _ [][]byte) reply {
	s.quit = true
	return ok
}

func ownClient(s *session, args [][]byte) reply {
	switch lower(args[1][:min(len(args[1]), 32)]) {
	case "id":
		return integer(s.id)
	case "getname":
		if n := s.identity.Load().name; n != "" {
			return text(n)
		}
		return null{}
	case "setname":
		if !s.fits(args[2]) {
			return failure("ERR Client names cannot contain spaces, newlines or special characters.")
		}
		s.present(func(i *identity) { i.name = string(args[2]) })
		return ok
	case "setinfo":
		if !s.fits(args[3]) {
			return failure(fmt.Sprintf("ERR %s cannot contain spaces, newlines or special characters.", clean(args[2], 32)))
		}
		switch lower(args[2]) {
		case "lib-name":
			s.present(func(i *identity) { i.library = string(args[3]) })
		case "lib-ver":
			s.present(func(i *identity) { i.version = string(args[3]) })
		default:
			return failure(fmt.Sprintf("ERR Unrecognized option '%s'", clean(args[2], 32)))
		}
		return ok
	case "info":
		return verbatim(s.describe() + "\n")
	case "list":
		wanted, bad := clientFilter(args[2:])
		if bad != nil {
			return bad
		}
		var b strings.Builder
		for _, other := range s.srv.sessions.list() {
			if !wanted(other) {
				continue
			}
			b.WriteString(other.describe() + "\n")
			if b.Len() > 1<<20 {
				break
			}
		}
		return verbatim(b.String())
	case "no-evict", "no-touch":
		if !is(args[2], "ON") && !is(args[2], "OFF") {
			return errSyntax
		}
		return ok
	case "getredir":
		return integer(-1)
	case "help":
		return help("CLIENT", "GETNAME", "GETREDIR", "ID", "INFO", "LIST [TYPE type | ID id ...]", "NO-EVICT ON|OFF", "NO-TOUCH ON|OFF", "SETINFO LIB-NAME|LIB-VER value", "SETNAME name", "HELP")
	}
	return errSubcommand("client", args[1])
}

// clientFilter reads which clients CLIENT LIST is to show: all, or `TYPE type`, or `ID id …`.
func clientFilter(args [][]byte) (func(*session) bool, reply) {
	switch {
	case len(args) == 0:
		return func(*session) bool { return true }, nil
	case is(args[0], "ID") && len(args) > 1:
		ids := map[int64]bool{}
		for _, a := range args[1:] {
			id, valid := integerOf(a)
			if !valid || id < 1 {
				return nil, failure("ERR Invalid client ID")
			}
			ids[id] = true
		}
		return func(s *session) bool { return ids[s.id] }, nil
	case is(args[0], "TYPE") && len(args) == 2:
		kind := lower(args[1])
		switch kind {
		case "normal", "pubsub", "master", "replica", "slave":
		default:
			return nil, failure(fmt.Sprintf("ERR Unknown client type '%s'", clean(args[1], 32)))
		}
		return func(s *session) bool {
			switch {
			case s.identity.Load().peer:
				return kind == "replica" || kind == "slave"
			case s.subscriptions() > 0:
				return kind == "pubsub"
			}
			return kind == "normal"
		}, nil
	}
	return nil, errSyntax
}

// peerName is what CLIENT LIST shows as the name of a connection over which another node relays.
const peerName = "understudy-relay"

// describe is a line of CLIENT LIST. It may be asked of any session.
func (s *session) describe() string {
	i := s.identity.Load()
	now := s.srv.o.Clock()
	flag := "N"
	subs := s.subscriptions()
	name, library := i.name, i.library
	switch {
	case i.peer: // as Redis marks the connections of its replicas
		flag, name, library = "S", peerName, "understudy"
	case subs > 0:
		flag = "P"
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d idle=%d flags=%s db=0 sub=%d tot-mem=%d resp=%d lib-name=%s lib-ver=%s cmd=%s",
		s.id, s.conn.RemoteAddr(), s.conn.LocalAddr(), name, int(now.Sub(i.since).Seconds()), int(now.Sub(i.at).Seconds()), flag, subs,
		s.held.Load(), i.proto, library, i.version, i.command)
}

// help is what HELP answers.
func help(name string, subs ...string) reply {
	all := array{simple(name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")}
	for _, sub := range slices.Sorted(slices.Values(subs)) {
		all = append(all, simple(sub))
	}
	return all
}

// number is a number as text.
func number[T ~int | ~int64 | ~uint64](n T) bulk { return bulk(strconv.FormatInt(int64(n), 10)) }
