package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

func newGet(a *app) *cobra.Command {
	var (
		on target
		o  client.ReadOptions
	)
	cmd := &cobra.Command{
		Use:   "get FILE KEY",
		Short: "Print the content of a record",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRecord(args[0], args[1]); err != nil {
				return err
			}
			if o.MaxLag < 0 {
				return usagef("--max-lag %s: must not be negative", o.MaxLag)
			}
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
				defer cancel()
				r, err := cl.Get(ctx, args[0], []byte(args[1]), o)
				if err != nil {
					return err
				}
				return a.show(recordRead{r, r.Applied, r.Age}, func(w io.Writer) {
					_, _ = w.Write(r.Value) // raw, so that it can be piped; a broken pipe has no reader to tell
					if isTerminal(w) && len(r.Value) > 0 && r.Value[len(r.Value)-1] != '\n' {
						fmt.Fprintln(w)
					}
				})
			})
		},
	}
	on.flag(cmd)
	cmd.Flags().BoolVar(&o.Local, "local", false, "from the copy of the node that answers, though it may lag")
	cmd.Flags().StringVar(&o.Group, "group", "", "local: what the node that answers keeps for itself, though a group selects the file by now")
	cmd.Flags().DurationVar(&o.MaxLag, "max-lag", 0, "with --local: refuse a copy that is older")
	return cmd
}

// recordRead is a record with what a read says of the copy it came from, also where that is zero.
type recordRead struct {
	client.Record
	Applied string  `json:"applied"`
	Age     float64 `json:"age_seconds"`
}

// checkRecord refuses names that no node takes.
func checkRecord(file, key string) error {
	switch {
	case file == "":
		return usagef("FILE is empty: name the file that the record belongs to")
	case key == "":
		return usagef("KEY is empty: name the record")
	case len(file) > client.MaxFileName:
		return usagef("FILE has %d bytes, at most %d are possible", len(file), client.MaxFileName)
	case len(key) > client.MaxKey:
		return usagef("KEY has %d bytes, at most %d are possible", len(key), client.MaxKey)
	}
	return nil
}

func newPut(a *app) *cobra.Command {
	var (
		o  client.WriteOptions
		at string
	)
	cmd := &cobra.Command{
		Use:   "put FILE KEY [VALUE]",
		Short: "Write a record; without VALUE the content is read from standard input",
		Args:  cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRecord(args[0], args[1]); err != nil {
				return err
			}
			if o.IfAbsent && o.IfPosition != "" {
				return usagef("both --if-absent and --if-position are given: a record that is absent has no position")
			}
			if err := checkExpiry(cmd, &o, at); err != nil {
				return err
			}
			var value []byte
			if len(args) == 3 {
				value = []byte(args[2])
			} else {
				var err error
				if value, err = io.ReadAll(io.LimitReader(a.in, client.MaxValue+1)); err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
			}
			if len(value) > client.MaxValue {
				return usagef("the content is larger than %s, the most a record holds", humanBytes(client.MaxValue))
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), 2*askTimeout)
				defer cancel()
				w, err := cl.Put(ctx, args[0], []byte(args[1]), value, o)
				if err != nil {
					return err
				}
				return a.showReceipt(w, yesNo(w.Created, "created", "updated"))
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.IfAbsent, "if-absent", false, "only if there is no such record")
	f.StringVar(&o.IfPosition, "if-position", "", "only if the record's last change was at this position, such as default@3.42")
	f.StringVar(&o.IdempotencyKey, "idempotency-key", "", "repeat the command with the same key and it is done once")
	cmd.Flags().DurationVar(&o.TTL, "ttl", 0, "the record expires so long after the node takes it; without this or --expiry it never does")
	cmd.Flags().StringVar(&at, "expiry", "", "the record expires at this time, as in RFC 3339, such as 2026-11-22T15:04:05Z")
	return cmd
}

// checkExpiry sets in o when a record expires, and refuses what no node takes.
func checkExpiry(cmd *cobra.Command, o *client.WriteOptions, at string) error {
	if cmd.Flags().Changed("ttl") && o.TTL <= 0 {
		return usagef("--ttl %s: must be more than 0s", o.TTL)
	}
	if at == "" {
		return nil
	}
	if o.TTL != 0 {
		return usagef("--ttl and --expiry: give one of them")
	}
	var err error
	if o.Expiry, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return usagef("--expiry %s: want a time as in RFC 3339, such as 2026-11-22T15:04:05Z", at)
	}
	return nil
}

func newDelete(a *app) *cobra.Command {
	var o client.WriteOptions
	cmd := &cobra.Command{
		Use:   "delete FILE KEY",
		Short: "Delete a record",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRecord(args[0], args[1]); err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), 2*askTimeout)
				defer cancel()
				w, err := cl.Delete(ctx, args[0], []byte(args[1]), o)
				if err != nil {
					return err
				}
				return a.showReceipt(w, "deleted")
			})
		},
	}
	cmd.Flags().StringVar(&o.Group, "group", "", "local: what the node that answers keeps for itself, though a group selects the file by now")
	return cmd
}

func (a *app) showReceipt(r client.WriteResult, what string) error {
	return a.show(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s at %s, entry %d of journal %s\n", what, r.Position, r.Sequence, r.Journal)
		if r.Local != "" {
			fmt.Fprintf(w, "no group selects this file: the record is on node %s alone, and no other node has a copy\n", r.Local)
		}
	})
}

func newList(a *app) *cobra.Command {
	var (
		on           target
		o            client.ListOptions
		prefix, from string
		most         int
	)
	cmd := &cobra.Command{
		Use:   "list FILE",
		Short: "List the records of a file in key order",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.MaxLag < 0 {
				return usagef("--max-lag %s: must not be negative", o.MaxLag)
			}
			if most < 1 {
				return usagef("--limit %d: must be positive", most)
			}
			o.Prefix, o.From, o.Limit = []byte(prefix), []byte(from), min(most, 1000)
			return a.withTarget(cmd.Context(), on, func(cl *client.Client) error {
				return a.listRecords(cmd.Context(), cl, args[0], o, most)
			})
		},
	}
	on.flag(cmd)
	f := cmd.Flags()
	f.StringVar(&prefix, "prefix", "", "only keys that begin so")
	f.StringVar(&from, "from", "", "from this key on")
	f.IntVar(&most, "limit", 100, "at most this many")
	f.BoolVar(&o.Local, "local", false, "from the copy of the node that answers, though it may lag")
	f.DurationVar(&o.MaxLag, "max-lag", 0, "with --local: refuse a copy that is older")
	f.StringVar(&o.Group, "group", "", "only what this group owns of the file; local: what the node that answers keeps for itself, though a group selects the file by now")
	return cmd
}

func (a *app) listRecords(ctx context.Context, cl *client.Client, file string, o client.ListOptions, most int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	records := []client.Record{}
	more, next := false, "" // the first that is not shown
	for r, err := range cl.All(ctx, file, o) {
		if err != nil {
			return err
		}
		if len(records) == most {
			more, next = true, string(r.Bytes())
			break
		}
		records = append(records, r)
	}
	return a.show(records, func(w io.Writer) {
		if len(records) == 0 {
			fmt.Fprintln(w, "No records.")
			return
		}
		t := newTable("KEY", ">SIZE", "POSITION", "CHANGED", "~CONTENT")
		for _, r := range records {
			t.add(printable(r.Bytes(), 60), humanBytes(int64(len(r.Value))), r.Position, humanSecond(r.Time), printable(r.Value, 40))
		}
		t.write(w)
		if more {
			fmt.Fprintf(w, "There are more: --from %s, or a higher --limit.\n", shellQuote(next))
		}
	})
}
