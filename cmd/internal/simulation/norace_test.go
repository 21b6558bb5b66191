//go:build !race

package simulation

// seedsPerRun is how many seeds a test run plays.
const seedsPerRun = 10000
