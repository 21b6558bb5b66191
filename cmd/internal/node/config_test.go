package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-ha/understudy/fsm"
)

const minimal = "node: a\ncluster: demo\ndata: /tmp/a\nbootstrap: true\n"

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "understudy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(pairs map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := pairs[k]; return v, ok }
}

func TestReadConfigDefaults(t *testing.T) {
	c, err := readConfig(writeConfig(t, minimal), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Kind != fsm.KindData || c.Priority != 100 || c.LogLevel != "info" || c.Insecure {
		t.Errorf("defaults are missing: %+v", c)
	}
	if c.Listen.Ship != "127.0.0.1:7403" || c.Advertise != c.Listen {
		t.Errorf("addresses: listen %+v, advertise %+v", c.Listen, c.Advertise)
	}
	if c.Timing.Lease != 2*time.Second || c.Timing.Renew != 500*time.Millisecond {
		t.Errorf("timing: %+v", c.Timing)
	}
	if len(c.Groups) != 1 || c.Groups[0].Name != "default" || c.Groups[0].Files[0] != "*" {
		t.Errorf("groups: %+v", c.Groups)
	}
}

func TestReadConfigEnvironment(t *testing.T) {
	c, err := readConfig(writeConfig(t, minimal), environment(map[string]string{
		"UNDERSTUDY_NODE":           "b",
		"UNDERSTUDY_JOIN":           "127.0.0.1:7402, 127.0.0.1:7422",
		"UNDERSTUDY_BOOTSTRAP":      "false",
		"UNDERSTUDY_PRIORITY":       "7",
		"UNDERSTUDY_LISTEN_HTTP":    "127.0.0.1:7410",
		"UNDERSTUDY_ADVERTISE_RAFT": "192.0.2.1:7402",
		"UNDERSTUDY_TIMING_LEASE":   "3s",
		"UNDERSTUDY_PORT":           "tcp://10.0.0.1:7400", // set by Kubernetes for a service called understudy
	}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != "b" || c.Bootstrap || c.Priority != 7 || len(c.Join) != 2 || c.Join[1] != "127.0.0.1:7422" ||
		c.Listen.HTTP != "127.0.0.1:7410" || c.Advertise.HTTP != "127.0.0.1:7410" ||
		c.Advertise.Raft != "192.0.2.1:7402" || c.Timing.Lease != 3*time.Second {
		t.Errorf("%+v", c)
	}
}

func TestReadConfigRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
		env              map[string]string
	}{
		{name: "unknown key", text: minimal + "colour: red\n", want: "unknown field"},
		{name: "unknown nested key", text: minimal + "listen: {htpt: 127.0.0.1:1}\n", want: "htpt"},
		{name: "repeated key", text: minimal + "node: b\n", want: "already"},
		{name: "not yaml", text: "node: [", want: "understudy.yaml"},
		{name: "empty", text: "", want: "node: is missing"},
		{name: "no node", text: "cluster: demo\ndata: /tmp/a\nbootstrap: true\n", want: "node: is missing"},
		{name: "no cluster", text: "node: a\ndata: /tmp/a\nbootstrap: true\n", want: "cluster: is missing"},
		{name: "no data", text: "node: a\ncluster: demo\nbootstrap: true\n", want: "data: is missing"},
		{name: "bad node", text: "node: A b\ncluster: demo\ndata: /tmp/a\nbootstrap: true\n", want: "lower-case"},
		{name: "word of a path", text: "node: local\ncluster: demo\ndata: /tmp/a\nbootstrap: true\n", want: "stands for a journal"},
		{name: "another one", text: "node: replays\ncluster: demo\ndata: /tmp/a\nbootstrap: true\n", want: "choose another one"},
		{name: "alone", text: "node: a\ncluster: demo\ndata: /tmp/a\n", want: "join: is missing"},
		{name: "bad join", text: minimal + "join: [nowhere]\n", want: "host:port"},
		{name: "kind", text: minimal + "kind: arbiter\n", want: "data or witness"},
		{name: "witness first", text: minimal + "kind: witness\n", want: "bootstrap a data node"},
		{name: "open address", text: minimal + "listen: {http: 192.0.2.1:7400}\n", want: "insecure: true"},
		{name: "all addresses", text: minimal + "listen: {http: \":7400\"}\n", want: "insecure: true"},
		{name: "wildcard advertised", text: minimal + "insecure: true\nlisten: {http: 0.0.0.0:7400}\n", want: "advertise.http"},
		{name: "same port", text: minimal + "listen: {http: 127.0.0.1:7402}\n", want: "port 7402 is used by listen.http"},
		{name: "bad port", text: minimal + "listen: {http: 127.0.0.1:99999}\n", want: "65535"},
		{name: "no group name", text: minimal + "groups: [{files: [x]}]\n", want: "groups[0].name: is missing"},
		{name: "group twice", text: minimal + "groups: [{name: x}, {name: x}]\n", want: "used twice"},
		{name: "delivery", text: minimal + "groups: [{name: x, delivery: maybe}]\n", want: "sync, async"},
		{name: "pattern", text: minimal + "groups: [{name: x, files: [\"[\"]}]\n", want: "is not a pattern"},
		{name: "only excluded", text: minimal + "groups: [{name: x, files: [\"!a\"]}]\n", want: "groups[0].files: [\"!a\"] only exclude"},
		{name: "keys", text: minimal + "groups: [{name: x, keys: {from: b, to: a}}]\n", want: "groups[0].keys: from \"b\" is not below"},
		{name: "half a byte", text: minimal + "groups: [{name: x, keys: {from: hex:0}}]\n", want: "hexadecimal"},
		{name: "no such bound", text: minimal + "groups: [{name: x, keys: {form: a}}]\n", want: "form"},
		{name: "two take all", text: minimal + "groups: [{name: x}, {name: y}]\n", want: "groups[1].files: \"*\" of group x and \"*\" of group y"},
		{name: "two take some", text: minimal + "groups: [{name: x, files: [orders*]}, {name: z}, {name: y, files: [\"*s-1\"]}]\n", want: "groups[2].files"},
		{name: "ranges overlap", text: minimal + "groups: [{name: x, keys: {to: n}}, {name: y, keys: {from: m}}]\n", want: "ranges of keys that do not overlap"},
		{name: "receiver size", text: minimal + "groups: [{name: x, receiver_bytes: 5}]\n", want: "1 MiB"},
		{name: "switch-back at once", text: minimal + "groups: [{name: x, switchback: auto, switchback_after: 1ms}]\n", want: "at least 1s"},
		{name: "lease", text: minimal + "timing: {lease: 600ms}\n", want: "three times"},
		{name: "log level", text: minimal + "log_level: loud\n", want: "log_level"},
		{name: "environment", text: minimal, want: "UNDERSTUDY_PRIORITY=high", env: map[string]string{"UNDERSTUDY_PRIORITY": "high"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readConfig(writeConfig(t, tc.text), environment(tc.env))
			var ce *ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, want a *ConfigError", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("message lacks %q:\n%v", tc.want, err)
			}
		})
	}
}

func TestConfigErrorListsAllProblems(t *testing.T) {
	_, err := readConfig(writeConfig(t, "kind: arbiter\n"), environment(nil))
	for _, want := range []string{"node:", "cluster:", "data:", "kind:", "join:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the problems: %v", want, err)
		}
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	_, err := ReadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// The example in deploy/ is what operators copy: it must be valid as it stands.
func TestExampleConfig(t *testing.T) {
	c, err := readConfig(filepath.Join("..", "..", "..", "deploy", "understudy.yaml"), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != "a" || len(c.Join) != 2 || len(c.Groups) != 1 || c.Groups[0].Preferred != "a" {
		t.Errorf("%+v", c)
	}
}

func TestUnknownOverrides(t *testing.T) {
	got := UnknownOverrides([]string{"HOME=/", "UNDERSTUDY_NODE=a", "UNDERSTUDY_TIMING_LEES=3s", "UNDERSTUDY_ADDR=x", "UNDERSTUDY_LISTEN_HTTP=y"})
	if len(got) != 1 || got[0] != "UNDERSTUDY_TIMING_LEES" {
		t.Errorf("got %q", got)
	}
}

// TestReadConfigSelection: groups with excluding patterns and ranges of keys stand beside each other. Proves TR-7, HB-2, IC-1.
func TestReadConfigSelection(t *testing.T) {
	c, err := readConfig(writeConfig(t, minimal+`groups:
  - {name: default, files: ["*", "!tmp*"]}
  - {name: system, files: ["system.*"]}
  - {name: low, files: [big], keys: {to: 5}, preferred: a}
  - {name: middle, files: [big], keys: {from: "5", to: hex:ff00}, preferred: b}
  - {name: high, files: [big], keys: {from: hex:ff00}, preferred: c}
`), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []fsm.KeyRange{{}, {}, {To: "5"}, {From: "5", To: "\xff\x00"}, {From: "\xff\x00"}}
	for i, g := range c.Groups {
		if g.Keys != want[i] {
			t.Errorf("%s has %q, want %q", g.Name, g.Keys, want[i])
		}
	}
}
