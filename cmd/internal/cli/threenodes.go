package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// onThreeNodes starts three nodes in a directory of their own for as long as use takes. The directory is kept where somebody wants it, or has a
// failure to look into. With silent nobody tells the cluster of a process that died.
func (a *app) onThreeNodes(ctx context.Context, name string, keep, silent bool, use func(*demo) error) (err error) {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "understudy-"+name+"-")
	if err != nil {
		return fmt.Errorf("create a directory: %w", err)
	}
	c, err := newDevCluster(dir, 3, ports, false, io.Discard)
	if err != nil {
		return err
	}
	c.silent = silent
	cl := client.New(c.http()...)
	defer func() {
		cl.Close()
		err = errors.Join(err, c.stop(nil))
		if err != nil && ctx.Err() == nil || keep {
			a.notice("Data and logs are kept in %s", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := c.start(); err != nil {
		return err
	}
	if _, err := c.waitReady(ctx, cl); err != nil {
		return err
	}
	return use(&demo{out: io.Discard, cluster: c, client: cl, began: time.Now()})
}
