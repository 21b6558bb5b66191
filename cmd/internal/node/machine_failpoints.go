//go:build failpoints

package node

import (
	"github.com/understudy-ha/understudy/internal/failpoint"
	"github.com/understudy-ha/understudy/internal/host"
)

// machine is the host of a server process whose failpoints tests set through its environment.
func machine() (host.Host, error) {
	set, err := failpoint.FromEnvironment()
	if err != nil {
		return host.Host{}, &PreconditionError{err}
	}
	return set.Host(host.Real()), nil
}
