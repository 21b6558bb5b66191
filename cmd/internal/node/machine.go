//go:build !failpoints

package node

import "github.com/understudy-ha/understudy/internal/host"

// machine is the host of a server process.
func machine() (host.Host, error) { return host.Real(), nil }
