// Command peersbench compares this project with Redis on one machine, in one run: a development cluster of three nodes, and a Redis with
// two replicas, `appendonly yes` and `appendfsync always`. `make bench-peers` starts it.
//
// Two kinds of load are run against both, one side after the other and in changing order:
//
//   - A generator of this package, the same for both. What an acknowledged write promises must be comparable, so at Redis every write is
//     followed by `WAIT 1 0` in the same packet, and counts when the answer to that has come: one replica has it. With pipelining there is
//     one WAIT behind each pipeline, which is how a client would do it and is kind to Redis: it waits once for many writes. Understudy
//     gets the writes alone: its answer says that they are durable on two disks. (Nothing in Redis's own tools can do this:
//     redis-benchmark sends one command again and again, and a script cannot WAIT.)
//   - redis-benchmark, as anybody would run it. There Redis promises less: its own disk only, no WAIT. Those figures say what the
//     promise costs, not who is faster at the same one.
//
// Both sides run all the time; the one that is not measured is idle.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options of one run.
type options struct {
	understudy string        // the program under test
	dir        string        // below which data is kept while it runs: on the disk that is to be measured
	duration   time.Duration // of one measurement
	rounds     int           // of each test
	clients    int
	pipelines  []int
	tests      []string
	requests   int // of redis-benchmark, for each test; 0: it is not run
}

func run(args []string, out, errs io.Writer) int {
	o := options{pipelines: []int{1, 16}}
	f := flag.NewFlagSet("peersbench", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&o.understudy, "understudy", "bin/understudy", "program to measure")
	f.StringVar(&o.dir, "dir", "bin", "directory for the data of both sides, which is removed: its disk is what is measured")
	f.DurationVar(&o.duration, "time", 2*time.Second, "of one measurement")
	f.IntVar(&o.rounds, "rounds", 2, "of each test, with the order of the sides reversed; the figures are the medians")
	f.IntVar(&o.clients, "clients", 50, "connections")
	f.IntVar(&o.requests, "requests", 20000, "of redis-benchmark, for each test; 0: it is not run")
	names := f.String("tests", strings.Join(allTests(), ","), "to be run")
	if err := f.Parse(args); err != nil {
		return 2
	}
	o.tests = strings.Split(*names, ",")
	for _, t := range o.tests {
		if !slices.Contains(allTests(), t) {
			fmt.Fprintf(errs, "peersbench: -tests: %q is none of %s\n", t, strings.Join(allTests(), ", "))
			return 2
		}
	}
	if o.duration <= 0 || o.rounds < 1 || o.clients < 1 || o.requests < 0 {
		fmt.Fprintln(errs, "peersbench: -time, -rounds and -clients must be positive")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o, out); err != nil {
		fmt.Fprintf(errs, "peersbench: %v\n", err)
		return 1
	}
	return 0
}

// bench runs everything and leaves nothing behind.
func bench(ctx context.Context, o options, out io.Writer) (err error) {
	tools, err := findTools(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "peers-")
	if err != nil {
		return fmt.Errorf("make a directory for data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sides, stop, err := startSides(ctx, tools, dir)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%s\n%d connections, %s a measurement, %d rounds; data in %s\n", sides[0].about, sides[1].about, o.clients, o.duration, o.rounds, o.dir)
	fmt.Fprintf(out, "\nThe same promise: a write is answered when a second node has it (Redis: WAIT 1 behind every write, or every pipeline)\n")
	printHead(out)
	for _, depth := range o.pipelines {
		for _, test := range o.tests {
			var rates [2][]rate
			for round := range o.rounds {
				for i := range sides {
					k := (i + round) % 2
					r, err := drive(ctx, sides[k], test, depth, o)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", sides[k].name, test, err)
					}
					rates[k] = append(rates[k], r)
				}
			}
			printRow(out, test, depth, median(rates[0]), median(rates[1]))
		}
	}
	if o.requests == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nredis-benchmark: Understudy answers when a second node has it on its disk; Redis when it is on its own disk\n")
	printHead(out)
	for _, depth := range o.pipelines {
		var both [2]map[string]rate
		for k := range sides {
			if both[k], err = tools.redisBenchmark(ctx, sides[k], depth, o); err != nil {
				return err
			}
		}
		for _, test := range o.tests {
			printRow(out, test, depth, both[0][test], both[1][test])
		}
	}
	return nil
}
