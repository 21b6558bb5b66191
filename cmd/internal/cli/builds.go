package cli

import (
	"fmt"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// buildConcerns tells of nodes whose build keeps them out.
func buildConcerns(st client.Status) []string {
	var out []string
	for _, k := range st.Knocking {
		out = append(out, fmt.Sprintf("node %s runs another build and is kept out, seen %s ago: it speaks inter-node protocol %s, this cluster %d; start it with the build that the others run",
			k.Node, max(0, time.Since(k.Last)).Round(time.Second), ident.Protocol(k.Protocol), st.Protocol))
	}
	return out
}
