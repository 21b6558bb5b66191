package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/replica"
)

// stepBytes is about how much of a journal one step of a stream takes when much is waiting.
const stepBytes = 256 << 10

// FollowJournal opens a stream of one journal.
func (j journals) FollowJournal(ctx context.Context, group, node string, f client.EntryFilter, after string) (api.EntryStream, error) {
	_, jr, err := j.journal(group, node)
	if err != nil {
		return nil, err
	}
	if err := j.n.placed(group, f.PositionFrom, f.PositionTo, after); err != nil {
		return nil, err
	}
	q, err := journalFilter(f)
	if err != nil {
		return nil, err
	}
	from, err := begin(ctx, jr, q, f.Newest, after)
	if err != nil {
		return nil, j.explainStream(jr, err)
	}
	q.From, q.Limit = 0, 0
	s := &journalStream{j: j, jr: jr, group: ident.GroupName(group), q: q, f: jr.Follow(from, f.IncludeAll), after: max(from, 1) - 1}
	return s, s.prime()
}

// begin returns the sequence with which a stream begins.
func begin(ctx context.Context, jr *journal.Journal, q journal.Filter, newest int, after string) (ident.Sequence, error) {
	view, _ := jr.View()
	end := view.Last
	if !q.IncludeUnconfirmed {
		end = min(end, view.Confirmed)
	}
	switch {
	case after == "now":
		return end + 1, nil
	case strings.Contains(after, "."):
		at, err := position(after)
		if err != nil {
			return 0, err
		}
		seq, ok, err := jr.SequenceOf(at)
		if err == nil && !ok {
			err = &client.Error{Code: client.CodeNotFound, Detail: fmt.Sprintf("journal %s does not hold the fact %s", jr.ID(), at.Format(HistoryOf(jr.ID()))),
				Remedy: "follow the history instead (GET /v1/groups/GROUP/entries): it goes on in whichever journal holds it"}
		}
		return seq + 1, err
	case after != "":
		n, err := strconv.ParseUint(after, 10, 63)
		return ident.Sequence(n) + 1, err
	case newest > 0:
		p, err := jr.Page(ctx, q)
		if err != nil || len(p.Entries) == 0 {
			return end + 1, err
		}
		return p.Entries[len(p.Entries)-1].Sequence, nil
	case q.From > end:
		return q.From, nil
	}
	return jr.Start(q)
}

// journalStream gives the entries of one journal.
type journalStream struct {
	j     journals
	jr    *journal.Journal
	group ident.GroupName
	q     journal.Filter
	f     *journal.Follower
	after ident.Sequence // given up to here
	first *journal.Step  // read when it was opened
}

// prime takes the first step if there is one, so that what keeps the stream from beginning is said before it begins.
func (s *journalStream) prime() error {
	step, ok, err := s.f.TryNext()
	if err != nil {
		s.Close()
		return s.j.explainStream(s.jr, err)
	}
	if ok {
		s.first = &step
	}
	return nil
}

func (s *journalStream) After() string { return strconv.FormatUint(uint64(s.after), 10) }

func (s *journalStream) Close() { s.f.Close() }

func (s *journalStream) Next(ctx context.Context) (api.StreamStep, error) {
	step, err := s.step(ctx)
	if err != nil {
		return api.StreamStep{}, s.j.explainStream(s.jr, err)
	}
	if step.Rewound {
		s.after = step.After
		return api.StreamStep{Rewound: &client.Rewound{After: uint64(step.After)}}, nil
	}
	var out api.StreamStep
	for size := 0; ; {
		size += len(step.Bundle.Raw)
		if err := s.j.n.scrub.distrusts(s.jr.ID(), step.Bundle.First, step.Bundle.Last()); err != nil {
			s.first = &step
			if len(out.Entries) > 0 {
				return out, nil // what is good comes first
			}
			return api.StreamStep{}, err
		}
		if out.Entries, err = s.take(out.Entries, step); err != nil {
			return api.StreamStep{}, s.j.explainStream(s.jr, err)
		}
		if size >= stepBytes {
			return out, nil
		}
		next, ok, err := s.f.TryNext()
		if err != nil || !ok {
			return out, nil // an error stays for the next call, or comes again
		}
		if next.Rewound {
			s.first = &next
			return out, nil
		}
		step = next
	}
}

func (s *journalStream) step(ctx context.Context) (journal.Step, error) {
	if first := s.first; first != nil {
		s.first = nil
		return *first, nil
	}
	return s.f.Next(ctx)
}

// take appends what is wanted of a step.
func (s *journalStream) take(to []client.Entry, step journal.Step) ([]client.Entry, error) {
	view, _ := s.jr.View()
	for e, err := range step.Bundle.Entries() {
		if err != nil {
			return to, err
		}
		if e.Sequence >= step.From && s.q.Selects(&e) {
			to = append(to, shown(HistoryOf(s.jr.ID()), &e, e.Sequence <= view.Confirmed, &s.q))
		}
	}
	s.after = step.Bundle.Last()
	return to, nil
}

// explainStream is explain for streams.
func (j journals) explainStream(jr *journal.Journal, err error) error {
	var gone *journal.GoneError
	switch {
	case errors.As(err, &gone):
		return &client.Error{Code: client.CodeGone, Detail: fmt.Sprintf("journal %s: %v", jr.ID(), err), Position: strconv.FormatUint(uint64(gone.First-1), 10),
			Remedy: "go on with what is held (after=" + strconv.FormatUint(uint64(gone.First-1), 10) + "), or ask a node that keeps more; a hold keeps receivers for a reader"}
	case errors.Is(err, journal.ErrClosed):
		return &client.Error{Code: client.CodeUnavailable, Detail: "this node is stopping", Remedy: "go on at another node, or here when it is back"}
	}
	return j.explain(jr, err)
}

// FollowHistory opens a stream of the history of a group.
func (j journals) FollowHistory(_ context.Context, group string, f client.EntryFilter, after string) (api.EntryStream, error) {
	s, err := j.history(group, f, after)
	if err != nil {
		return nil, err
	}
	facts, ok, err := s.h.TryNext()
	if err != nil {
		s.Close()
		return nil, j.explainHistory(s.group, err)
	}
	if ok {
		s.first = &facts
	}
	return s, nil
}

// historyStream gives the facts of a history.
type historyStream struct {
	j     journals
	rep   *replica.Replica
	group ident.GroupName
	q     journal.Filter
	h     *replica.History
	after ident.Position // given up to here
	first *replica.Facts // read when it was opened
}

func (j journals) history(group string, f client.EntryFilter, after string) (*historyStream, error) {
	rep, err := j.held(group)
	if err != nil {
		return nil, err
	}
	if err := j.n.placed(group, after); err != nil {
		return nil, err
	}
	q, err := journalFilter(f)
	if err != nil {
		return nil, err
	}
	at, err := position(after)
	if after == "" || after == "now" {
		oldest, newest, ok := rep.HistoryHeld()
		if !ok {
			return nil, notKnown()
		}
		at, err = oldest, nil
		if after == "now" {
			at = newest
		}
	}
	if err != nil {
		return nil, err
	}
	return &historyStream{j: j, rep: rep, group: ident.GroupName(group), q: q, h: rep.FollowHistory(at), after: at}, nil
}

func (s *historyStream) After() string { return s.j.n.position(s.group, s.after) }

func (s *historyStream) Close() { s.h.Close() }

func (s *historyStream) Next(ctx context.Context) (api.StreamStep, error) {
	var facts replica.Facts
	var err error
	if s.first != nil {
		facts, s.first = *s.first, nil
	} else if facts, err = s.h.Next(ctx); err != nil {
		return api.StreamStep{}, s.j.explainHistory(s.group, err)
	}
	var out api.StreamStep
	for size := 0; ; {
		size += len(facts.Bundle.Raw)
		if err := s.j.n.scrub.distrusts(facts.Journal, facts.Bundle.First, facts.Bundle.Last()); err != nil {
			s.first = &facts
			if len(out.Entries) > 0 {
				return out, nil // what is good comes first
			}
			return api.StreamStep{}, err
		}
		out.Entries = append(out.Entries, s.take(facts)...)
		if size >= stepBytes {
			return out, nil
		}
		var ok bool
		if facts, ok, err = s.h.TryNext(); err != nil || !ok {
			return out, nil // the error comes again
		}
	}
}

// take returns what is wanted of facts.
func (s *historyStream) take(facts replica.Facts) []client.Entry {
	var out []client.Entry
	for e, err := range facts.Bundle.Entries() {
		if err != nil {
			break // it was decoded before: cannot happen
		}
		if e.Position.IsZero() || e.Position.History <= facts.After.History || !s.q.Selects(&e) {
			continue
		}
		c := shown(s.j.n.history(s.group), &e, true, &s.q)
		c.Journal = facts.Journal.String()
		out = append(out, c)
	}
	s.after = facts.Bundle.After()
	return out
}

// explainHistory turns an error of a history into what a reader is told.
func (j journals) explainHistory(group ident.GroupName, err error) error {
	var gone *replica.GoneError
	var left *replica.LeftHistoryError
	switch {
	case errors.As(err, &gone):
		oldest := j.n.position(group, gone.Oldest)
		return &client.Error{Code: client.CodeGone, Detail: fmt.Sprintf("node %s: %v", j.n.config.Node, err), Position: oldest,
			Remedy: "ask a node that keeps more, or read the records themselves and go on after " + oldest + "; a hold keeps receivers for a reader"}
	case errors.As(err, &left):
		fork := j.n.position(group, left.Fork)
		return &client.Error{Code: client.CodePrecondition, Detail: err.Error(), Position: fork,
			Remedy: "take back what was made of later facts, then go on after " + fork + "; the back-out reports list what was lost"}
	}
	return j.n.explain(group, err)
}
