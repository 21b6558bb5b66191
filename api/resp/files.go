package resp

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
)

// This file gives a scan what it goes through. Only the primary of a group knows all its files and keys: a copy may be behind, and a node
// may have none. So the node that the client speaks to puts the scan together, and asks the primaries for names of files and for pages
// of keys. Where the client wants what this node has, nobody else is asked.

// file is a file in the order of a scan: by code, then by name.
type file struct {
	name string
	code uint64
}

// ownFiles lists the files that are local to this node. For another node there are none.
func (s *session) ownFiles(ctx context.Context) ([]string, error) {
	if s.srv.o.Local == "" || s.peer {
		return nil, nil
	}
	return s.srv.o.Store.Files(ctx, s.srv.o.Local, true)
}

// files lists the files of all groups, and own, in the order of a scan.
func (s *session) files(ctx context.Context, own []string) ([]file, error) {
	names, asked := slices.Clone(own), map[string][][]byte{} // groups, by the address of their primary
	for _, g := range s.srv.o.Roles.Groups() {
		here, err := s.srv.o.Store.Files(ctx, g.Name, s.local())
		switch other, is := elsewhere(err); {
		case is && s.asks(other):
			asked[other.Redis] = append(asked[other.Redis], []byte(g.Name))
		case err != nil:
			return nil, err
		}
		names = append(names, here...)
	}
	for address, groups := range asked {
		r, err := s.ask(ctx, address, append([][]byte{[]byte("understudy"), []byte("files")}, groups...))
		if err != nil {
			return nil, err
		}
		list, _ := r.(array)
		for _, name := range list {
			b, _ := name.(bulk)
			names = append(names, string(b))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names) // groups with ranges of one file have it both
	files := make([]file, len(names))
	for i, n := range names {
		files[i] = file{name: n, code: fileCode(n)}
	}
	slices.SortStableFunc(files, func(a, b file) int { return cmp.Compare(a.code, b.code) })
	return files, nil
}

// page returns records of a file in the order of their keys, from wherever they are.
func (s *session) page(ctx context.Context, file string, from Bound, limit int) ([]Scanned, bool, error) {
	page, done, err := s.srv.o.Store.Scan(ctx, file, from, limit, s.local())
	other, is := elsewhere(err)
	if !is || !s.asks(other) {
		return page, done, err
	}
	r, err := s.ask(ctx, other.Redis, [][]byte{[]byte("understudy"), []byte("page"), []byte(file), from.Key, strconv.AppendInt(nil, int64(truth(from.After)), 10), strconv.AppendInt(nil, int64(limit), 10)})
	if err != nil {
		return nil, false, err
	}
	return pageOf(r)
}

// asks tells whether another node can be asked for what is not here.
func (s *session) asks(other *Elsewhere) bool { return !s.peer && !other.Retry && other.Redis != "" }

// ask asks another node for something that changes nothing. *Elsewhere: it has not answered, or is not the one any more.
func (s *session) ask(ctx context.Context, address string, args [][]byte) (reply, error) {
	j := &job{reads: true, wire: [][][]byte{args}}
	j.slot = &slot{job: j}
	s.relay(ctx, address, []*job{j})
	s.give(j.slot.charged) // it is small, or soon in a slot of the client's own command
	switch r := j.slot.reply.(type) {
	case nil:
		return nil, &Elsewhere{Retry: true}
	case failure:
		return nil, r
	default:
		return r, nil
	}
}

// answerFiles lists the files of groups that this node is primary of, for another one.
func (s *session) answerFiles(groups [][]byte) reply {
	return s.run(&job{reads: true, direct: func(ctx context.Context) (reply, error) {
		all := array{}
		for _, g := range groups {
			names, err := s.srv.o.Store.Files(ctx, string(g), false)
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				all = append(all, text(n))
			}
		}
		return all, nil
	}})
}

// answerPage gives another node a page of a file that this node is primary of: whether it is the last one, then keys and kinds in turn.
func (s *session) answerPage(file, key, after, most []byte) reply {
	skip, valid := integerOf(after)
	limit, also := integerOf(most)
	if !valid || !also || limit < 1 {
		return errNotInteger
	}
	return s.run(&job{reads: true, direct: func(ctx context.Context) (reply, error) {
		if group, err := s.srv.o.Store.Group(Key{File: string(file), Key: key}); err == nil && group == s.srv.o.Local {
			return nil, errNotMeant
		}
		page, done, err := s.srv.o.Store.Scan(ctx, string(file), Bound{Key: key, After: skip != 0}, int(min(limit, scanPage)), false)
		if err != nil {
			return nil, err
		}
		all := array{integer(truth(done))}
		for _, r := range page {
			all = append(all, bulk(r.Key), integer(r.Kind))
		}
		return all, nil
	}})
}

// pageOf reads what answerPage gave.
func pageOf(r reply) (page []Scanned, done bool, err error) {
	list, _ := r.(array)
	if len(list)%2 == 0 {
		return nil, false, errors.New("another node has answered with something that is no page")
	}
	last, _ := list[0].(integer)
	for i := 1; i < len(list); i += 2 {
		key, _ := list[i].(bulk)
		kind, _ := list[i+1].(integer)
		page = append(page, Scanned{Key: key, Kind: byte(kind)})
	}
	return page, last != 0, nil
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
