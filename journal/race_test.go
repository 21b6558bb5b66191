//go:build race

package journal

// flipsPerRun is how many bits a test run flips: the race detector makes each many times slower.
const flipsPerRun = 1000
