package nodesim

import (
	"testing"
)

// Reads that do not ask whether the node is still primary are old at times. Here they are configured; a primary that forgot to look at its
// lease would answer alike. Proves that the histories of Redis clients would show it (CL-7, BX-5).
func TestRedisHistoriesShowStaleReads(t *testing.T) {
	local := func(w *world) {
		for _, m := range w.machines {
			m.config.Redis.LocalReads = true
		}
	}
	const most = 20
	for seed := range uint64(most) {
		if r := simulate(t, seed+1, planned(seed+1), local); r.redis != nil {
			t.Logf("seed %d: %s", seed+1, r.redis)
			return
		}
	}
	t.Errorf("%d schedules with reads of any copy looked linearizable", most)
}
