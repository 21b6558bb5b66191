// Package archtest holds the rules about the shape of this repository as tests: who may import whom, how long a file may
// be, and what does not belong into one. It has no code of its own.
package archtest
