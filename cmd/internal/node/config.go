package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
)

// Config is everything a node needs to know before it starts: one YAML file, overridden by the environment. ReadConfig
// fills in the defaults, so a Config it returned has no zero value that needs interpretation.
type Config struct {
	Node      ident.NodeID    `yaml:"node"`                // short name, unique in the cluster
	Cluster   string          `yaml:"cluster"`             // the operator's name; another name on the same directory is refused
	Data      string          `yaml:"data"`                // data directory, locked exclusively while the node runs
	Kind      fsm.NodeKind    `yaml:"kind"`                // data | witness
	Priority  int             `yaml:"priority"`            // lower is preferred as candidate
	Bootstrap bool            `yaml:"bootstrap"`           // exactly one node of a new cluster
	Join      []string        `yaml:"join,omitempty"`      // raft addresses of other members
	Listen    Addresses       `yaml:"listen"`              // where the node accepts connections
	Advertise Addresses       `yaml:"advertise,omitempty"` // what others are told; each default is the one in Listen
	Groups    []fsm.GroupSpec `yaml:"groups,omitempty"`    // created by the bootstrapping node when the cluster is new
	Timing    Timing          `yaml:"timing"`
	Hooks     Hooks           `yaml:"hooks,omitempty"`   // programs run for events
	Redis     Redis           `yaml:"redis"`             // how Redis clients are answered
	Scrub     Scrub           `yaml:"scrub"`             // the check of the journals in the background
	Archive   Archive         `yaml:"archive,omitempty"` // where detached receivers are archived
	Replays   Replays         `yaml:"replays,omitempty"` // bounds what journal_replays of a group records here
	LogLevel  string          `yaml:"log_level"`         // trace | debug | info | warn | error
	Insecure  bool            `yaml:"insecure"`          // allow addresses beyond loopback although nothing is encrypted
	Moved     bool            `yaml:"-"`                 // the data directory was moved here on purpose; said for one start, never in the file

	LocalFiles   bool         `yaml:"local_files"`             // files that no group selects are kept on this node alone; else they are refused
	LocalJournal LocalJournal `yaml:"local_journal,omitempty"` // bounds their journal

	IdempotencyKeep time.Duration `yaml:"idempotency_keep"` // so long a repeated write with the same idempotency key is known
}

// Addresses are host:port pairs of one node, one for each of its listeners.
type Addresses struct {
	HTTP   string `yaml:"http,omitempty"`
	Gossip string `yaml:"gossip,omitempty"`
	Raft   string `yaml:"raft,omitempty"`
	Ship   string `yaml:"ship,omitempty"`
	Redis  string `yaml:"redis,omitempty"` // "": no Redis clients
}

// FSM returns the addresses as Raft records them.
func (a Addresses) FSM() fsm.Addresses {
	return fsm.Addresses{HTTP: a.HTTP, Gossip: a.Gossip, Raft: a.Raft, Ship: a.Ship, Redis: a.Redis}
}

// named lists the addresses with their keys, in the order of the file.
func (a *Addresses) named() []namedAddress {
	return []namedAddress{{"http", &a.HTTP}, {"gossip", &a.Gossip}, {"raft", &a.Raft}, {"ship", &a.Ship}, {"redis", &a.Redis}}
}

type namedAddress struct {
	key  string
	addr *string
}

// Timing holds the few times an operator may want to change.
type Timing struct {
	Lease       time.Duration `yaml:"lease"`        // validity of the node lease: a lost host is replaced after it
	Renew       time.Duration `yaml:"renew"`        // how often the lease is renewed
	ShrinkAfter time.Duration `yaml:"shrink_after"` // a silent in-sync secondary holds writes up this long
	Watchdog    time.Duration `yaml:"watchdog"`     // a write to the disk that takes longer ends the process
	HandOver    time.Duration `yaml:"hand_over"`    // a node that is stopped hands its roles over and leaves the sets for at most so long; 0: not at all
}

// DefaultConfig returns the defaults. Node, Cluster and Data have none.
func DefaultConfig() Config {
	return Config{
		Kind:     fsm.KindData,
		Priority: 100,
		Listen: Addresses{
			HTTP: "127.0.0.1:7400", Gossip: "127.0.0.1:7401", Raft: "127.0.0.1:7402", Ship: "127.0.0.1:7403", Redis: "127.0.0.1:7404",
		},
		Timing:  Timing{Lease: 2 * time.Second, Renew: 500 * time.Millisecond, ShrinkAfter: time.Second, Watchdog: 5 * time.Second, HandOver: 10 * time.Second},
		Redis:   Redis{NotPrimary: resp.Forward, OnRoleChange: resp.Keep},
		Scrub:   Scrub{Rate: 8 << 20, Every: 24 * time.Hour},
		Replays: Replays{Bytes: replica.DefaultReplaysBytes},

		LocalJournal: defaultLocalJournal(),

		LogLevel: "info",

		IdempotencyKeep: usualIdempotencyKeep,
	}
}

// ConfigError lists everything that is wrong with one configuration, so that it can be corrected in one go.
type ConfigError struct {
	Path     string // "" when the configuration did not come from a file
	Problems []error
}

func (e *ConfigError) Error() string {
	where := e.Path
	if where == "" {
		where = "configuration"
	}
	if len(e.Problems) == 1 {
		return where + ": " + e.Problems[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d problems:", where, len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Error())
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As access to the single problems.
func (e *ConfigError) Unwrap() []error { return e.Problems }

// ReadConfig reads the YAML file at path, applies UNDERSTUDY_<KEY> of the environment and the defaults, and validates the
// result. Unknown and repeated keys are refused. Everything it refuses is a *ConfigError.
func ReadConfig(path string) (Config, error) { return readConfig(path, os.LookupEnv) }

func readConfig(path string, lookup func(string) (string, bool)) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = fmt.Errorf("cannot be read: %w", at.Err) // the path stands before it
		}
		return Config{}, &ConfigError{Path: path, Problems: []error{err}}
	}
	c := DefaultConfig()
	if len(strings.TrimSpace(string(raw))) > 0 {
		if err := yaml.UnmarshalWithOptions(raw, &c, yaml.Strict()); err != nil {
			return Config{}, &ConfigError{Path: path, Problems: []error{errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))}}
		}
	}
	var problems []error
	for _, o := range overrides() {
		value, ok := lookup(o.name)
		if !ok || value == "" { // templates set names they have no value for
			continue
		}
		if err := o.set(&c, value); err != nil {
			problems = append(problems, fmt.Errorf("%s=%s: %w", o.name, value, err))
		}
	}
	if len(problems) > 0 {
		return Config{}, &ConfigError{Path: path, Problems: problems}
	}
	c.fill()
	if err := c.Validate(); err != nil {
		var ce *ConfigError
		if errors.As(err, &ce) {
			ce.Path = path
		}
		return Config{}, err
	}
	return c, nil
}

// fill sets what depends on other keys. A group of a bootstrapping node that names none is "default", with all files.
func (c *Config) fill() {
	listen := c.Listen.named()
	for i, a := range c.Advertise.named() {
		if *a.addr == "" {
			*a.addr = *listen[i].addr
		}
	}
	if c.Bootstrap && c.Kind == fsm.KindData && len(c.Groups) == 0 {
		c.Groups = []fsm.GroupSpec{{Name: "default", Files: []string{"*"}}}
	}
	if c.Data != "" {
		if abs, err := filepath.Abs(c.Data); err == nil {
			c.Data = abs
		}
	}
}

// override is one environment variable. Other UNDERSTUDY_ names are ignored: container platforms set such names by
// themselves for a service called understudy, and UNDERSTUDY_ADDR belongs to the command line.
type override struct {
	name string
	set  func(c *Config, value string) error
}

// UnknownOverrides lists the UNDERSTUDY_ names in an environment that set nothing; they may be mistyped.
func UnknownOverrides(environ []string) []string {
	known := map[string]bool{"UNDERSTUDY_ADDR": true}
	for _, o := range overrides() {
		known[o.name] = true
	}
	var unknown []string
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); value != "" && strings.HasPrefix(name, "UNDERSTUDY_") && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

func overrides() []override {
	text := func(name string, at func(*Config) *string) override {
		return override{"UNDERSTUDY_" + name, func(c *Config, v string) error { *at(c) = v; return nil }}
	}
	flag := func(name string, at func(*Config) *bool) override {
		return override{"UNDERSTUDY_" + name, func(c *Config, v string) error {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return errors.New("want true or false")
			}
			*at(c) = b
			return nil
		}}
	}
	duration := func(name string, at func(*Config) *time.Duration) override {
		return override{"UNDERSTUDY_TIMING_" + name, func(c *Config, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil {
				return errors.New("want a duration such as 2s or 500ms")
			}
			*at(c) = d
			return nil
		}}
	}
	all := []override{
		{"UNDERSTUDY_NODE", func(c *Config, v string) error { c.Node = ident.NodeID(v); return nil }},
		text("CLUSTER", func(c *Config) *string { return &c.Cluster }),
		text("DATA", func(c *Config) *string { return &c.Data }),
		{"UNDERSTUDY_KIND", func(c *Config, v string) error { c.Kind = fsm.NodeKind(v); return nil }},
		{"UNDERSTUDY_PRIORITY", func(c *Config, v string) (err error) {
			if c.Priority, err = strconv.Atoi(v); err != nil {
				err = errors.New("want a whole number")
			}
			return err
		}},
		flag("BOOTSTRAP", func(c *Config) *bool { return &c.Bootstrap }),
		{"UNDERSTUDY_JOIN", func(c *Config, v string) error {
			c.Join = nil
			for _, addr := range strings.Split(v, ",") {
				if addr = strings.TrimSpace(addr); addr != "" {
					c.Join = append(c.Join, addr)
				}
			}
			return nil
		}},
		duration("LEASE", func(c *Config) *time.Duration { return &c.Timing.Lease }),
		duration("RENEW", func(c *Config) *time.Duration { return &c.Timing.Renew }),
		duration("SHRINK_AFTER", func(c *Config) *time.Duration { return &c.Timing.ShrinkAfter }),
		duration("WATCHDOG", func(c *Config) *time.Duration { return &c.Timing.Watchdog }),
		duration("HAND_OVER", func(c *Config) *time.Duration { return &c.Timing.HandOver }),
		{"UNDERSTUDY_SCRUB_RATE", func(c *Config, v string) error { return c.Scrub.Rate.UnmarshalText([]byte(v)) }},
		{"UNDERSTUDY_SCRUB_EVERY", func(c *Config, v string) (err error) {
			if c.Scrub.Every, err = time.ParseDuration(v); err != nil {
				err = errors.New("want a duration such as 24h")
			}
			return err
		}},
		{"UNDERSTUDY_IDEMPOTENCY_KEEP", func(c *Config, v string) (err error) {
			if c.IdempotencyKeep, err = time.ParseDuration(v); err != nil {
				err = errors.New("want a duration such as 24h")
			}
			return err
		}},
		flag("LOCAL_FILES", func(c *Config) *bool { return &c.LocalFiles }),
		text("ARCHIVE_URL", func(c *Config) *string { return &c.Archive.URL }),
		text("LOG_LEVEL", func(c *Config) *string { return &c.LogLevel }),
		flag("INSECURE", func(c *Config) *bool { return &c.Insecure }),
	}
	var none Addresses
	for i, a := range none.named() {
		all = append(all,
			text("LISTEN_"+strings.ToUpper(a.key), func(c *Config) *string { return c.Listen.named()[i].addr }),
			text("ADVERTISE_"+strings.ToUpper(a.key), func(c *Config) *string { return c.Advertise.named()[i].addr }))
	}
	return all
}

// Validate reports everything that is wrong with c as one *ConfigError; nil when a node can be started with it.
func (c *Config) Validate() error {
	var p []error
	add := func(format string, args ...any) { p = append(p, fmt.Errorf(format, args...)) }

	name := regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	switch {
	case c.Node == "":
		add("node: is missing; give this node a short name, such as a")
	case !name.MatchString(string(c.Node)):
		add("node: %q: use lower-case letters, digits, - and _, at most 63", c.Node)
	case c.Node.Reserved() != nil:
		add("node: %w", c.Node.Reserved())
	}
	switch {
	case c.Cluster == "":
		add("cluster: is missing; give all nodes of one cluster the same name")
	case !name.MatchString(c.Cluster):
		add("cluster: %q: use lower-case letters, digits, - and _, at most 63", c.Cluster)
	}
	if c.Data == "" {
		add("data: is missing; name the directory that keeps journals and records")
	}
	if c.Kind != fsm.KindData && c.Kind != fsm.KindWitness {
		add("kind: %q: want data or witness", c.Kind)
	}
	if c.Priority < 0 {
		add("priority: %d: must not be negative; lower is preferred", c.Priority)
	}
	if !c.Bootstrap && len(c.Join) == 0 {
		add("join: is missing; name the raft address of another member, or set bootstrap: true on exactly one node of a new cluster")
	}
	if c.Bootstrap && c.Kind == fsm.KindWitness {
		add("bootstrap: a witness holds no data and cannot be the first node; bootstrap a data node")
	}
	for _, addr := range c.Join {
		if err := checkAddress(addr); err != nil {
			add("join: %w", err)
		}
	}
	p = append(p, c.checkAddresses()...)
	p = append(p, checkGroups(c.Groups, name)...)
	p = append(p, c.Timing.check()...)
	p = append(p, c.Hooks.check()...)
	p = append(p, c.Redis.check()...)
	p = append(p, c.Scrub.check()...)
	p = append(p, c.Archive.check()...)
	if err := checkIdempotencyKeep(c.IdempotencyKeep); err != nil {
		p = append(p, err)
	}
	p = append(p, c.Replays.check()...)
	p = append(p, c.LocalJournal.check()...)
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, c.LogLevel) {
		add("log_level: %q: want trace, debug, info, warn or error", c.LogLevel)
	}
	if len(p) == 0 {
		return nil
	}
	return &ConfigError{Problems: p}
}

// checkAddresses checks form, reach and uniqueness. Port 0 is allowed: the kernel chooses, and the node advertises what it got.
func (c *Config) checkAddresses() (p []error) {
	add := func(format string, args ...any) { p = append(p, fmt.Errorf(format, args...)) }
	seen := map[string]string{} // port to key
	advertise := c.Advertise.named()
	for i, a := range c.Listen.named() {
		if *a.addr == "" && a.key == "redis" {
			if *advertise[i].addr != "" {
				add("advertise.redis: there is no listen.redis")
			}
			continue
		}
		if *a.addr == "" {
			add("listen.%s: is missing; write host:port", a.key)
			continue
		}
		if err := checkAddress(*a.addr); err != nil {
			add("listen.%s: %w", a.key, err)
			continue
		}
		host, port, _ := net.SplitHostPort(*a.addr)
		if !isLoopback(host) && !c.Insecure {
			add("listen.%s: %s can be reached from other machines, and connections are not encrypted; use a loopback address, or set insecure: true if the network is trusted", a.key, *a.addr)
		}
		if other, ok := seen[port]; ok && port != "0" {
			add("listen.%s: port %s is used by listen.%s already; each listener needs its own", a.key, port, other)
		} else {
			seen[port] = a.key
		}
		if adv := *advertise[i].addr; adv != "" {
			if err := checkAddress(adv); err != nil {
				add("advertise.%s: %w", a.key, err)
			} else if h, _, _ := net.SplitHostPort(adv); isWildcard(h) {
				add("advertise.%s: %s is not an address that other nodes can connect to; name this machine's own", a.key, adv)
			}
		}
	}
	return p
}

func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not an address: want host:port, such as 127.0.0.1:7400", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", addr, port)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func checkGroups(groups []fsm.GroupSpec, name *regexp.Regexp) (p []error) {
	seen := map[ident.GroupName]bool{}
	for i, g := range groups {
		where := fmt.Sprintf("groups[%d]", i)
		add := func(key, format string, args ...any) {
			p = append(p, fmt.Errorf("%s.%s: %w", where, key, fmt.Errorf(format, args...)))
		}
		oneOf := func(key, have string, want ...string) {
			if have != "" && !slices.Contains(want, have) {
				add(key, "%q: want %s", have, strings.Join(want, ", "))
			}
		}
		switch {
		case g.Name == "":
			add("name", "is missing")
		case !name.MatchString(string(g.Name)):
			add("name", "%q: use lower-case letters, digits, - and _, at most 63", g.Name)
		case seen[g.Name]:
			add("name", "%s is used twice", g.Name)
		case reservedGroup(g.Name) != nil:
			add("name", "%w", reservedGroup(g.Name))
		}
		seen[g.Name] = true
		p = append(p, checkSelection(where, g, groups[:i])...)
		oneOf("delivery", string(g.Delivery), "sync", "async")
		oneOf("on_no_sync", g.OnNoSync, "degrade", "hold", "refuse")
		oneOf("auto_failover", g.AutoFailover, "lossless", "off")
		oneOf("images", g.Images, "auto", "both", "after")
		oneOf("compression", g.Compression, fsm.CompressionNone, fsm.CompressionZstd)
		oneOf("switchback", g.Switchback, fsm.SwitchbackManual, fsm.SwitchbackAuto)
		if g.SwitchbackAfter < 0 || g.SwitchbackAfter > 0 && g.SwitchbackAfter < fsm.MinSwitchbackAfter {
			add("switchback_after", "%s: must be at least %s; each attempt may hold writes", g.SwitchbackAfter, fsm.MinSwitchbackAfter)
		}
		oneOf("journal_full", g.JournalFull, fsm.JournalFullStall, fsm.JournalFullDrop)
		if err := g.Normalize().CheckSpace(); err != nil {
			p = append(p, fmt.Errorf("%s.%w", where, err))
		}
		if err := g.CheckFeeds(); err != nil {
			p = append(p, fmt.Errorf("%s.%w", where, err))
		}
		if g.Secondaries < 0 {
			add("secondaries", "%d: must not be negative", g.Secondaries)
		}
		if g.ReceiverBytes != 0 && g.ReceiverBytes < 1<<20 {
			add("receiver_bytes", "%d: a receiver has at least 1 MiB (1048576)", g.ReceiverBytes)
		}
		if g.KeepReceivers < -1 {
			add("keep_receivers", "%d: want -1 (all), or how many", g.KeepReceivers)
		}
	}
	return p
}

// check keeps a lease several renewals long: one lost renewal must not cost the role.
func (t Timing) check() (p []error) {
	add := func(format string, args ...any) { p = append(p, fmt.Errorf(format, args...)) }
	if t.Renew < 20*time.Millisecond {
		add("timing.renew: %s: must be at least 20ms", t.Renew)
	}
	if t.Lease < 3*t.Renew {
		add("timing.lease: %s: must be at least three times timing.renew (%s), or one lost renewal costs the role", t.Lease, t.Renew)
	}
	if t.ShrinkAfter < 10*time.Millisecond {
		add("timing.shrink_after: %s: must be at least 10ms", t.ShrinkAfter)
	}
	if t.Watchdog < 100*time.Millisecond {
		add("timing.watchdog: %s: must be at least 100ms, and far above what a sync of the disk takes", t.Watchdog)
	}
	if t.HandOver < 0 {
		add("timing.hand_over: %s: must not be negative; 0s stops without a hand-over", t.HandOver)
	}
	return p
}
