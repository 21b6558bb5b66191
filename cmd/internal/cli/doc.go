// Package cli is the command line of Understudy: one constructor per cobra command, no package state. Commands talk to
// nodes only through package client; `server` runs a node in this process, `dev` and `demo` run several as children.
//
// Standard output carries the answer, as aligned text or, with -o json, as the JSON that the API gave. Standard error
// carries progress and errors. Exit codes are part of the interface and listed in exit.go.
package cli
