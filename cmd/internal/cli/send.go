package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/client"
)

// maxSendLine bounds a line of standard input: an entry holds 16 MiB, which base64 makes a third longer.
const maxSendLine = 24 << 20

func newJournalSend(a *app) *cobra.Command {
	var (
		typ, text, file string
		asJSON          bool
	)
	cmd := &cobra.Command{
		Use:   "send GROUP --type XX",
		Short: "Deposit user entries, and print their positions",
		Long: `Deposits user entries (code U) of a type of your own at the primary: one with --text or --data-file, else one for each line
of standard input, in order. With --json each line is an object such as {"type":"A1","text":"…"} or {"type":"A1","data":"base64"};
--type is what a line has that names none. An entry is committed when its position is printed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := sender{a: a, group: args[0]}
			single := client.DepositRequest{Type: typ, Text: text}
			switch {
			case cmd.Flags().Changed("text") && file != "" || asJSON && (file != "" || cmd.Flags().Changed("text")):
				return usagef("give one of --text, --data-file and --json")
			case typ == "" && !asJSON:
				return usagef("--type is missing: two upper-case letters or digits of your own, such as A1")
			case file != "":
				data, err := os.ReadFile(file)
				if err != nil {
					return usagef("--data-file: %v", err)
				}
				single.Data = data
			}
			return a.withClient(func(cl *client.Client) error {
				s.cl = cl
				if file != "" || cmd.Flags().Changed("text") {
					return s.send(cmd.Context(), single)
				}
				return s.lines(cmd.Context(), a.in, typ, asJSON)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&typ, "type", "", "two upper-case letters or digits; SW, MK and HB are the product's own")
	f.StringVar(&text, "text", "", "what the entry says")
	f.StringVar(&file, "data-file", "", "file whose bytes the entry holds")
	f.BoolVar(&asJSON, "json", false, "lines of standard input are JSON objects")
	return cmd
}

// sender deposits entries one after the other, so that their order is that of the lines.
type sender struct {
	a     *app
	cl    *client.Client
	group string
	sent  int
	last  string // position
}

func (s *sender) send(ctx context.Context, d client.DepositRequest) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	w, err := s.cl.DepositEntry(ctx, s.group, d)
	if err != nil {
		return err
	}
	s.sent++
	s.last = w.Position
	return s.a.showLine(w, func(out io.Writer) { fmt.Fprintf(out, "%s  %s:%d\n", w.Position, w.Journal, w.Sequence) })
}

// lines sends what stands in the lines of r. An error names the line; what stands above it was sent.
func (s *sender) lines(ctx context.Context, r io.Reader, typ string, asJSON bool) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxSendLine)
	n := 0
	for in.Scan() {
		n++
		if ctx.Err() != nil {
			return s.stopped(n, context.Cause(ctx))
		}
		d := client.DepositRequest{Type: typ, Data: bytes.Clone(in.Bytes())}
		if asJSON {
			if len(bytes.TrimSpace(in.Bytes())) == 0 {
				continue
			}
			d = client.DepositRequest{Type: typ}
			lines := json.NewDecoder(bytes.NewReader(in.Bytes()))
			lines.DisallowUnknownFields()
			if err := lines.Decode(&d); err != nil {
				return s.stopped(n, &exitError{exitUsage, fmt.Errorf(`want an object such as {"type":"A1","text":"…"}: %w`, err)})
			}
		}
		if err := s.send(ctx, d); err != nil {
			return s.stopped(n, err)
		}
	}
	if err := in.Err(); err != nil {
		return s.stopped(n+1, err)
	}
	if s.a.output != "json" {
		fmt.Fprintf(s.a.err, "%s sent%s.\n", plural(s.sent, "entry", "entries"), s.until())
	}
	return nil
}

func (s *sender) until() string {
	if s.sent == 0 {
		return ""
	}
	return ", the last at " + s.last
}

func (s *sender) stopped(line int, err error) error {
	return fmt.Errorf("line %d: %w; before it %s sent%s", line, err, plural(s.sent, "entry was", "entries were"), s.until())
}
