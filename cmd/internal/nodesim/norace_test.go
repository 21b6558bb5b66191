//go:build !race

package nodesim

const schedules = 200
