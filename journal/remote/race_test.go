//go:build race

package remote

// everyByte is the distance between the bytes of a session that tests try: the race detector makes each try many times slower.
const everyByte = 13
