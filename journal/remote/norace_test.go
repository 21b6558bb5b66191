//go:build !race

package remote

// everyByte is the distance between the bytes of a session that tests try.
const everyByte = 1
