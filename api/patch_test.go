package api

import (
	"strings"
	"testing"
)

// Proves CL-4: a null of a merge patch, which asks for the default, is passed on to the primary like every other value.
func TestForwardedPatchKeepsNull(t *testing.T) {
	primary := start(t, newFake(), nil)
	f := newFake()
	f.ask = elsewhere(primary.address)
	n := start(t, f, func(o *Options) { o.Node = "b" })
	for body, want := range map[string]string{
		`{"delivery":null}`:            "change default [delivery] to  0 ",
		`{"delivery":null,"blocks":3}`: "change default [blocks delivery] to  3 ",
	} {
		resp := n.send(t, "PATCH", "/v1/groups/default", strings.NewReader(body))
		asked := primary.take()
		if resp.StatusCode != 200 || len(asked) != 1 || !strings.HasPrefix(asked[0], want) {
			t.Errorf("%s: answered %d, and the primary was asked %q: want 200, and %q", body, resp.StatusCode, asked, want)
		}
	}
}

// A key that cannot be changed is passed to who says why, the range of keys like the files.
func TestPatchOfKeysIsAnsweredByTheNode(t *testing.T) {
	n := start(t, newFake(), nil)
	resp := n.send(t, "PATCH", "/v1/groups/default", strings.NewReader(`{"keys":{"from":"h"}}`))
	if asked := n.take(); resp.StatusCode != 200 || len(asked) != 1 || !strings.HasPrefix(asked[0], "change default [keys]") {
		t.Errorf("answered %d, asked %q", resp.StatusCode, asked)
	}
}
