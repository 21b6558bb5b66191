// Command understudy is a clustered hot backup: the server, and the operator's tool for it.
package main

import (
	"os"

	"github.com/understudy-ha/understudy/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
