package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

// Redis says how Redis clients are answered.
type Redis struct {
	NotPrimary   resp.NotPrimary   `yaml:"not_primary"`    // of commands for a group whose primary is another node: forward | readonly
	OnRoleChange resp.OnRoleChange `yaml:"on_role_change"` // of connections to a node that was primary: forward | close
	LocalReads   bool              `yaml:"local_reads"`    // reads are answered from this node's copy, which may be older
}

func (r Redis) check() (p []error) {
	if r.NotPrimary != resp.Forward && r.NotPrimary != resp.ReadOnly {
		p = append(p, fmt.Errorf("redis.not_primary: %q: want forward or readonly", r.NotPrimary))
	}
	if r.OnRoleChange != resp.Keep && r.OnRoleChange != resp.Close {
		p = append(p, fmt.Errorf("redis.on_role_change: %q: want forward or close", r.OnRoleChange))
	}
	return p
}

// redisServer makes the server for Redis clients.
func (n *Node) redisServer() *resp.Server {
	r := n.config.Redis
	return resp.New(resp.Options{
		Local: string(localGroup), Protocol: n.protocol,
		Node: string(n.config.Node), Cluster: n.config.Cluster, Store: records{n}, Roles: masters{n}, Network: n.host.Network, Clock: n.host.Clock.Now,
		NotPrimary: r.NotPrimary, OnRoleChange: r.OnRoleChange, LocalReads: r.LocalReads, Registerer: n.registry, Logger: n.log.Named("redis"),
	})
}

// records answers Redis clients: it finds the group of a key and runs their programs at this node's replica.
type records struct{ n *Node }

func (s records) Group(k resp.Key) (string, error) {
	if replica.Reserved(k.File) {
		return "", &resp.Refusal{Text: "the file name of the key begins with a zero byte: such files are the product's own"}
	}
	by := s.n.selection()
	name, ok := by.owner(k.File, k.Key)
	if !ok {
		if _, err := (data{s.n}).noOwner(context.Background(), by, k.File); err != nil {
			return "", refusal(err)
		}
		name = localGroup
	}
	return string(name), nil
}

// replica returns this node's replica of a group, or where to go instead.
func (s records) replica(group string) (*replica.Replica, error) {
	if rep, err, ok := s.n.local.asked(group); ok {
		if err != nil {
			err = refusal(err)
		}
		return rep, err
	}
	if rep := s.n.replicas.get(ident.GroupName(group)); rep != nil {
		return rep, nil
	}
	return nil, s.elsewhere(ident.GroupName(group))
}

func (s records) Update(ctx context.Context, group string, batch []resp.Program) []resp.Outcome {
	out := make([]resp.Outcome, len(batch))
	rep, err := s.replica(group)
	if err != nil {
		return allFailed(out, err)
	}
	all := make([]replica.Transaction, len(batch))
	for i := range batch {
		run := batch[i].Run
		all[i].Program = func(v *replica.View) error { return run(sequenced{v}) }
	}
	for i, w := range rep.WriteAll(ctx, all) {
		out[i] = resp.Outcome{Position: w.Receipt.Position, Err: s.explainWrite(ident.GroupName(group), w.Err)}
	}
	return out
}

func allFailed(out []resp.Outcome, err error) []resp.Outcome {
	for i := range out {
		out[i].Err = err
	}
	return out
}

func (s records) Files(ctx context.Context, group string, local bool) ([]string, error) {
	name := ident.GroupName(group)
	if name == localGroup {
		return s.n.local.files(s.n.selection())
	}
	rep, err := s.replica(group)
	switch {
	case err != nil && local:
		return nil, nil // this node has no copy of the group
	case err != nil:
		return nil, err
	case local:
		files, err := rep.Files()
		return files, s.explain(name, err)
	}
	files, err := rep.FilesNow(ctx)
	return files, s.explain(name, err)
}

func (s records) Scan(ctx context.Context, file string, from resp.Bound, limit int, local bool) ([]resp.Scanned, bool, error) {
	key := from.Key
	if from.After {
		key = append(bytes.Clone(key), 0) // the next one there can be
	}
	by := s.n.selection()
	names := owners(by.spans(file))
	switch len(names) {
	case 0:
		if s.n.local.rep == nil {
			return nil, true, nil // what is not selected any more is not shown
		}
		names = append(names, localGroup)
	case 1:
	default:
		return s.scanParts(ctx, file, key, limit, local)
	}
	group := string(names[0])
	rep, err := s.replica(group)
	if err != nil {
		return nil, false, err
	}
	local = s.n.local.reads(names[0], local)
	for {
		page, err := rep.List(ctx, file, nil, key, limit, local)
		if err != nil {
			return nil, false, s.explain(ident.GroupName(group), err)
		}
		if len(page.Records) == 0 && len(page.Next) > 0 { // all of them have expired
			key = page.Next
			continue
		}
		out := make([]resp.Scanned, len(page.Records))
		for i, r := range page.Records {
			out[i] = resp.Scanned{Key: r.Key, Kind: byte(r.Image.Kind)}
		}
		return out, len(page.Next) == 0, nil
	}
}

func (s records) Count(ctx context.Context) (int64, error) {
	var sum int64
	st, _ := s.n.cluster.State()
	for name := range st.Groups {
		if rep := s.n.replicas.get(name); rep != nil {
			n, err := s.n.counts.count(ctx, name, rep)
			if err != nil {
				return 0, s.explain(name, err)
			}
			sum += n
		}
	}
	own, ok, err := s.n.local.visible(s.n.selection())
	if err != nil {
		return 0, s.explain(localGroup, err)
	}
	if ok {
		n, err := s.n.counts.count(ctx, localGroup, own)
		if err != nil {
			return 0, s.explain(localGroup, err)
		}
		sum += n
	}
	return sum, nil
}

// explainWrite is explain for a write: what does not say that surely nothing was done leaves the outcome unknown.
func (s records) explainWrite(group ident.GroupName, err error) error {
	var program *replica.ProgramError
	var unknown *replica.UnknownOutcomeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return &resp.Unknown{Position: unknown.Position, Err: unknown.Reason}
	case errors.As(err, &program) && replica.NotDone(program.Err):
		return s.explain(group, program.Err)
	case errors.As(err, &program):
		return program.Err
	case replica.NotDone(err):
		return s.explain(group, err)
	}
	return &resp.Unknown{Err: err}
}

// explain turns an error after which surely nothing was done into what a Redis client is told.
func (s records) explain(group ident.GroupName, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, replica.ErrNotSequenced) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &resp.Refusal{Code: "TRYAGAIN", Text: "the time for the command was over before it was taken: nothing was done"}
	}
	if errors.Is(err, replica.ErrNotOwned) {
		return &resp.Refusal{Code: "TRYAGAIN", Text: "the key has just become another group's: nothing was done"}
	}
	err = s.n.explain(group, err)
	var other *api.Elsewhere
	if errors.As(err, &other) {
		return s.elsewhere(group)
	}
	return refusal(err)
}

// elsewhere names the Redis listener of a group's primary, as far as it is known here.
func (s records) elsewhere(group ident.GroupName) error {
	st, _ := s.n.cluster.State()
	g := st.Groups[group]
	switch {
	case g == nil || g.Phase != fsm.PhaseOpened:
		return &resp.Elsewhere{}
	case g.Primary == s.n.config.Node:
		return &resp.Elsewhere{Retry: true}
	}
	if p := st.Nodes[g.Primary]; p != nil {
		return &resp.Elsewhere{Redis: p.Addresses.Redis}
	}
	return &resp.Elsewhere{}
}

// refusal tells a Redis client what a caller over HTTP would be told. Codes that promise that a repetition may help begin with
// TRYAGAIN, which clients know.
func refusal(err error) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return &resp.Refusal{Text: err.Error()}
	}
	text := e.Detail
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	switch e.Code {
	case client.CodeUnavailable, client.CodeNoPrimary, client.CodeNoQuorum, client.CodeStale:
		return &resp.Refusal{Code: "TRYAGAIN", Text: text}
	case client.CodeJournalFull:
		return &resp.Refusal{Code: "OOM", Text: text} // what Redis says when it has no room
	case client.CodeNoSync:
		return &resp.Refusal{Code: "NOREPLICAS", Text: text}
	}
	return &resp.Refusal{Text: text}
}

// sequenced is the view of a program that the primary's sequencer runs.
type sequenced struct{ v *replica.View }

func (s sequenced) Now() int64 { return s.v.Now() }

func (s sequenced) Get(file string, key []byte) (*resp.Record, error) {
	image, err := s.v.Get(file, key)
	return recordOf(image), err
}

func (s sequenced) Put(file string, key []byte, r resp.Record) error {
	return s.v.Put(file, key, entry.Image{Value: r.Value, Kind: entry.Kind(r.Kind), Expiry: r.Expiry})
}

func (s sequenced) Delete(file string, key []byte) (bool, error) { return s.v.Delete(file, key) }

func (s sequenced) End() ident.Position { return s.v.End() }

func (s sequenced) Deleted(file string, key []byte) ident.History { return s.v.Deleted(file, key) }

func recordOf(image *entry.Image) *resp.Record {
	if image == nil {
		return nil
	}
	return &resp.Record{Value: image.Value, Kind: byte(image.Kind), Expiry: image.Expiry, Position: image.Position}
}
