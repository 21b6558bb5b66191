package resp

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// redisCLI runs Redis's own client against a node and returns what it prints.
func redisCLI(t *testing.T, f *fakeNode, input string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("redis-cli is not installed (Debian: apt-get install redis-tools)")
	}
	_, port, _ := net.SplitHostPort(f.address)
	cmd := exec.CommandContext(t.Context(), program, append([]string{"-p", port, "--no-raw"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil && !slices.Contains(args, "--pipe") { // which says so when a command has failed
		t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestRedisCLI: scripts of redis-cli, in both protocols, and what it can do besides. Proves BX-5.
func TestRedisCLI(t *testing.T) {
	w := newWorld(t, 2)
	w.move("other", "a", false)
	for i, f := range w.nodes { // the second one relays
		for _, proto := range []string{"-2", "-3"} {
			where := fmt.Sprintf("node %d, redis-cli %s", i, proto)
			null := "(nil)"
			script := []string{
				"set s hello", "OK", "get s", `"hello"`, "get none", null, "append s !", "(integer) 6", "incr s", "(error) ERR value is not an integer or out of range",
				"hset h x 1 y 2", "(integer) 2", "hget h y", `"2"`, "get h", "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
				"type h", "hash", "multi", "OK", "incr n", "QUEUED", "get s", "QUEUED", "exec", "1) (integer) 1\n2) \"hello!\"", "mget s none n", "1) \"hello!\"\n2) " + null + "\n3) \"1\"",
				"monitor", "(error) ERR unknown command 'monitor', with args beginning with: ", "flushall", "(error) ERR unknown command 'flushall', with args beginning with: ",
				"debug sleep 1", "(error) ERR unknown command 'debug', with args beginning with: 'sleep' '1' ", "client foo", "(error) ERR unknown subcommand 'foo'. Try CLIENT HELP.",
				"get", "(error) ERR wrong number of arguments for 'get' command", "auth x",
				"(error) ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
				"del s h n none", "(integer) 3",
			}
			var input, want strings.Builder
			for k := 0; k < len(script); k += 2 {
				input.WriteString(script[k] + "\n")
				want.WriteString(strings.TrimRight(script[k+1], "\n") + "\n")
			}
			if got := redisCLI(t, f, input.String(), proto); got != want.String() {
				t.Errorf("%s prints\n%s\nwant\n%s", where, got, want.String())
			}
		}
	}
	if got := redisCLI(t, w.nodes[1], "", "-3", "hset", "m", "f", "v"); got != "(integer) 1\n" {
		t.Errorf("HSET: %q", got)
	}
	if got := redisCLI(t, w.nodes[1], "", "-3", "hgetall", "m"); got != "1# \"f\" => \"v\"\n" {
		t.Errorf("a map in RESP3: %q", got)
	}

	var mass strings.Builder
	const keys = 5000
	for i := range keys {
		mass.WriteString(frame("SET", fmt.Sprint("mass:", i), strings.Repeat("v", i%100)))
	}
	mass.WriteString(frame("INCR", "m"))
	if got := redisCLI(t, w.nodes[1], mass.String(), "--pipe"); !strings.Contains(got, fmt.Sprintf("errors: 1, replies: %d", keys+1)) {
		t.Errorf("--pipe: %s", got)
	}
	seen := map[string]bool{}
	for _, line := range strings.Fields(redisCLI(t, w.nodes[1], "", "--scan", "--pattern", "mass:*")) {
		seen[line] = true
	}
	if len(seen) != keys {
		t.Errorf("--scan finds %d of %d", len(seen), keys)
	}
	big := redisCLI(t, w.nodes[0], "", "--bigkeys")
	for _, want := range []string{fmt.Sprintf("Sampled %d keys", keys+1), "Biggest   hash found", "has 1 fields", "has 99 bytes"} {
		if !strings.Contains(big, want) {
			t.Errorf("--bigkeys does not say %q:\n%s", want, big)
		}
	}
}
