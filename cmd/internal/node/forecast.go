package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica/core"
)

const (
	askHolders  = 2 * time.Second // for what each data node holds
	entriesRead = 200             // of a journal, to find the first entries at risk
	entriesTold = 10
)

// holder is what is known of one data node's part in a forecast.
type holder struct {
	node     *fsm.Node
	inSync   bool
	answered bool
	failed   error
	journals map[ident.NodeID]held // by author; of one that did not answer: what it told with its last lease
	reported ident.Position        // to the running fence; zero: nothing
	knows    ident.Position        // to be committed, by the same report
}

// held is one journal as one node holds it. A node that did not answer told no position.
type held struct {
	last ident.Sequence
	end  ident.Position
}

// end is the highest position the node is known to hold.
func (h *holder) end() ident.Position {
	p := h.reported
	for _, j := range h.journals {
		if j.end.Compare(p) > 0 {
			p = j.end
		}
	}
	return p
}

// forecast judges what a failover to one of the holders may lose. It is pure; First is left to who can read journals.
func forecast(g *fsm.Group, to ident.NodeID, holders []*holder, serving bool) client.LossForecast {
	name := g.Spec.Name
	out := client.LossForecast{Group: string(name), To: string(to), Epoch: uint64(g.Epoch), Primary: string(g.Primary), Confirm: string(name),
		Exact: !serving, Nodes: []client.HeldPosition{}, First: []client.EntryAtRisk{}}
	if g.Phase == fsm.PhaseFenced {
		out.Primary = ""
	}
	target := holders[slices.IndexFunc(holders, func(h *holder) bool { return h.node.ID == to })]
	beyond := target.end()
	highest := beyond
	var parts []string
	for _, h := range holders {
		p := client.HeldPosition{Node: string(h.node.ID), Answered: h.answered, InSync: h.inSync}
		if h.failed != nil {
			p.Error = h.failed.Error()
		}
		end := h.end()
		if !end.IsZero() {
			p.Position = end.Format(name)
		}
		if !h.reported.IsZero() {
			p.Reported = h.reported.Format(name)
		}
		if !h.answered {
			p.Told = told(h, name)
			out.Exact = out.Exact && !h.inSync && h.node.ID != g.Primary
		}
		p.Beyond = h.more(target)
		if end.Compare(highest) > 0 {
			highest = end
		}
		if p.Beyond > 0 && h != target {
			who := "holds"
			if !h.answered {
				who = "told that it holds"
			}
			parts = append(parts, fmt.Sprintf("%s %s %d more", h.node.ID, who, p.Beyond))
			out.Entries = max(out.Entries, p.Beyond)
		}
		out.Nodes = append(out.Nodes, p)
	}
	if end, more := proved(g, target, holders); more > 0 { // whoever holds it may be silent
		if end.Compare(highest) > 0 {
			highest = end
		}
		parts = append(parts, fmt.Sprintf("by the history of the group everything up to %s is committed, %d more", end.Format(name), more))
		out.Entries = max(out.Entries, more)
	}
	out.Beyond, out.Highest = beyond.Format(name), highest.Format(name)
	out.Loss = "none"
	if out.Entries > 0 || !out.Exact {
		out.Loss = fmt.Sprintf("what lies beyond %s, the end of %s", out.Beyond, to)
		if len(parts) > 0 {
			out.Loss += ": " + strings.Join(parts, ", ")
		} else {
			out.Loss += "; no entry there is known"
		}
		if target.inSync {
			out.Loss += fmt.Sprintf(". %s is in the in-sync set: unless it lost some of its journal it holds all that was acknowledged", to)
		}
	}
	out.Fate = fmt.Sprintf("an entry beyond %s is not part of the history any more. A node that holds it and comes back undoes it and lists it, with both images, in a back-out report: `understudy backout list %s`", out.Beyond, name)
	if serving {
		out.Warning = fmt.Sprintf("%s serves: it may take more writes until it is fenced. A switch-over loses nothing", g.Primary)
	}
	return out
}

// proved returns up to where entries are known to be committed, whoever holds them: by the history that Raft keeps, and by the
// reports to the running fence; and how many of them the target lacks.
func proved(g *fsm.Group, target *holder, holders []*holder) (end ident.Position, more uint64) {
	end, err := core.Needed(g)
	if err != nil { // how its epoch began is forgotten: rather one entry too many
		end = ident.Position{Epoch: g.History.Last().Epoch, History: g.History.Last().SW}
	}
	for _, h := range holders {
		if h.knows.Compare(end) > 0 {
			end = h.knows
		}
	}
	if have := g.History.Fork(target.end()); end.History > have.History {
		more = uint64(end.History - have.History)
	}
	return end, more
}

// more is how many entries h holds that the target lacks, at most: by positions where both are known, else by sequence numbers.
func (h *holder) more(target *holder) uint64 {
	if h == target {
		return 0
	}
	var most uint64
	if a, b := h.end(), target.end(); h.answered || !a.IsZero() {
		if a.Compare(b) > 0 && a.History > b.History {
			most = uint64(a.History - b.History)
		}
	}
	if h.answered {
		return most
	}
	for author, j := range h.journals {
		if have := target.journals[author].last; j.last > have { // 0: it never had that journal
			most = max(most, uint64(j.last-have))
		}
	}
	return most
}

// told says what a node told with its last lease.
func told(h *holder, group ident.GroupName) string {
	var parts []string
	for _, author := range slices.Sorted(maps.Keys(h.journals)) {
		parts = append(parts, fmt.Sprintf("%s up to %d", ident.JournalID{Group: group, Node: author}, h.journals[author].last))
	}
	if p, ok := h.node.Flushed[group]; ok && !p.IsZero() {
		parts = append(parts, "flushed "+p.Format(group))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (r roles) ForecastFailover(ctx context.Context, name string, q client.FailoverRequest) (client.LossForecast, error) {
	f, _, err := r.forecast(ctx, name, ident.NodeID(q.To))
	return f, err
}

// forecast asks every data node what it holds and judges what a failover to the given one may lose.
func (r roles) forecast(ctx context.Context, name string, to ident.NodeID) (client.LossForecast, *fsm.Group, error) {
	st, g, err := r.n.group(name)
	if err != nil {
		return client.LossForecast{}, nil, err
	}
	if n := st.Nodes[to]; n == nil || n.Kind != fsm.KindData {
		return client.LossForecast{}, nil, &client.Error{Code: client.CodeUnknownNode, Detail: fmt.Sprintf("%q is not a registered data node", to), Remedy: dataNodes(st)}
	}
	holders := r.holders(ctx, st, g)
	for _, h := range holders {
		if h.node.ID == to && !h.answered {
			return client.LossForecast{}, nil, &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("node %s does not answer, so what it holds is not known: %v", to, h.failed), Remedy: "start it first"}
		}
	}
	p := st.Nodes[g.Primary]
	f := forecast(g, to, holders, g.Phase == fsm.PhaseOpened && g.Primary != to && p != nil && r.n.serves(g, p))
	f.First = append(f.First, r.first(ctx, g, to, holders)...)
	f.Unable = r.unable(ctx, st, g, to)
	return f, g, nil
}

// unable says why a node cannot serve the group, as it told the failover that runs or tells now; "" when nothing is known.
func (r roles) unable(ctx context.Context, st *fsm.State, g *fsm.Group, id ident.NodeID) string {
	n := st.Nodes[id]
	if rep, ok := g.ReportOf(id); ok && rep.Epoch == g.Epoch && n.Lives(rep.Incarnation) && rep.Unable != "" {
		return rep.Unable
	}
	ctx, cancel := context.WithTimeout(ctx, askHolders)
	defer cancel()
	status, err := client.Status{}, error(nil)
	if id == r.n.config.Node {
		status, err = r.Status(ctx, true)
	} else {
		status, err = r.n.peers.at(n.Addresses.HTTP).LocalStatus(ctx)
	}
	if err != nil {
		r.n.log.Debug("whether a node can serve is not known", "group", g.Spec.Name, "peer", id, "error", err)
		return ""
	}
	own, _ := status.Group(string(g.Spec.Name))
	return cannotServe(own.Local)
}

// cannotServe says why a copy could not be a primary's; "" when nothing speaks against it.
func cannotServe(c client.Copy) string {
	if !c.NeedsPriming {
		return ""
	}
	return cmp.Or(c.Priming, "its copy cannot be brought level by the journals: it needs priming")
}

// holders asks all data nodes at once.
func (r roles) holders(ctx context.Context, st *fsm.State, g *fsm.Group) []*holder {
	ctx, cancel := context.WithTimeout(ctx, askHolders)
	defer cancel()
	var out []*holder
	var asking sync.WaitGroup
	for _, id := range slices.Sorted(maps.Keys(st.Nodes)) {
		n := st.Nodes[id]
		if n.Kind != fsm.KindData {
			continue
		}
		h := &holder{node: n, inSync: g.InSet(id), journals: map[ident.NodeID]held{}}
		if rep, ok := g.ReportOf(id); ok && rep.Epoch == g.Epoch && n.Lives(rep.Incarnation) {
			h.reported, h.knows = rep.Received, rep.Committed
		}
		out = append(out, h)
		asking.Go(func() { r.ask(ctx, h, g.Spec.Name) })
	}
	asking.Wait()
	return out
}

// ask fills in what one node holds, or last told.
func (r roles) ask(ctx context.Context, h *holder, group ident.GroupName) {
	var list []client.Journal
	if h.node.ID == r.n.config.Node {
		list, h.failed = journals{r.n}.Journals(ctx, string(group))
	} else {
		list, h.failed = r.n.peers.at(h.node.Addresses.HTTP).Journals(ctx, string(group))
	}
	if h.answered = h.failed == nil; !h.answered {
		for author, last := range h.node.Copies[group] {
			h.journals[author] = held{last: last}
		}
		return
	}
	for _, j := range list {
		if _, at, err := ident.ParsePosition(j.Position); err == nil {
			h.journals[ident.NodeID(j.Node)] = held{last: ident.Sequence(j.Last), end: at}
		}
	}
}

// first reads the first entries beyond the end of the target, from the node that answered and holds most.
func (r roles) first(ctx context.Context, g *fsm.Group, to ident.NodeID, holders []*holder) []client.EntryAtRisk {
	var target, best *holder
	for _, h := range holders {
		if h.node.ID == to {
			target = h
		}
	}
	for _, h := range holders {
		if h.answered && h.more(target) > 0 && (best == nil || h.end().Compare(best.end()) > 0) {
			best = h
		}
	}
	if best == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askHolders)
	defer cancel()
	beyond, name := target.end(), g.Spec.Name
	var out []client.EntryAtRisk
	for _, author := range slices.Sorted(maps.Keys(best.journals)) {
		if best.journals[author].end.Compare(beyond) <= 0 {
			continue
		}
		f := client.EntryFilter{From: uint64(target.journals[author].last) + 1, IncludeAll: true, Limit: entriesRead}
		list, err := r.read(ctx, best.node, name, author, f)
		if err != nil {
			r.n.log.Debug("entries at risk could not be read", "group", name, "peer", best.node.ID, "error", err)
			continue
		}
		for i := range list {
			e := &list[i]
			if _, at, err := ident.ParsePosition(e.Position); err != nil || at.Compare(beyond) <= 0 || len(out) == entriesTold {
				continue
			}
			out = append(out, client.EntryAtRisk{Node: string(best.node.ID), Journal: ident.JournalID{Group: name, Node: author}.String(),
				Sequence: e.Sequence, Position: e.Position, Code: e.Code, Type: e.Type, File: e.File, Key: e.Key})
		}
	}
	return out
}

func (r roles) read(ctx context.Context, n *fsm.Node, group ident.GroupName, author ident.NodeID, f client.EntryFilter) ([]client.Entry, error) {
	if n.ID == r.n.config.Node {
		p, err := journals{r.n}.Entries(ctx, string(group), string(author), f)
		return p.Items, err
	}
	return r.n.peers.at(n.Addresses.HTTP).Entries(ctx, string(group), string(author), f)
}

// accepted compares what an operator confirmed with what would be lost now, and returns the epoch that this holds for.
func (r roles) accepted(ctx context.Context, name string, q client.FailoverRequest) (*fsm.Acceptance, ident.Epoch, error) {
	now, g, err := r.forecast(ctx, name, ident.NodeID(q.To))
	if err != nil {
		return nil, 0, err
	}
	return acceptable(g, now, q)
}

// acceptable is accepted for a forecast. It is pure.
func acceptable(g *fsm.Group, now client.LossForecast, q client.FailoverRequest) (*fsm.Acceptance, ident.Epoch, error) {
	name := string(g.Spec.Name)
	a := &fsm.Acceptance{Entries: now.Entries, By: q.By}
	bad := func(field, text string) error {
		return &client.Error{Code: client.CodeInvalid, Detail: fmt.Sprintf("%s: %q is not a position of group %s", field, text, name),
			Remedy: "send the one that the forecast named, such as " + now.Beyond}
	}
	parse := func(field, text string, to *ident.Position) error {
		group, at, err := ident.ParsePosition(text)
		if err != nil || group != "" && group != g.Spec.Name {
			return bad(field, text)
		}
		*to = at
		return nil
	}
	if err := parse("accept_loss_beyond", q.AcceptLossBeyond, &a.Beyond); err != nil {
		return nil, 0, err
	}
	if q.AcceptLossHighest != "" {
		if err := parse("accept_loss_highest", q.AcceptLossHighest, &a.To); err != nil {
			return nil, 0, err
		}
	}
	if now.Unable != "" && !q.AcceptUnable {
		return nil, 0, cannot(name, now)
	}
	_, beyond, _ := ident.ParsePosition(now.Beyond)
	_, highest, _ := ident.ParsePosition(now.Highest)
	detail := ""
	switch {
	case q.AcceptEpoch != 0 && q.AcceptEpoch != now.Epoch:
		detail = moved(name, ident.Epoch(now.Epoch), ident.Epoch(q.AcceptEpoch))
	case beyond.Compare(a.Beyond) < 0:
		detail = fmt.Sprintf("%s ends at %s, below %s: more would be lost than was accepted", q.To, now.Beyond, a.Beyond.Format(g.Spec.Name))
	case !a.To.IsZero() && highest.Compare(a.To) > 0:
		detail = fmt.Sprintf("there are entries up to %s, beyond %s: more would be lost than was accepted", now.Highest, a.To.Format(g.Spec.Name))
	default:
		return a, g.Epoch, nil
	}
	return nil, 0, unconfirmed(detail, now)
}

// unconfirmed refuses a failover that is not the one that was confirmed.
func unconfirmed(detail string, now client.LossForecast) error {
	return &client.Error{Code: client.CodePrecondition, Detail: detail, Reason: fsm.RefusedLoss, Forecast: &now,
		Remedy: "nothing was changed: look at the new forecast and confirm that one"}
}

// cannot refuses a failover to a node that says that it cannot serve.
func cannot(group string, now client.LossForecast) error {
	return &client.Error{Code: client.CodePrecondition, Detail: fmt.Sprintf("node %s cannot serve group %s: %s", now.To, group, now.Unable), Forecast: &now,
		Remedy: "nothing was changed: choose another node, or give this one a new copy of the data. With \"accept_unable\":true it gets the role all the same, and nobody may serve then"}
}

// moved says that a forecast is about roles that are over.
func moved(group string, now, shown ident.Epoch) string {
	return fmt.Sprintf("group %s is at epoch %s, the forecast was of epoch %s: another failover or switch-over came first", group, now, shown)
}
