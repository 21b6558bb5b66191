//go:build race

package simulation

// seedsPerRun is how many seeds a test run plays: the race detector makes each of them many times slower.
const seedsPerRun = 300
