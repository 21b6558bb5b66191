package faultlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cmd/internal/oracle"
)

// Result is what came of a plan.
type Result struct {
	Tally  Tally
	Active int    // faults that met something
	Epochs uint64 // of the group at the end
	Dir    string // what a failure leaves; "" after success
}

// Times of a run.
const (
	warmUp      = 30               // acknowledged writes before the first fault
	afterwards  = 30               // acknowledged writes after healing
	goesOn      = 30 * time.Second // for them
	leastActing = 1                // faults that must have met something
)

// Run runs a plan: a new cluster, a workload, the faults, healing, the checks. A failure leaves the plan, the history and all data
// directories behind.
func Run(ctx context.Context, program, keep string, p Plan) (r Result, err error) {
	dir, err := os.MkdirTemp(keep, fmt.Sprintf("understudy-faultlab-%d-", p.Seed))
	if err != nil {
		return r, err
	}
	var history []oracle.Operation
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
			return
		}
		r.Dir = dir
		err = errors.Join(err, leave(dir, p, history, err))
	}()
	l, err := New(Options{Program: program, Dir: dir, Witness: p.Witness, Group: p.Group})
	if err != nil {
		return r, err
	}
	defer l.Close()
	if err := l.StartAll(ctx); err != nil {
		return r, fmt.Errorf("start the cluster: %w", err)
	}
	w := l.StartWorkload(p.Seed)
	redis := l.startRedis(w.record, p.Seed)
	defer redis.Stop()
	err = w.AwaitAcknowledged(ctx, warmUp, goesOn)
	if err == nil {
		r.Active, err = l.Inject(ctx, p)
	}
	if err == nil {
		if err = w.AwaitAcknowledged(ctx, afterwards, goesOn); err != nil {
			err = fmt.Errorf("writes do not go on after healing: %w", errors.Join(err, l.ended()))
		}
	}
	redis.Stop()
	history = w.Stop()
	if err != nil {
		return r, err
	}
	final, err := l.Settle(ctx, w)
	history = w.record.Operations()
	r.Tally, r.Epochs = tally(history), final.Epoch
	if err != nil {
		return r, err
	}
	if r.Active < leastActing {
		return r, errors.New("no fault met anything")
	}
	commands := oracle.Select(history, func(o oracle.Operation) bool { return o.Kind == oracle.Redis })
	for _, o := range commands {
		if o.Outcome == oracle.OK {
			r.Tally.Commands++
		}
	}
	return r, errors.Join(oracle.RedisMix(commands, warmUp), oracle.RedisLinearizable(commands, decideWithin), oracle.NotEmpty(history, warmUp, oracle.Write, oracle.Read), oracle.NotEmpty(history, 1, oracle.Local), Judge(history, final.Set))
}

// Final is what the cluster holds at the end.
type Final struct {
	Set   []oracle.Element
	Epoch uint64
}

// Settle waits until a healed cluster without writers is in sync, reads everything, and compares the copies of all nodes.
func (l *Lab) Settle(ctx context.Context, w *Workload) (f Final, err error) {
	if err := l.AwaitSync(ctx); err != nil {
		return f, err
	}
	p, err := l.Primary(ctx, 5*time.Second)
	if err != nil {
		return f, err
	}
	g, err := p.Client.Group(ctx, group)
	if err != nil {
		return f, err
	}
	f.Epoch = g.Epoch
	for r, err := range p.Client.All(ctx, setFile, client.ListOptions{Limit: 1000}) {
		if err != nil {
			return f, fmt.Errorf("read the set: %w", err)
		}
		f.Set = append(f.Set, oracle.Element{Key: setFile + "/" + r.Key.String(), Value: string(r.Value), Position: r.Position})
	}
	if w != nil {
		if err := w.readAll(ctx, p); err != nil {
			return f, err
		}
	}
	return f, l.compare(ctx)
}

// readAll reads all registers and counters once more, as part of the history.
func (w *Workload) readAll(ctx context.Context, p *Node) error {
	for _, file := range []string{registerFile, counterFile} {
		for r, err := range p.Client.All(ctx, file, client.ListOptions{Limit: 1000}) {
			if err != nil {
				return fmt.Errorf("read all of %s: %w", file, err)
			}
			o := w.record.Begin(oracle.Operation{Client: -1, Kind: oracle.Read, Copy: p.Name, Key: file + "/" + r.Key.String()})
			again, err := p.Client.Get(ctx, file, r.Key.Bytes(), client.ReadOptions{})
			if err != nil {
				return fmt.Errorf("read %s: %w", o.Key, err)
			}
			w.record.End(o, oracle.OK, func(o *oracle.Operation) { o.Found, o.Value, o.Position = true, string(again.Value), again.Position })
		}
	}
	return nil
}

// compare holds the copies of all data nodes against each other: the digests of the records, and the journals entry by entry.
func (l *Lab) compare(ctx context.Context) error {
	var digests []oracle.Digest
	var journals []oracle.Journal
	for _, name := range l.names {
		if name == l.options.Witness {
			continue
		}
		n := l.nodes[name]
		d, err := n.Client.Digest(ctx, group)
		if err != nil {
			return fmt.Errorf("digest of node %s: %w", name, err)
		}
		digests = append(digests, oracle.Digest{Node: name, Position: d.Position, Records: d.Records, Sum: d.Sum})
		held, err := n.Client.Journals(ctx, group)
		if err != nil {
			return fmt.Errorf("journals of node %s: %w", name, err)
		}
		for _, j := range held {
			entries, err := n.entries(ctx, j.Node)
			if err != nil {
				return fmt.Errorf("journal %s at node %s: %w", j.ID, name, err)
			}
			journals = append(journals, oracle.Journal{Node: name, Name: j.ID, Entries: entries})
		}
	}
	return errors.Join(oracle.SameDigests(digests, len(digests)), oracle.SameJournals(journals))
}

// entries reads what the node holds of a journal, from its first entry to its last.
func (n *Node) entries(ctx context.Context, author string) (all []oracle.Entry, err error) {
	const page = 5000
	filter := client.EntryFilter{IncludeAll: true, Limit: page}
	for {
		list, err := n.Client.Entries(ctx, group, author, filter)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			content := fmt.Sprintf("%s %s %s/%s %s", e.Code, e.Type, e.File, e.Key, e.Data)
			if e.After != nil {
				content += fmt.Sprintf(" %q at %s", e.After.Value, e.After.Position)
			}
			all = append(all, oracle.Entry{Sequence: e.Sequence, Position: e.Position, Content: content})
			filter.From = e.Sequence + 1
		}
		if len(list) < page {
			return all, nil
		}
	}
}

// leave writes down what is needed to look into a failure.
func leave(dir string, p Plan, history []oracle.Operation, why error) error {
	f, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return err
	}
	plan, merr := json.MarshalIndent(p, "", "  ")
	return errors.Join(oracle.Save(f, history), f.Close(), merr,
		os.WriteFile(filepath.Join(dir, "plan.json"), plan, 0o644),
		os.WriteFile(filepath.Join(dir, "failure.txt"), []byte(strings.Join([]string{p.String(), why.Error(), Replay(p.Seed)}, "\n\n")+"\n"), 0o644))
}

// Replay is the command that runs the plan of a seed again.
func Replay(seed uint64) string {
	return fmt.Sprintf("go test ./cmd/internal/faultlab -run TestRealSchedules -v -faultlab.schedules=1 -faultlab.seed=%d", seed)
}
