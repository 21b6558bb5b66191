package api

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// Entries per answer.
const (
	usualEntries = 100
	mostEntries  = 10000
)

// entryParams select entries of a journal or of the history.
func entryParams() []string {
	return []string{"after", "code", "type", "file", "key", "key_prefix", "images", "limit", "follow", "wait"}
}

// journalParams select entries of one journal.
func journalParams() []string {
	return []string{"from", "to", "position_from", "position_to", "since", "until", "receiver", "transaction", "include", "newest", "order"}
}

// filter reads the parameters that select entries of the group. What a node does with them needs no more checks.
func (r *request) filter(group string) (f client.EntryFilter, err error) {
	for name, v := range map[string]*uint64{"from": &f.From, "to": &f.To, "transaction": &f.Transaction} {
		if *v, err = r.number(name); err != nil {
			return f, err
		}
	}
	if f.To != 0 && f.To < f.From {
		return f, invalid(fmt.Sprintf("from=%d is beyond to=%d", f.From, f.To), "exchange them")
	}
	if f.Since, err = r.instant("since"); err != nil {
		return f, err
	}
	if f.Until, err = r.instant("until"); err != nil {
		return f, err
	}
	if !f.Until.IsZero() && f.Until.Before(f.Since) {
		return f, invalid("since is later than until", "exchange them")
	}
	if err := r.positions(group, &f); err != nil {
		return f, err
	}
	if err := r.contents(&f); err != nil {
		return f, err
	}
	include, err := r.choice("include", "confirmed", "all")
	if err != nil {
		return f, err
	}
	f.IncludeAll = include == "all"
	if f.Images, err = r.choice("images", "both", "after", "none"); err != nil {
		return f, err
	}
	return f, r.amount(&f)
}

// positions reads the history positions.
func (r *request) positions(group string, f *client.EntryFilter) error {
	f.PositionFrom, f.PositionTo = r.query.Get("position_from"), r.query.Get("position_to")
	from, err := r.at("position_from", group)
	if err != nil {
		return err
	}
	to, err := r.at("position_to", group)
	if err == nil && !to.IsZero() && to.Compare(from) < 0 {
		err = invalid("position_from is beyond position_to", "exchange them")
	}
	return err
}

// at reads a history position of the group; the zero one when it is missing.
func (r *request) at(name, group string) (ident.Position, error) {
	if v := r.query.Get(name); v != "" {
		return positionOf(name, v, group)
	}
	return ident.Position{}, nil
}

// positionOf reads a history position of the group.
func positionOf(name, v, group string) (ident.Position, error) {
	g, p, err := ident.ParsePosition(v)
	switch {
	case err != nil:
		return p, invalid(fmt.Sprintf("%s=%s is no history position", name, shorten(v)), "want a history position, such as "+group+"@3.42")
	case g != "" && string(g) != group && !ofLocal(group, g):
		return p, invalid(fmt.Sprintf("%s=%s is a position of another group than %s", name, shorten(v), shorten(group)), "want a history position, such as "+group+"@3.42")
	}
	return p, nil
}

// ofLocal tells whether a position is of some node's local files, where the group asked for stands for them. Whose it may be says the node.
func ofLocal(group string, g ident.GroupName) bool {
	return group == client.LocalGroup && strings.HasPrefix(string(g), client.LocalGroup+"/")
}

// contents reads what concerns the entries themselves.
func (r *request) contents(f *client.EntryFilter) error {
	f.Code, f.Type, f.File = r.query.Get("code"), r.query.Get("type"), r.query.Get("file")
	for _, c := range listed(f.Code) {
		if !slices.Contains([]string{"R", "C", "J", "U"}, c) {
			return invalid("code="+shorten(f.Code)+" is no kind of entry", "want R, C, J, U, or several of them separated by commas")
		}
	}
	for _, t := range listed(f.Type) {
		if !validType(t) {
			return invalid("type="+shorten(f.Type)+" is no type of entry", "want two upper-case letters or digits, such as PT, or several separated by commas")
		}
	}
	for _, p := range listed(f.File) {
		if _, err := path.Match(p, ""); err != nil {
			return invalid("file="+shorten(f.File)+" is no pattern", "want a name, or a pattern such as orders*; write \\[ for a bracket")
		}
	}
	key, prefix := r.query.Get("key"), r.query.Get("key_prefix")
	switch {
	case key != "" && prefix != "":
		return invalid("both key and key_prefix are given", "give one of them")
	case key != "":
		f.Key = []byte(key)
	case prefix != "":
		f.KeyPrefix = []byte(prefix)
	}
	f.Receiver = r.query.Get("receiver")
	_, err := client.ParseReceivers(f.Receiver)
	return err
}

// amount reads how many entries are wanted, and in which order.
func (r *request) amount(f *client.EntryFilter) error {
	newest, err := r.number("newest")
	if err != nil {
		return err
	}
	if newest > mostEntries {
		return invalid(fmt.Sprintf("newest=%d", newest), fmt.Sprintf("at most %d", mostEntries))
	}
	f.Newest = int(newest)
	order, err := r.choice("order", "ascending", "descending")
	if err != nil {
		return err
	}
	f.Descending = order == "descending"
	if newest > 0 && (r.query.Has("limit") || f.Descending) {
		return invalid("newest goes with neither limit nor order", "leave them out; order=descending with limit lists the newest first")
	}
	f.Limit, err = r.limit(usualEntries, mostEntries)
	return err
}

// listed splits what is separated by commas.
func listed(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
