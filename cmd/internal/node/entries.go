package node

import (
	"context"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// What one answer of entries may take: bytes of the entries, and bytes of the journal looked at for them.
const (
	pageBytes = 8 << 20
	pageScan  = 128 << 20
)

// journalFilter turns a checked filter into the journal's.
func journalFilter(f client.EntryFilter) (journal.Filter, error) {
	q := journal.Filter{From: ident.Sequence(f.From), To: ident.Sequence(f.To), Since: f.Since, Until: f.Until, Key: f.Key, KeyPrefix: f.KeyPrefix,
		Transaction: ident.Sequence(f.Transaction), IncludeUnconfirmed: f.IncludeAll, Descending: f.Descending || f.Newest > 0, Limit: f.Limit, Bytes: pageBytes, Scan: pageScan}
	if f.Newest > 0 {
		q.Limit = f.Newest
	}
	r, err := client.ParseReceivers(f.Receiver)
	if err != nil {
		return q, err
	}
	q.Receivers = journal.Receivers{First: ident.ReceiverNumber(r.First), Last: ident.ReceiverNumber(r.Last), Attached: r.Attached}
	if q.PositionFrom, err = position(f.PositionFrom); err != nil {
		return q, err
	}
	if q.PositionTo, err = position(f.PositionTo); err != nil {
		return q, err
	}
	for c := range strings.SplitSeq(f.Code, ",") {
		if len(c) == 1 {
			q.Codes = append(q.Codes, entry.Code(c[0]))
		}
	}
	for t := range strings.SplitSeq(f.Type, ",") {
		if len(t) == 2 {
			q.Types = append(q.Types, entry.Type{t[0], t[1]})
		}
	}
	if f.File != "" {
		q.Files = []string{f.File}
		if strings.Contains(f.File, ",") {
			q.Files = append(q.Files, strings.Split(f.File, ",")...)
		}
	}
	switch f.Images {
	case "after":
		q.Images = journal.ImagesAfter
	case "none":
		q.Images = journal.ImagesNone
	}
	return q, nil
}

// position reads a history position; "" is the zero one.
func position(s string) (ident.Position, error) {
	if s == "" {
		return ident.Position{}, nil
	}
	_, p, err := ident.ParsePosition(s)
	if err != nil {
		return p, &client.Error{Code: client.CodeInvalid, Detail: err.Error(), Remedy: "positions look like default@3.42"}
	}
	return p, nil
}

func (j journals) Entries(ctx context.Context, group, node string, f client.EntryFilter) (client.EntryPage, error) {
	_, jr, err := j.journal(group, node)
	if err != nil {
		return client.EntryPage{}, err
	}
	if err := j.n.placed(group, f.PositionFrom, f.PositionTo); err != nil {
		return client.EntryPage{}, err
	}
	q, err := journalFilter(f)
	if err != nil {
		return client.EntryPage{}, err
	}
	p, err := jr.Page(ctx, q)
	if err != nil {
		return client.EntryPage{}, j.explain(jr, err)
	}
	view, _ := jr.View()
	out := client.EntryPage{Items: make([]client.Entry, 0, len(p.Entries)), Next: uint64(p.Next)}
	for i := range p.Entries {
		e := &p.Entries[i]
		if err := j.n.scrub.distrusts(jr.ID(), e.Sequence, e.Sequence); err != nil {
			return client.EntryPage{}, err
		}
		out.Items = append(out.Items, shown(HistoryOf(jr.ID()), e, e.Sequence <= view.Confirmed, &q))
	}
	if f.Newest > 0 {
		slices.Reverse(out.Items)
		if len(out.Items) >= f.Newest {
			out.Next = 0 // these are all that were asked for
		}
	}
	return out, nil
}

// shown is entryOf with the images that are wanted; sizes stay.
func shown(history ident.GroupName, e *entry.Entry, confirmed bool, q *journal.Filter) client.Entry {
	c := entryOf(history, e, confirmed)
	if q.Images != journal.ImagesBoth {
		c.Before = nil
	}
	if q.Images == journal.ImagesNone {
		c.After = nil
	}
	return c
}

func imageBytes(i *entry.Image) int {
	if i == nil {
		return 0
	}
	return len(i.Value)
}

// notKnown says that nothing can be said about the end of the history here.
func notKnown() error {
	return &client.Error{Code: client.CodeUnavailable, Detail: "this node does not know what is committed at the moment", Remedy: "ask another node, or again"}
}

// Facts lists facts of the history.
func (j journals) Facts(_ context.Context, group string, f client.EntryFilter, after string) (client.HistoryPage, error) {
	s, err := j.history(group, f, after)
	if err != nil {
		return client.HistoryPage{}, err
	}
	defer s.Close()
	p := client.HistoryPage{Items: []client.Entry{}}
	for size, looked := 0, 0; ; {
		p.Next = s.After()
		facts, ok, err := s.h.TryNext()
		switch {
		case err != nil && len(p.Items) == 0:
			return client.HistoryPage{}, j.explainHistory(ident.GroupName(group), err)
		case err != nil:
			p.More = true // the next page says it
			return p, nil
		case !ok:
			_, newest, known := s.rep.HistoryHeld()
			if !known && len(p.Items) == 0 { // such as a primary whose lease is not valid: this is no end
				return client.HistoryPage{}, notKnown()
			}
			p.More = !known || newest.History > s.h.At().History
			return p, nil
		}
		looked += len(facts.Bundle.Raw)
		if err := j.n.scrub.distrusts(facts.Journal, facts.Bundle.First, facts.Bundle.Last()); err != nil {
			if len(p.Items) > 0 {
				p.More = true
				return p, nil // what is good comes first
			}
			return client.HistoryPage{}, err
		}
		for _, e := range s.take(facts) {
			if size >= pageBytes || len(p.Items) >= f.Limit {
				p.More = true // in the middle of a bundle, after the last item
				return p, nil
			}
			size += len(e.Data) + e.BeforeBytes + e.AfterBytes
			p.Items = append(p.Items, e)
			p.Next = e.Position
		}
		if p.Next = s.After(); size >= pageBytes || len(p.Items) >= f.Limit || looked >= pageScan {
			_, newest, ok := s.rep.HistoryHeld()
			p.More = !ok || newest.History > s.h.At().History
			return p, nil
		}
	}
}
