package resp

import (
	"bytes"
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

// ownFiles lists the files that are local to this node from a cursor on: about most of them, the code of the first ones left out, and how many
// there are in all. For another node there are none.
func (s *session) ownFiles(ctx context.Context, cursor uint64, most int) (part []file, next uint64, all int, err error) {
	if s.srv.o.Local == "" || s.peer {
		return nil, 0, 0, nil
	}
	return s.srv.names.after(ctx, cursor, most, func(ctx context.Context) ([]string, error) {
		return s.srv.o.Store.Files(ctx, s.srv.o.Local, true)
	})
}

// window puts files in the order of a scan: those from a code on, and about most of them. next is the code of the first ones left out; 0: there
// are no more.
func window(names []string, from uint64, most int) (files []file, next uint64) {
	slices.Sort(names)
	for _, n := range slices.Compact(names) { // groups with ranges of one file have it both
		if code := fileCode(n); code >= from {
			files = append(files, file{name: n, code: code})
		}
	}
	slices.SortStableFunc(files, func(a, b file) int { return cmp.Compare(a.code, b.code) })
	return cutWindow(files, most)
}

// firstOf is the place of the first file with a code, or with a higher one.
func firstOf(files []file, code uint64) int {
	at, _ := slices.BinarySearchFunc(files, code, func(f file, code uint64) int { return cmp.Compare(f.code, code) })
	return at
}

// files lists the files of all groups, and own, from a code on, as window does. next is the code from which on own leaves some out; 0: none.
func (s *session) files(ctx context.Context, own []file, next, from uint64) ([]file, uint64, error) {
	names, asked := make([]string, 0, len(own)), map[string][][]byte{} // groups, by the address of their primary
	for _, f := range own {
		names = append(names, f.name)
	}
	for _, g := range s.srv.o.Roles.Groups() {
		here, err := s.srv.o.Store.Files(ctx, g.Name, s.local())
		switch other, is := elsewhere(err); {
		case is && s.asks(other):
			asked[other.Redis] = append(asked[other.Redis], []byte(g.Name))
		case err != nil:
			return nil, 0, err
		}
		names = append(names, here...)
	}
	for address, groups := range asked {
		r, err := s.ask(ctx, address, append([][]byte{[]byte("understudy"), []byte("files"), strconv.AppendUint(nil, from, 10)}, groups...))
		if err != nil {
			return nil, 0, err
		}
		there, left, err := filesOf(r, from)
		if err != nil {
			return nil, 0, err
		}
		names = append(names, there...)
		if left > 0 && (next == 0 || left < next) { // of those that leave some out, the one that leaves out most
			next = left
		}
	}
	files, left := window(names, from, s.srv.o.Limits.Files)
	if next > 0 && (left == 0 || next < left) {
		return files[:firstOf(files, next)], next, nil
	}
	return files, left, nil
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
	return pageOf(r, from)
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

// answerFiles lists files of groups that this node is primary of, for another one: the code with which it has to go on asking, 0 for none,
// then names.
func (s *session) answerFiles(from []byte, groups [][]byte) reply {
	code, valid := integerOf(from)
	if !valid || code < 0 {
		return errNotInteger
	}
	return s.run(&job{reads: true, direct: func(ctx context.Context) (reply, error) {
		var names []string
		for _, g := range groups {
			if s.srv.o.Local != "" && string(g) == s.srv.o.Local {
				return nil, errNotMeant
			}
			some, err := s.srv.o.Store.Files(ctx, string(g), false)
			if err != nil {
				return nil, err
			}
			names = append(names, some...)
		}
		files, next := window(names, uint64(code), s.srv.o.Limits.Files)
		all := array{integer(next)}
		for _, f := range files {
			all = append(all, text(f.name))
		}
		return all, nil
	}})
}

// errNonsense says that another node has not answered as it should. What it left out would be missing in the scan.
var errNonsense = errors.New("another node has answered a scan with something that is no answer to it")

// filesOf reads what answerFiles gave.
func filesOf(r reply, from uint64) (names []string, next uint64, err error) {
	list, _ := r.(array)
	if len(list) == 0 {
		return nil, 0, errNonsense
	}
	code, is := list[0].(integer)
	if next = uint64(code); !is || next != 0 && (next <= from || next > lastCode) {
		return nil, 0, errNonsense
	}
	for _, r := range list[1:] {
		name, is := r.(bulk)
		if !is || len(name) == 0 {
			return nil, 0, errNonsense
		}
		names = append(names, string(name))
	}
	return names, next, nil
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

// pageOf reads what answerPage gave of the keys from a bound on. They have to go up: else the scan would not end.
func pageOf(r reply, from Bound) (page []Scanned, done bool, err error) {
	list, _ := r.(array)
	if len(list)%2 == 0 {
		return nil, false, errNonsense
	}
	last, valid := list[0].(integer)
	for i := 1; i < len(list); i += 2 {
		key, isKey := list[i].(bulk)
		kind, isKind := list[i+1].(integer)
		order := bytes.Compare(key, from.Key)
		valid = valid && isKey && isKind && (order > 0 || order == 0 && !from.After)
		from = Bound{Key: key, After: true}
		page = append(page, Scanned{Key: key, Kind: byte(kind)})
	}
	if !valid {
		return nil, false, errNonsense
	}
	return page, last != 0, nil
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
