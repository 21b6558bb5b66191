package node

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/understudy-ha/understudy/api"
	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/fsm"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/replica"
	"github.com/understudy-ha/understudy/replica/store"
)

// askPart bounds how long another node is waited for when it gives a part of a list.
const askPart = 5 * time.Second

// List returns a page of a file. One group's is answered here, or elsewhere as a whole. Of several groups each part comes from that
// group's primary, or from this node's copy of it, and this node puts them together.
func (d data) List(ctx context.Context, file string, o client.ListOptions) (client.RecordPage, error) {
	s := d.n.selection()
	if rep, err, ok := d.n.local.asked(o.Group); ok {
		if err != nil {
			return client.RecordPage{}, err
		}
		return d.listOf(ctx, localGroup, rep, file, o)
	}
	if o.Group != "" {
		if _, _, err := d.n.group(o.Group); err != nil {
			return client.RecordPage{}, err
		}
		return d.listHere(ctx, ident.GroupName(o.Group), file, o)
	}
	parts := s.spans(file)
	names := owners(parts)
	switch len(names) {
	case 0:
		rep, err := d.noOwner(ctx, s, file)
		if err != nil {
			return client.RecordPage{}, err
		}
		return d.listOf(ctx, localGroup, rep, file, o)
	case 1:
		return d.listHere(ctx, names[0], file, o)
	}
	return merge(file, string(d.n.config.Node), within(parts, o.Prefix, o.From), o, func(group ident.GroupName, o client.ListOptions) (client.RecordPage, error) {
		return d.listPart(ctx, group, file, o)
	})
}

// listHere returns a page of one group's records from this node's replica.
func (d data) listHere(ctx context.Context, group ident.GroupName, file string, o client.ListOptions) (client.RecordPage, error) {
	rep := d.n.replicas.get(group)
	if rep == nil {
		return client.RecordPage{}, d.n.elsewhere(group)
	}
	return d.listOf(ctx, group, rep, file, o)
}

func (d data) listOf(ctx context.Context, group ident.GroupName, rep *replica.Replica, file string, o client.ListOptions) (client.RecordPage, error) {
	o.Local = d.n.local.reads(group, o.Local)
	age := d.n.ageing(rep, o.Local && group != localGroup)
	if err := tooOld(age(), o.MaxLag); err != nil {
		return client.RecordPage{}, err
	}
	page, err := rep.List(ctx, file, o.Prefix, o.From, o.Limit, o.Local)
	if err != nil {
		return client.RecordPage{}, d.n.explain(group, err)
	}
	old := age()
	if err := tooOld(old, o.MaxLag); err != nil {
		return client.RecordPage{}, err
	}
	out := client.RecordPage{File: file, Records: []client.Record{}, Node: string(d.n.config.Node), Local: d.n.mark(group), Applied: d.n.position(group, page.Position), Age: old}
	for _, r := range page.Records {
		out.Records = append(out.Records, record(d.n.history(group), file, r.Key, r.Image))
	}
	if len(page.Next) > 0 {
		next := client.MakeKey(page.Next)
		out.Next = &next
	}
	return out, nil
}

// listPart is listHere, or the same asked of the group's primary.
func (d data) listPart(ctx context.Context, group ident.GroupName, file string, o client.ListOptions) (client.RecordPage, error) {
	page, err := d.listHere(ctx, group, file, o)
	var other *api.Elsewhere
	if !errors.As(err, &other) || other.HTTP == "" || other.Retry || o.Local {
		return page, err
	}
	ctx, cancel := context.WithTimeout(ctx, askPart)
	defer cancel()
	o.Group, o.Wait = string(group), time.Second
	page, err = d.n.peers.at(other.HTTP).List(ctx, file, o)
	switch client.CodeOf(err) {
	case client.CodeInvalid, client.CodeTooLarge, client.CodeCorrupt:
		return page, err
	}
	if err != nil {
		d.n.log.Debug("a part of a list is missing", "group", group, "file", file, "address", other.HTTP, "error", err)
		return page, &api.Elsewhere{} // nothing is lost by asking once more
	}
	return page, nil
}

// merge puts a page together from the parts of a file, in key order. get returns a page of one group's records.
func merge(file, node string, parts []span, o client.ListOptions, get func(ident.GroupName, client.ListOptions) (client.RecordPage, error)) (client.RecordPage, error) {
	out := client.RecordPage{File: file, Records: []client.Record{}, Node: node}
	size := 0
	for _, p := range parts {
		if p.group == "" {
			continue
		}
		if len(out.Records) >= o.Limit || size >= store.MaxPageBytes {
			next := client.MakeKey([]byte(p.keys.From)) // not the first part, so it has a bound
			out.Next = &next
			return out, nil
		}
		ask := o
		ask.Limit = o.Limit - len(out.Records)
		if bytes.Compare(ask.From, []byte(p.keys.From)) < 0 {
			ask.From = []byte(p.keys.From)
		}
		page, err := get(p.group, ask)
		if err != nil {
			return client.RecordPage{}, err
		}
		out.Parts = append(out.Parts, client.RecordPart{Group: string(p.group), Keys: keysOf(p.keys), Node: page.Node, Applied: page.Applied, Age: page.Age})
		if page.Age < 0 || out.Age >= 0 && page.Age > out.Age {
			out.Age = page.Age
		}
		over := false // what follows is of the next part
		for _, r := range page.Records {
			if over = !p.keys.Contains(r.Key.Bytes()); over {
				break
			}
			out.Records = append(out.Records, r)
			size += len(r.Key.Bytes()) + len(r.Value)
		}
		if page.Next != nil && !over && p.keys.Contains(page.Next.Bytes()) {
			out.Next = page.Next
			return out, nil
		}
	}
	return out, nil
}

// scanParts is Scan of a file that several groups own.
func (s records) scanParts(ctx context.Context, file string, key []byte, limit int, local bool) ([]resp.Scanned, bool, error) {
	for {
		page, err := data{s.n}.List(ctx, file, client.ListOptions{From: key, Limit: limit, Local: local})
		var other *api.Elsewhere
		switch {
		case errors.As(err, &other):
			return nil, false, &resp.Elsewhere{Retry: true} // no node has all of it: this one puts it together
		case err != nil:
			return nil, false, refusal(err)
		case len(page.Records) == 0 && page.Next != nil: // all of them have expired
			key = page.Next.Bytes()
			continue
		}
		out := make([]resp.Scanned, len(page.Records))
		for i, r := range page.Records {
			out[i] = resp.Scanned{Key: r.Key.Bytes(), Kind: r.Kind}
		}
		return out, page.Next == nil, nil
	}
}

func keysOf(r fsm.KeyRange) client.KeyRange {
	return client.KeyRange{From: r.From.String(), To: r.To.String()}
}

// rangeOf reads the bounds of a range.
func rangeOf(r client.KeyRange) (out fsm.KeyRange, err error) {
	for _, b := range []struct {
		text string
		to   *fsm.KeyBound
	}{{r.From, &out.From}, {r.To, &out.To}} {
		if e := b.to.UnmarshalText([]byte(b.text)); e != nil {
			err = &client.Error{Code: client.CodeInvalid, Detail: "keys: " + e.Error(), Remedy: "write the key itself, or hex: and its bytes in hexadecimal digits"}
		}
	}
	return out, err
}

// heldFor says what a group holds in its store that the selection gives to somebody else; "" when that is nothing.
func heldFor(ctx context.Context, s *selection, rep *replica.Replica, group, to ident.GroupName) (string, error) {
	files, err := rep.Files()
	if err != nil {
		return "", err
	}
	for _, file := range files {
		for _, p := range s.spans(file) {
			if p.group != to {
				continue
			}
			for from := []byte(p.keys.From); ; {
				page, err := rep.List(ctx, file, nil, from, 1, false)
				if err != nil {
					return "", err
				}
				if len(page.Records) > 0 && p.keys.Contains(page.Records[0].Key) {
					return foundText(group, to, file, page.Records[0].Key), nil
				}
				if len(page.Records) > 0 || len(page.Next) == 0 || !p.keys.Contains(page.Next) {
					break
				}
				from = page.Next // what was there has expired
			}
		}
	}
	return "", nil
}
