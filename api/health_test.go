package api

import (
	"errors"
	"io"
	"testing"

	"github.com/understudy-ha/understudy/client"
)

// Proves CL-4, the health paths: each condition against each situation of a copy.
func TestHealthConditions(t *testing.T) {
	conditions := []string{"primary", "secondary", "standby", "replica", "replica?lag=10", "replica?lag=2s", "health", "readyz", "livez"}
	group := func(role string, change func(*client.GroupStatus)) client.GroupStatus {
		g := client.GroupStatus{
			Name: "default", Phase: "opened", Primary: "b", InSync: []string{"c"}, Spec: client.GroupSpec{Secondaries: 1},
			Local: client.Copy{Role: role, Readable: true},
		}
		if change != nil {
			change(&g)
		}
		return g
	}
	for _, tc := range []struct {
		name  string
		group client.GroupStatus
		holds string // a + or - for each condition
	}{
		{"serving primary", group("primary", func(g *client.GroupStatus) { g.Primary, g.Local.Serving = "a", true }), "+-----+++"},
		{"primary without a lease", group("primary", func(g *client.GroupStatus) { g.Primary = "a" }), "-------++"},
		{"primary that recovers", group("primary", func(g *client.GroupStatus) { g.Primary, g.Phase, g.Local.Readable = "a", "promoted", false }), "--------+"},
		{"secondary", group("secondary", nil), "-+-++++++"},
		{"secondary with a lag of 11 entries", group("secondary", func(g *client.GroupStatus) { g.Local.LagEntries = 11 }), "-+-+-++++"},
		{"secondary that is 3 s old", group("secondary", func(g *client.GroupStatus) { g.Local.LagSeconds = 3 }), "-+-++-+++"},
		{"secondary, too few of them", group("secondary", func(g *client.GroupStatus) { g.InSync = nil }), "-+-++++++"},
		{"standby", group("standby", nil), "--+++++++"},
		{"standby that reconciles", group("standby", func(g *client.GroupStatus) { g.Local.Readable = false }), "--+---+-+"},
		{"standby that needs priming", group("standby", func(g *client.GroupStatus) { g.Local.Readable, g.Local.NeedsPriming = false, true }), "--------+"},
		{"secondary that stopped", group("secondary", func(g *client.GroupStatus) { g.Local.Error = "disk full" }), "-------++"},
		{"witness", group("witness", nil), "------+++"},
		{"fenced", group("secondary", func(g *client.GroupStatus) { g.Phase = "fenced" }), "-+-+++-++"},
		{"nobody", group("secondary", func(g *client.GroupStatus) { g.Primary = "" }), "-+-+++-++"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			f.status.Groups = []client.GroupStatus{tc.group}
			n := start(t, f, nil)
			for i, condition := range conditions {
				want := 503
				if tc.holds[i] == '+' {
					want = 200
				}
				for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
					resp := n.send(t, method, "/"+condition, nil)
					body, _ := io.ReadAll(resp.Body)
					if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/json" {
						t.Errorf("%s /%s: %d %s, want %d", method, condition, resp.StatusCode, body, want)
					}
				}
			}
		})
	}
}

// Without ?group= a condition holds only when it holds for every group.
func TestHealthOfGroups(t *testing.T) {
	f := newFake()
	f.status.Groups = []client.GroupStatus{
		{Name: "default", Phase: "opened", Primary: "a", Spec: client.GroupSpec{Secondaries: 1}, Local: client.Copy{Role: "primary", Serving: true}},
		{Name: "orders", Phase: "opened", Primary: "b", InSync: []string{"a"}, Spec: client.GroupSpec{Secondaries: 1}, Local: client.Copy{Role: "secondary", Readable: true}},
	}
	c := start(t, f, nil).client(t)
	for _, tc := range []struct {
		condition, group string
		holds            bool
	}{
		{"primary", "", false}, {"primary", "default", true}, {"primary", "orders", false}, {"secondary", "orders", true},
		{"health", "", true}, {"readyz", "", true}, {"livez", "", true},
	} {
		h, err := c.Health(t.Context(), tc.condition, tc.group, "")
		if err != nil || h.Holds != tc.holds || h.Node != "a" || (h.Reason == "") != h.Holds {
			t.Errorf("%s %q: %+v, %v", tc.condition, tc.group, h, err)
		}
	}
	for _, condition := range []string{"primary", "health"} {
		if _, err := c.Health(t.Context(), condition, "nonesuch", ""); !errors.Is(err, client.ErrUnknownGroup) {
			t.Errorf("%s of no group: %v", condition, err)
		}
	}
	h, err := c.Health(t.Context(), "health", "", "")
	if err != nil || len(h.Groups) != 2 || !h.Groups[0].Degraded || h.Groups[1].Degraded {
		t.Errorf("degraded: %+v, %v", h, err)
	}

	f.status.RaftLeader = ""
	if h, err := c.Health(t.Context(), "health", "", ""); err != nil || h.Holds {
		t.Errorf("no leader: %+v, %v", h, err)
	}
	f.notLive = errors.New("no Raft leader is known")
	if h, err := c.Health(t.Context(), "readyz", "", ""); err != nil || h.Holds || h.Reason == "" {
		t.Errorf("not ready: %+v, %v", h, err)
	}
	f.status.Groups, f.status.RaftLeader = nil, "a"
	if h, err := c.Health(t.Context(), "primary", "", ""); err != nil || h.Holds {
		t.Errorf("primary of nothing: %+v, %v", h, err)
	}
	if h, err := c.Health(t.Context(), "health", "", ""); err != nil || !h.Holds {
		t.Errorf("no groups: %+v, %v", h, err)
	}
	f.err = errors.New("stuck")
	if h, err := c.Health(t.Context(), "health", "", ""); err != nil || h.Holds || h.Reason != "stuck" {
		t.Errorf("no status: %+v, %v", h, err)
	}
	if h, err := c.Health(t.Context(), "livez", "", ""); err != nil || !h.Holds {
		t.Errorf("livez looks at nothing: %+v, %v", h, err)
	}
}
