//go:build race

package nodesim

// schedules is the default: the race detector makes each one many times slower.
const schedules = 20
