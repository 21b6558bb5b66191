package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// orderOptions are what pause and maintenance have in common.
type orderOptions struct {
	reason string
	length time.Duration
}

func (o *orderOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.reason, "reason", "", "why, for whoever looks at the status (required)")
	cmd.Flags().DurationVar(&o.length, "for", 0, "end it by itself after this long, such as 2h (default: only a command ends it)")
}

func (o *orderOptions) request() (client.OrderRequest, error) {
	switch {
	case o.reason == "":
		return client.OrderRequest{}, usagef("--reason is missing: say why, for whoever looks at the status")
	case o.length < 0:
		return client.OrderRequest{}, usagef("--for %s: must be positive", o.length)
	}
	return client.OrderRequest{Reason: o.reason, For: client.Duration(o.length), By: operator()}, nil
}

// operator names who gives an order: the user of this machine.
func operator() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

func newPause(a *app) *cobra.Command {
	var o orderOptions
	cmd := &cobra.Command{
		Use:   "pause --reason TEXT",
		Short: "Keep automatic failover, switch-back and replacement from beginning",
		Long: `Keep automatic failover, switch-back and replacement from beginning in the whole cluster. What has begun goes on, and
commands work as ever. A primary that dies meanwhile has no successor until the pause ends or you name one with
failover; one that is restarted takes its role up again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.request()
			if err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				p, err := cl.Pause(ctx, r)
				if err != nil {
					return err
				}
				return a.show(p, func(w io.Writer) { writePause(w, p) })
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func newResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "End the pause",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				p, err := cl.Resume(ctx)
				if err != nil {
					return err
				}
				return a.show(p, func(w io.Writer) { writePause(w, p) })
			})
		},
	}
}

func writePause(w io.Writer, p client.PauseState) {
	if p.Pause == nil {
		fmt.Fprintf(w, "Not paused: %s.\n", p.Note)
		return
	}
	writeProse(w, 2, "Paused: "+orderText(*p.Pause)+".")
	writeProse(w, 2, upperFirst(p.Note)+".")
	if p.Warning != "" {
		writeProse(w, 2, "WARNING: "+p.Warning+".")
	}
}

// orderText says who ordered something, until when and why.
func orderText(o client.Order) string {
	s := o.Reason
	if o.By != "" {
		s += ", by " + o.By
	}
	if !o.Since.IsZero() {
		s += ", since " + humanSecond(o.Since)
	}
	if !o.Until.IsZero() {
		s += ", until " + humanSecond(o.Until)
	}
	return s
}

func newMaintenance(a *app) *cobra.Command {
	var o orderOptions
	cmd := &cobra.Command{
		Use:   "maintenance NODE on|off",
		Short: "Keep roles from going to a node by themselves while it is worked on",
		Long: `Keep roles from going to a node by themselves while it is worked on. A node in maintenance is chosen by a failover, and
taken into the in-sync set, only if nobody else may be; the role never returns to it by itself. It takes no role away:
hand the primary role over with switchover before you stop the node.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r client.OrderRequest
			switch args[1] {
			case "on":
				var err error
				if r, err = o.request(); err != nil {
					return err
				}
			case "off":
				if o.reason != "" || o.length != 0 {
					return usagef("--reason and --for belong to `maintenance NODE on`")
				}
			default:
				return usagef("%q: want on or off", args[1])
			}
			return a.withClient(func(cl *client.Client) (err error) {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				var m client.MaintenanceState
				if args[1] == "on" {
					m, err = cl.Maintain(ctx, args[0], r)
				} else {
					m, err = cl.EndMaintenance(ctx, args[0])
				}
				if err != nil {
					return err
				}
				return a.show(m, func(w io.Writer) { writeMaintenance(w, m) })
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func writeMaintenance(w io.Writer, m client.MaintenanceState) {
	if m.Maintenance == nil {
		fmt.Fprintf(w, "Node %s is not in maintenance.\n", m.Node)
	} else {
		writeProse(w, 2, "Node "+m.Node+" is in maintenance: "+orderText(*m.Maintenance)+".")
	}
	writeProse(w, 2, upperFirst(asCommands(m.Note))+".")
}
