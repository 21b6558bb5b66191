package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/cluster"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
)

// roles answers for the cluster, its groups and their operations.
type roles struct{ n *Node }

func (r roles) Ready(ctx context.Context) error {
	if r.n.cluster.Leader() == "" {
		return noQuorum("no Raft leader is known here")
	}
	st, _ := r.n.cluster.State()
	for name := range st.Groups {
		if r.n.config.Kind == fsm.KindData && r.n.replicas.get(name) == nil {
			if p, damaged := r.n.damages.of(name); damaged {
				return &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("group %s is closed here, since a journal is damaged: %s", name, p.Detail), Remedy: "start the other data nodes, whose copies complete it"}
			}
			return &client.Error{Code: client.CodeUnavailable, Detail: fmt.Sprintf("group %s is still being recovered", name)}
		}
	}
	return nil
}

func noQuorum(detail string) error {
	return &client.Error{Code: client.CodeNoQuorum, Detail: detail, Reason: "a majority of the nodes must be running and connected",
		Remedy: "start the missing nodes, or repair the network between them"}
}

// propose proposes a command and turns every kind of refusal into an error for people.
func (n *Node) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	res, err := n.cluster.Propose(ctx, cmd)
	var unknown *cluster.UnknownOutcomeError
	switch {
	case errors.As(err, &unknown):
		return res, &client.Error{Code: client.CodeUnknownOutcome, Detail: "the Raft leader changed while it decided", Reason: unknown.Err.Error(), Remedy: "GET /v1/status tells what became of it: look before you ask again"}
	case err != nil:
		detail := err.Error()
		if rest, ok := strings.CutPrefix(detail, cluster.ErrNoQuorum.Error()); ok { // noQuorum says that already
			detail = "no Raft leader took the command" + rest
		}
		return res, noQuorum(detail)
	}
	switch res.Refused {
	case "":
		return res, nil
	case fsm.RefusedBusy:
		return res, &client.Error{Code: client.CodeBusy, Detail: res.Detail, Remedy: "wait until it is finished, or cancel it"}
	case fsm.RefusedExists:
		return res, &client.Error{Code: client.CodeExists, Detail: res.Detail}
	case fsm.RefusedRetired:
		return res, &client.Error{Code: client.CodeExists, Detail: res.Detail, Reason: "nodes that were away may still have journals and promises under that name", Remedy: "choose another name"}
	case fsm.RefusedInUse:
		return res, &client.Error{Code: client.CodePrecondition, Detail: res.Detail, Reason: res.Refused, Remedy: "do what it says, and ask again"}
	case fsm.RefusedUnknown:
		return res, &client.Error{Code: client.CodeUnknownNode, Detail: res.Detail}
	case fsm.RefusedInvalid:
		return res, &client.Error{Code: client.CodeInvalid, Detail: res.Detail}
	case fsm.RefusedSelection:
		return res, &client.Error{Code: client.CodeInvalid, Detail: res.Detail, Remedy: "exclude with \"!pattern\", or give the groups ranges of keys that do not overlap"}
	case fsm.RefusedDropped:
		return res, &client.Error{Code: client.CodePrecondition, Detail: res.Detail, Reason: res.Refused, Remedy: "readmit the node if its copy still connects (POST …/nodes/NODE/readmit)"}
	case fsm.RefusedPaused:
		return res, &client.Error{Code: client.CodePrecondition, Detail: res.Detail, Reason: res.Refused, Remedy: "end the pause (DELETE /v1/pause)"}
	}
	return res, &client.Error{Code: client.CodePrecondition, Detail: res.Detail, Reason: res.Refused, Remedy: "the roles changed meanwhile: look at the status and ask again"}
}

// group returns the role state of a group, or code unknown_group.
func (n *Node) group(name string) (*fsm.State, *fsm.Group, error) {
	st, _ := n.cluster.State()
	g := st.Groups[ident.GroupName(name)]
	if g == nil && name == string(localGroup) {
		return nil, nil, n.local.notGroup()
	}
	if gone, deleted := st.Retirement(ident.GroupName(name)); g == nil && deleted {
		return nil, nil, &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("group %s was deleted at %s", name, gone.At.Format(time.RFC3339)), Remedy: "GET /v1/groups lists the groups that there are"}
	}
	if g == nil {
		known := make([]string, 0, len(st.Groups))
		for k := range st.Groups {
			known = append(known, string(k))
		}
		sort.Strings(known)
		return nil, nil, &client.Error{Code: client.CodeUnknownGroup, Detail: fmt.Sprintf("there is no group %q", name), Remedy: "the groups are " + list(known)}
	}
	return st, g, nil
}

func (r roles) CreateGroup(ctx context.Context, spec client.GroupSpec) error {
	s := specOf(spec)
	var err error
	if s.Keys, err = rangeOf(spec.Keys); err != nil {
		return err
	}
	if s.Preferred == "" {
		s.Preferred = r.n.config.Node
	}
	s = s.Normalize()
	if err := reservedGroup(s.Name); err != nil {
		return &client.Error{Code: client.CodeInvalid, Detail: err.Error()}
	}
	if err := s.Validate(); err != nil {
		return &client.Error{Code: client.CodeInvalid, Detail: err.Error()}
	}
	st, _ := r.n.cluster.State()
	p := st.Nodes[s.Preferred]
	if p == nil || p.Kind != fsm.KindData {
		return &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("preferred node %q is not a registered data node", s.Preferred), Remedy: dataNodes(st)}
	}
	return r.n.createPlanned(ctx, s)
}

// assess gathers the facts for a switch-over on the primary and judges them.
func (r roles) assess(name, to string) (client.Readiness, *fsm.Group, error) {
	st, g, err := r.n.group(name)
	if err != nil {
		return client.Readiness{}, nil, err
	}
	if g.Primary != r.n.config.Node && g.Phase == fsm.PhaseOpened {
		return client.Readiness{}, nil, r.n.elsewhere(g.Spec.Name) // only the primary knows the lag
	}
	a, _ := st.Assign(g.Spec.Name, r.n.config.Node, r.n.directory.life)
	target := ident.NodeID(to)
	if to == "" {
		target, _ = switchTarget(a)
	}
	f := facts{assignment: a, to: target, lease: r.n.cluster.CheckLease(g.Spec.Name, g.Epoch), leader: r.n.cluster.Leader(),
		lag: map[ident.NodeID]int64{}, alive: r.n.cluster.Alive}
	if rep := r.n.replicas.get(g.Spec.Name); rep != nil {
		s := rep.Status()
		f.writes = string(s.Writes)
		for _, t := range s.Targets {
			if t.State != "none" && t.State != "connecting" {
				f.lag[t.Node] = int64(t.LagEntries)
			}
			if t.State == "fed" { // known by its last lease only; it is fed from here, and level, before writes are held
				f.lag[t.Node] = min(int64(t.LagEntries), maxSwitchLag)
			}
		}
	}
	out := readiness(f)
	out.EntriesToDrain = uint64(f.lag[target])
	pause, measured := expectedPause(st, g.Spec.Name)
	out.EstimatedPause, out.Loss = client.Duration(pause), "none"
	out.Notes = append(append(append(orderNotes(st.Pause, g, st.Nodes), scheduleNotes(g)...), r.n.spaceNotes(g)...), append(r.n.local.notes(g), measured)...)
	return out, g, nil
}

func (r roles) Why(_ context.Context, name, to string) (client.Readiness, error) {
	out, _, err := r.assess(name, to)
	return out, err
}

// Bounds of a planned switch-over.
const (
	defaultMaxPause = 5 * time.Second
	prepareTimeout  = 30 * time.Second // from the start to the commit point, beside the pause
	recordTimeout   = 2 * time.Second  // for an operation that is past its commit point
	connectTimeout  = 2 * time.Second  // for a target that is alive and not connected
)

func (r roles) Switchover(ctx context.Context, name string, q client.SwitchoverRequest) (client.Operation, *client.Readiness, error) {
	if !q.At.IsZero() {
		if err := schedulable(q.At, r.n.host.Clock.Now()); err != nil {
			return client.Operation{}, nil, err
		}
		if !q.DryRun {
			op, err := r.schedule(ctx, name, q)
			return op, nil, err
		}
	}
	ready, g, err := r.assess(name, q.To)
	if err == nil && g.Operation != nil && g.Operation.Committed {
		// It has only to be recorded as finished, or this node has only to hear of it: two requests in a row must not collide.
		if _, err = r.Operation(ctx, g.Operation.ID, recordTimeout); err == nil {
			ready, g, err = r.assess(name, q.To)
		}
	}
	if !q.DryRun { // a primary that has just begun has yet to connect
		for end := time.Now().Add(connectTimeout); err == nil && connects(ready) && time.Now().Before(end) && ctx.Err() == nil; {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			ready, g, err = r.assess(name, q.To)
		}
	}
	if err != nil {
		return client.Operation{}, nil, err
	}
	if q.DryRun {
		return client.Operation{}, &ready, nil
	}
	if g.Operation != nil {
		return client.Operation{}, nil, &client.Error{Code: client.CodeBusy, Detail: fmt.Sprintf("%s %d of group %s is running, at step %s", g.Operation.Kind, g.Operation.ID, name, g.Operation.Step),
			Remedy: "wait until it is finished, or cancel it"}
	}
	if !ready.Ready {
		return client.Operation{}, &ready, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("group %s cannot be switched over to %q now", name, ready.To), Checks: ready.Checks,
			Remedy: "see the failed checks"}
	}
	pause := time.Duration(q.MaxPause)
	if pause <= 0 {
		pause = defaultMaxPause
	}
	res, err := r.n.propose(ctx, fsm.Command{StartSwitch: &fsm.StartSwitch{Group: g.Spec.Name, Epoch: g.Epoch, To: ident.NodeID(ready.To), MaxPause: pause,
		Deadline: r.n.host.Clock.Now().Add(prepareTimeout + pause), Reason: "operator"}})
	if err != nil {
		return client.Operation{}, nil, err
	}
	r.n.events.add("info", name, "SWITCHOVER", fmt.Sprintf("switch-over %d to %s started", res.Operation, ready.To), nil)
	op, err := r.Operation(ctx, res.Operation, 0)
	return op, nil, err
}

func (r roles) Failover(ctx context.Context, name string, q client.FailoverRequest) (client.Operation, error) {
	st, g, err := r.n.group(name)
	if err != nil {
		return client.Operation{}, err
	}
	if q.To != "" {
		to := st.Nodes[ident.NodeID(q.To)]
		switch {
		case to == nil || to.Kind != fsm.KindData:
			return client.Operation{}, &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("%q is not a registered data node", q.To), Remedy: dataNodes(st)}
		case !slices.Contains(g.InSync, to.ID) && !q.AllowDataLoss:
			return client.Operation{}, &client.Error{Code: client.CodePrecondition,
				Detail: fmt.Sprintf("node %s is not in the in-sync set %v of group %s: writes acknowledged since it fell out would be lost", q.To, g.InSync, name),
				Remedy: "choose a member of the set, or look at what would be lost, with allow_data_loss and dry_run, and accept it; it is then listed in the history and in the back-out report"}
		case !r.n.cluster.Alive(to.ID):
			return client.Operation{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("node %s is not alive", q.To), Remedy: "start it first"}
		case r.n.serves(g, to):
			return client.Operation{}, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("%s is primary already", q.To), Remedy: "name another node, or none to let the best one be chosen"}
		}
	}
	f := fsm.Fence{Group: g.Spec.Name, Force: true, To: ident.NodeID(q.To), AllowLoss: q.AllowDataLoss, Reason: "operator"}
	if q.AllowDataLoss {
		if f.Accept, f.Epoch, err = r.accepted(ctx, name, q); err != nil {
			return client.Operation{}, err
		}
	}
	res, err := fencing{
		epoch: func() (ident.Epoch, error) {
			_, g, err := r.n.group(name)
			if err != nil {
				return 0, err
			}
			return g.Epoch, nil
		},
		propose: func(f fsm.Fence) (fsm.Result, error) { return r.n.propose(ctx, fsm.Command{Fence: &f}) },
	}.run(f)
	if f.Accept != nil && res.Refused == fsm.RefusedEpoch {
		now, g, failed := r.forecast(ctx, name, f.To)
		if failed != nil {
			return client.Operation{}, errors.Join(err, failed)
		}
		return client.Operation{}, unconfirmed(moved(name, g.Epoch, f.Epoch), now)
	}
	if err != nil {
		return client.Operation{}, err
	}
	r.n.events.add("warning", name, "FAILOVER", fmt.Sprintf("failover %d started by an operator", res.Operation), nil)
	return r.Operation(ctx, res.Operation, 0)
}

// fencing begins the failover that an operator asked for.
type fencing struct {
	epoch   func() (ident.Epoch, error) // of the group, now
	propose func(fsm.Fence) (fsm.Result, error)
}

// fenceTries is how often a fence is proposed anew because an automatic failover took the epoch at the same moment.
const fenceTries = 5

// run proposes the fence at the epoch of the moment. One that accepts loss has the epoch of its forecast and keeps it: whoever
// serves at a newer one is nobody that the operator was shown.
func (x fencing) run(f fsm.Fence) (res fsm.Result, err error) {
	for range fenceTries {
		if f.Accept == nil {
			if f.Epoch, err = x.epoch(); err != nil {
				return fsm.Result{}, err
			}
		}
		if res, err = x.propose(f); res.Refused != fsm.RefusedEpoch || f.Accept != nil {
			break
		}
	}
	return res, err
}

func (r roles) Operations(context.Context) ([]client.Operation, error) {
	st, _ := r.n.cluster.State()
	var out []client.Operation
	for i := range st.Past {
		out = append(out, operation(&st.Past[i]))
	}
	for _, g := range st.Groups {
		for _, op := range g.Pending() {
			out = append(out, operation(op))
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID > out[j].ID })
	return out, nil
}

func (r roles) Operation(ctx context.Context, id uint64, wait time.Duration) (client.Operation, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		st, changed := r.n.cluster.State()
		op := findOperation(st, id)
		if op == nil {
			return client.Operation{}, &client.Error{Code: client.CodeNotFound, Detail: "there is no operation " + strconv.FormatUint(id, 10) + " (only the last ones are kept)", Remedy: "GET /v1/operations lists them"}
		}
		if op.State != fsm.OperationRunning && op.State != fsm.OperationScheduled || wait <= 0 {
			return operation(op), nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return operation(op), nil
		case <-ctx.Done():
			return operation(op), nil
		}
	}
}

func findOperation(st *fsm.State, id uint64) *fsm.Operation {
	for _, g := range st.Groups {
		for _, op := range g.Pending() {
			if op.ID == id {
				return op
			}
		}
	}
	for i := range st.Past {
		if st.Past[i].ID == id {
			return &st.Past[i]
		}
	}
	return nil
}

func (r roles) History(_ context.Context, name string) ([]client.Certificate, error) {
	_, g, err := r.n.group(name)
	if err != nil {
		return nil, err
	}
	out := make([]client.Certificate, 0, len(g.Switches))
	for i := range g.Switches {
		out = append(out, certificate(&g.Switches[i]))
	}
	return out, nil
}

func (r roles) Events(ctx context.Context, since uint64, wait time.Duration) ([]client.Event, error) {
	return r.n.events.after(ctx, since, wait)
}

func operation(o *fsm.Operation) client.Operation {
	out := client.Operation{ID: o.ID, Kind: string(o.Kind), Group: string(o.Group), From: string(o.From), To: string(o.To), State: string(o.State), Step: o.Step,
		Steps: []client.Step{}, Reason: o.Reason, Started: o.Started, Ended: o.Ended, MaxPause: client.Duration(o.MaxPause), AllowLoss: o.AllowLoss,
		Committed: o.Committed, Epoch: uint64(o.Epoch), Error: o.Error, Schedule: scheduleOf(o)}
	for i, s := range o.Steps {
		out.Steps = append(out.Steps, client.Step{Name: s.Name, At: s.At, Took: client.Duration(o.Took(i)), Node: s.Node, Detail: s.Detail})
	}
	return out
}

func certificate(c *fsm.Certificate) client.Certificate {
	out := client.Certificate{Group: string(c.Group), Kind: c.Kind, Operation: c.Operation, OldEpoch: uint64(c.OldEpoch), Epoch: uint64(c.Epoch), From: string(c.From), To: string(c.To),
		InSync: names(c.InSync), Loss: c.Loss, Better: names(c.Better), Started: c.Started, At: c.At, Opened: c.Opened, Reason: c.Reason}
	if !c.SW.IsZero() {
		out.SW = c.SW.Format(c.Group)
	}
	for _, x := range c.Candidates {
		out.Candidates = append(out.Candidates, client.Candidate{Node: string(x.Node), Received: x.Received.String(), Committed: x.Committed.String(), Applied: x.Applied.String(), Torn: x.Torn, Unable: x.Unable})
	}
	for _, x := range c.Passed {
		p := client.PassedOver{Node: string(x.Node), Why: x.Why}
		if !x.Received.IsZero() {
			p.Received = x.Received.Format(c.Group)
		}
		out.PassedOver = append(out.PassedOver, p)
	}
	if a := c.Accepted; a != nil {
		out.Accepted = &client.AcceptedLoss{Beyond: a.Beyond.Format(c.Group), Entries: a.Entries, By: a.By}
		if !a.To.IsZero() {
			out.Accepted.Highest = a.To.Format(c.Group)
		}
	}
	return out
}

func names(ids []ident.NodeID) []string {
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}
