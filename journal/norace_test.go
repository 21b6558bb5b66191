//go:build !race

package journal

// flipsPerRun is how many bits a test run flips.
const flipsPerRun = 10_000
