package archtest

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// room is one package: its floor, what of this module it may import, and why not more.
type room struct {
	floor int
	may   []string
	why   string
}

// house is the whole module. Imports go strictly downwards; within a floor only what is listed. A package that is missing
// here fails the test: whoever adds one decides where it stands.
func house() map[string]room {
	floor2 := []string{"internal/ident", "internal/host", "fsm", "journal", "journal/entry", "journal/remote", "journal/remote/wire", "archive"}
	floor3 := append([]string{"client", "api", "cluster", "replica", "replica/store"}, floor2...)
	return map[string]room{
		"internal/ident":    {1, nil, "value types that everything names; anything below them would be in every package"},
		"internal/host":     {1, nil, "the seam to the machine knows nothing of what runs on it"},
		"internal/watchdog": {1, nil, "watches calls; whose calls and what follows is decided above"},
		"internal/archtest": {1, nil, "rules about the code do not use the code"},
		"client":            {1, nil, "public: users of the client must not pull in the server"},

		"internal/failpoint": {1, []string{"internal/host"},
			"acts at points that others name; only binaries for tests contain it"},
		"internal/mutant": {1, nil, "a list of names; the rules that they break stand in the packages that use it"},

		"fsm": {2, []string{"internal/ident", "internal/mutant"},
			"pure and deterministic: with a clock, a disk or a journal at hand, two nodes could decide differently"},
		"journal/entry": {2, []string{"internal/ident"},
			"a format only; it is read without a journal"},
		"journal/remote/wire": {2, []string{"internal/ident"},
			"a format only; it is read without a session"},
		"journal": {2, []string{"internal/ident", "internal/host", "journal/entry"},
			"knows no roles, no peers and no database: who may write is decided above it"},
		"journal/remote": {2, []string{"internal/ident", "internal/host", "journal", "journal/entry", "journal/remote/wire"},
			"ships bytes; who is fenced comes in through its Host interface, so it needs no fsm"},

		"archive": {2, []string{"internal/ident", "journal", "journal/entry", "archive/fakestore"},
			"keeps receivers elsewhere; which, and what may be deleted then, is decided above it"},

		"archive/fakestore": {2, nil,
			"a storage for tests, on the other side of HTTP: it knows no receivers"},

		"api": {3, []string{"client", "internal/host", "internal/ident"},
			"answers in the client's types; what it needs comes in as interfaces, so it can be tested without a cluster"},
		"api/resp": {3, []string{"client", "internal/host", "internal/ident"},
			"turns commands into programs over records; who keeps the records and who is primary comes in as Store and Roles"},
		"api/console": {3, []string{"client", "internal/ident"},
			"as api"},
		"cluster/core": {3, []string{"internal/ident", "internal/mutant", "fsm"},
			"decisions of the control plane, pure: the simulator runs them with a clock and a network of its own"},
		"cluster": {3, []string{"cluster/core", "internal/ident", "internal/host", "internal/watchdog", "fsm"},
			"roles must not wait for data: it never sees a journal or a store"},
		"replica/store": {3, []string{"internal/ident", "internal/host", "journal/entry"},
			"keeps records; order and roles are decided above it"},
		"replica/core": {3, []string{"internal/ident", "internal/mutant", "fsm", "journal/entry"},
			"decisions of the data path, pure: the simulator runs them with disks and a network of its own"},
		"replica": {3, append([]string{"replica/core", "replica/store", "internal/mutant"}, floor2...),
			"data must not wait for roles: the control plane comes in as the Control interface"},

		"replica/restore": {3, []string{"archive", "journal", "journal/entry", "internal/ident", "replica", "replica/store"},
			"rebuilds a group from receivers without a cluster: it knows no roles"},

		"cmd/internal/node": {4, append([]string{"api/resp", "internal/failpoint", "internal/watchdog", "replica/core"}, floor3...),
			"the only place where the rooms of floor 3 meet"},
		"cmd/internal/journalbench": {4, []string{"internal/ident", "journal", "journal/entry"},
			"measures a journal alone: with a node around it the figures would be about the node"},
		"cmd/internal/peersbench": {4, nil,
			"measures programs from outside, this one like the other: nothing of it may run in the measuring process"},
		"cmd/internal/redisconn": {1, nil,
			"what goes over it is known to the byte: it knows neither who asks nor what the answers mean"},
		"cmd/internal/switchload": {4, []string{"client", "cmd/internal/redisconn"},
			"clients that know what they have to find: anything of a node in it would be no client any more"},
		"cmd/internal/cli": {4, []string{"client", "cmd/internal/journalbench", "cmd/internal/switchload", "cmd/internal/node", "internal/ident", "journal", "journal/entry", "archive", "replica/restore"},
			"talks to nodes only through client; journal and entry, archive and restore are for receivers without a node"},
		"cmd/internal/testcluster": {4, append([]string{"archive/fakestore", "cmd/internal/node", "cmd/internal/oracle", "cmd/internal/redisload", "cmd/internal/switchload", "internal/watchdog", "replica/restore"}, floor3...),
			"several nodes in one test process"},
		"cmd/internal/simulation": {4, []string{"cluster/core", "replica/core", "fsm", "journal/entry", "internal/ident", "internal/mutant"},
			"drives the decisions of floor 3 alone: with a disk, a network or a clock in it a seed would not replay"},
		"cmd/internal/oracle": {1, nil,
			"judges histories of any kind of cluster: it must not know how one is run"},
		"cmd/internal/redisload": {4, []string{"cmd/internal/oracle", "cmd/internal/redisconn"},
			"Redis clients as they come: whose nodes they speak to is told by whoever starts them"},
		"cmd/internal/nodesim": {4, append([]string{"cmd/internal/node", "cmd/internal/oracle", "cmd/internal/redisload", "internal/mutant"}, floor3...),
			"whole nodes in virtual time"},
		"cmd/internal/faultlab": {4, []string{"client", "cmd/internal/oracle", "cmd/internal/redisload", "internal/failpoint", "internal/ident"},
			"real processes, seen as a client and a network see them: nothing of a node may run in the test's own process"},
		"cmd/understudy": {4, []string{"cmd/internal/cli"},
			"main is thin"},
	}
}

// ban forbids imports from outside this module.
type ban struct {
	in      []string // packages, and all below them
	imports []string // import paths, and all below them
	except  []string // import paths, and files of ours, that are allowed all the same
	why     string
}

func bans() []ban {
	return []ban{
		{in: []string{"internal/ident", "fsm", "journal/entry", "journal/remote/wire", "cluster/core", "replica/core"},
			imports: []string{"os", "net", "math/rand", "crypto/rand", "sync", "github.com/cockroachdb"},
			except:  []string{"fsm/machine.go"}, // the adapter to hashicorp/raft
			why:     "pure: no disk, no network, no chance, no goroutines"},
		{in: []string{"fsm"}, imports: []string{"github.com/hashicorp"}, except: []string{"fsm/machine.go"},
			why: "decisions are tested without Raft; only the adapter knows it"},
		{in: []string{"journal", "replica", "api", "client"}, imports: []string{"github.com/hashicorp/raft", "github.com/hashicorp/memberlist"},
			why: "nothing of the data path goes through Raft or gossip"},
		{in: []string{"journal", "api", "client", "cluster", "fsm"}, imports: []string{"github.com/cockroachdb/pebble"},
			except: []string{"github.com/cockroachdb/pebble/v2/vfs"},
			why:    "the database is replica/store's own; others use only its file system seam"},
		{in: []string{"client"}, imports: []string{"github.com", "golang.org", "go.uber.org"},
			except: []string{"go.uber.org/goleak", "pgregory.net/rapid"},
			why:    "public: standard library only, so that using it costs nothing"},
		{in: []string{"journal", "replica", "cluster", "fsm", "client", "internal"}, imports: []string{"github.com/gorilla", "net/http", "github.com/spf13"},
			except: []string{"client", "net/http/pprof"},
			why:    "HTTP and command lines are doors, and doors are in api and cmd"},
		{in: []string{"."}, imports: []string{"log", "log/slog"},
			why: "logging is hclog, injected"},
		{in: []string{"."}, imports: []string{"unsafe", "C", "plugin"},
			why: "no cgo, nothing that the race detector cannot see"},
	}
}

// TestImportsGoDownwards holds the import table.
func TestImportsGoDownwards(t *testing.T) {
	rooms := house()
	for _, s := range sources(t) {
		r, known := rooms[s.dir]
		if !known {
			t.Errorf("package %s does not stand in the import table: decide its floor in internal/archtest", s.dir)
			continue
		}
		for _, p := range s.imports() {
			dir, ours := strings.CutPrefix(p, module+"/")
			if !ours || dir == s.dir { // an external test imports its own package
				continue
			}
			if !slices.Contains(r.may, dir) {
				t.Errorf("%s imports %s: %s", s.path, dir, r.why)
			}
		}
	}
}

// TestTableHasNoArrowUp checks the table itself.
func TestTableHasNoArrowUp(t *testing.T) {
	rooms := house()
	for _, name := range slices.Sorted(maps.Keys(rooms)) {
		for _, to := range rooms[name].may {
			target, known := rooms[to]
			switch {
			case !known:
				t.Errorf("%s may import %s, which does not stand in the table", name, to)
			case target.floor > rooms[name].floor:
				t.Errorf("%s on floor %d may import %s on floor %d: imports go downwards", name, rooms[name].floor, to, target.floor)
			}
		}
	}
	for _, pair := range [][2]string{{"api", "cluster"}, {"api", "replica"}, {"cluster", "replica"}, {"cluster", "api"}, {"replica", "cluster"}, {"replica", "api"}} {
		if slices.Contains(rooms[pair[0]].may, pair[1]) {
			t.Errorf("%s may import %s: the rooms of floor 3 never import each other, cmd/internal/node joins them", pair[0], pair[1])
		}
	}
}

// TestForeignImports holds the bans on packages of others. Tests may use more.
func TestForeignImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, p := range s.imports() {
			if strings.HasPrefix(p, module) {
				continue
			}
			for _, b := range bans() {
				if !under(s.dir, b.in) || !under(p, b.imports) || under(p, b.except) || under(s.path, b.except) {
					continue
				}
				t.Errorf("%s imports %s: %s", s.path, p, b.why)
			}
		}
	}
}

// under tells whether name is one of the prefixes or stands below one; "." is above everything.
func under(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return p == "." || name == p || strings.HasPrefix(name, p+"/")
	})
}
