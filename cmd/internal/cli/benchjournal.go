package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-ha/understudy/cmd/internal/journalbench"
)

func newBenchJournal(a *app) *cobra.Command {
	var (
		dir     string
		seconds float64
	)
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Measure a journal on this disk against a plain program that does the bare minimum",
		Long: `Measures deposits with a sync each, bulk append, encoding, verification and the opening of a journal, and next to
them what a plain program reaches on the same disk in the same seconds. Needs some 300 MB below --dir, which are removed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if seconds <= 0 || seconds > 600 {
				return usagef("--seconds %g: want more than 0, at most 600", seconds)
			}
			made, err := os.MkdirTemp(dir, "understudy-bench-")
			if err != nil {
				return &exitError{exitPrecondition, fmt.Errorf("create a directory to measure in: %w\nname a directory that can be written with --dir", err)}
			}
			defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
			b := journalbench.Bench{Dir: made, Time: time.Duration(seconds * float64(time.Second))}
			var results []journalbench.Result
			for _, row := range journalbench.Rows() {
				r, err := b.Run(cmd.Context(), row)
				if err != nil {
					return fmt.Errorf("measure %s: %w", row, err)
				}
				results = append(results, r)
			}
			return a.show(results, func(w io.Writer) { benchTable(results).write(w) })
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "directory on the disk to measure")
	cmd.Flags().Float64Var(&seconds, "seconds", 3, "how long to measure for each row")
	return cmd
}

func benchTable(results []journalbench.Result) *table {
	t := newTable("WHAT", ">RAW", ">OURS", "UNIT", ">RATIO", "WANTED", "MET")
	for _, r := range results {
		raw, ratio, met := "", "", "no"
		if r.Raw > 0 {
			raw, ratio = benchFigure(r.Raw), fmt.Sprintf("%.2f", r.Ratio)
		}
		if r.Met {
			met = "yes"
		}
		t.add(r.What, raw, benchFigure(r.Ours), r.Unit, ratio, r.Wanted, met)
	}
	return t
}

// benchFigure prints three digits or so.
func benchFigure(f float64) string {
	switch {
	case f >= 100:
		return humanCount(int64(f + 0.5))
	case f >= 1:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.3f", f)
}
