package resp

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	scanPage  = 1000   // records asked for at once
	scanWork  = 10_000 // records looked at by one SCAN that finds nothing
	scanCount = 10     // when the client does not say
	maxCount  = 10_000
)

// scanOptions are what SCAN and HSCAN say beside the cursor.
type scanOptions struct {
	match    []byte // nil: everything
	count    int
	kind     string // "": any
	noValues bool
}

func scanOptionsOf(args [][]byte, hash bool) (o scanOptions, bad reply) {
	o.count = scanCount
	for i := 0; i < len(args); i++ {
		if hash && is(args[i], "NOVALUES") {
			o.noValues = true
			continue
		}
		if i+1 == len(args) {
			return o, errSyntax
		}
		switch {
		case is(args[i], "MATCH") && len(args[i+1]) <= 8<<10:
			o.match = args[i+1]
		case is(args[i], "COUNT"):
			n, valid := integerOf(args[i+1])
			if !valid {
				return o, errNotInteger
			}
			if n < 1 {
				return o, errSyntax
			}
			o.count = int(min(n, maxCount))
		case !hash && is(args[i], "TYPE"):
			o.kind = lower(args[i+1])
		default:
			return o, errSyntax
		}
		i++
	}
	return o, nil
}

// found is what one step of a scan returns.
type found struct {
	cursor uint64 // 0: there is no more
	names  [][]byte
}

func ownScan(s *session, args [][]byte) reply {
	cursor, valid := cursorOf(args[1])
	if !valid {
		return errCursor
	}
	o, bad := scanOptionsOf(args[2:], false)
	if bad != nil {
		return bad
	}
	return s.scan(cursor, o)
}

// scan answers one step: here, or, where one node is primary of everything, there.
func (s *session) scan(cursor uint64, o scanOptions) reply {
	return s.run(&job{reads: true, wire: [][][]byte{o.command(cursor)}, direct: func(ctx context.Context) (reply, error) {
		f, err := s.scanHere(ctx, cursor, o)
		if err != nil {
			return nil, err
		}
		return array{text(strconv.FormatUint(f.cursor, 10)), texts(f.names...)}, nil
	}})
}

// command is a step as it is asked of another node.
func (o scanOptions) command(cursor uint64) [][]byte {
	args := [][]byte{[]byte("scan"), strconv.AppendUint(nil, cursor, 10), []byte("count"), strconv.AppendInt(nil, int64(o.count), 10)}
	if o.match != nil {
		args = append(args, []byte("match"), o.match)
	}
	if o.kind != "" {
		args = append(args, []byte("type"), []byte(o.kind))
	}
	return args
}

// takes tells whether the client wants a record.
func (o *scanOptions) takes(name []byte, kind byte) bool {
	return (o.match == nil || matches(o.match, name)) && (o.kind == "" || o.kind == typeOf(kind))
}

// scanHere does one step. What other nodes are primary of is asked of them; *Elsewhere says that one of them has to be asked again, or
// that another node can do the whole step.
func (s *session) scanHere(ctx context.Context, cursor uint64, o scanOptions) (f found, err error) {
	own, next, all, err := s.ownFiles(ctx, cursor, max(o.count, scanPage))
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			s.srv.names.forget() // a group may have taken some of them
		}
	}()
	if other := s.onePrimary(); other != nil && all == 0 {
		return f, other
	}
	begin, _, _ := splitCursor(cursor)
	files, left, err := s.files(ctx, own, next, begin)
	if err != nil {
		return f, err
	}
	at, from, err := s.resume(ctx, files, cursor)
	if err != nil {
		return f, err
	}
	// Some time of the command is left for the answer: a step that goes through much, and finds little, says how far it came.
	end, limited := ctx.Deadline()
	end = end.Add(-time.Until(end) / 2)
	looked, size := 0, max(1, min(o.count, scanPage))
	stop := func(names int) bool { // here, if there is a cursor for it
		if names < o.count && looked < max(scanWork, o.count) && (looked == 0 || !limited || time.Now().Before(end)) {
			return false
		}
		c, alone := s.srv.cursors.after(files[at], from)
		if !alone || !from.After && marked(files, at) {
			return false
		}
		f.cursor = c
		return true
	}
	for ; at < len(files); at, from = at+1, (Bound{}) {
		here := files[at]
		for done := false; !done; {
			if stop(len(f.names)) {
				return f, nil
			}
			page, last, err := s.page(ctx, here.name, from, size)
			if err != nil && len(f.names) > 0 && stop(o.count) { // what was found is answered; the error belongs to the next step
				return f, nil
			}
			if err == nil && len(page) == 0 && !last {
				err = fmt.Errorf("the scan of file %s does not go on", here.name)
			}
			if err != nil {
				return found{}, err
			}
			done = last
			for i, r := range page {
				looked++
				from = Bound{Key: r.Key, After: true}
				if name := nameOf(here.name, r.Key); o.takes(name, r.Kind) {
					f.names = append(f.names, name)
				}
				if len(f.names) >= o.count && i+1 < len(page) { // the page was for names that do not match
					done = false
					break
				}
			}
			looked++                     // an empty one was looked at, too
			size = min(2*size, scanPage) // few of them are wanted
		}
	}
	if left > 0 {
		f.cursor = makeCursor(left, 0, 0)
	}
	return f, nil
}

// marked tells whether a cursor for the beginning of a file stands for one before it, too.
func marked(files []file, at int) bool {
	for i := at - 1; i >= 0 && files[i].code == files[at].code; i-- {
		if fileMark(files[i].name) == fileMark(files[at].name) {
			return true
		}
	}
	return false
}

// onePrimary names the node that is primary of all groups, when that is not this one; nil when it is, when there are several, or when the
// client wants what this node has.
func (s *session) onePrimary() *Elsewhere {
	groups := s.srv.o.Roles.Groups()
	if s.local() || len(groups) == 0 {
		return nil
	}
	for _, g := range groups {
		if g.Primary == s.srv.o.Node || g.Primary != groups[0].Primary {
			return nil
		}
	}
	return &Elsewhere{Redis: groups[0].address()}
}

// resume finds where a cursor points to.
func (s *session) resume(ctx context.Context, files []file, cursor uint64) (int, Bound, error) {
	code, prefix, sum := splitCursor(cursor)
	first := firstOf(files, code) // the first file that the cursor may mean
	if cursor == 0 || first == len(files) || files[first].code != code {
		return first, Bound{}, nil // the beginning, or that of what comes after a file that is gone
	}
	twins := first
	for twins+1 < len(files) && files[twins+1].code == code {
		twins++
	}
	if sum == 0 { // the beginning of a file
		for i := first; i <= twins; i++ {
			if fileMark(files[i].name) == prefix {
				return i, Bound{}, nil
			}
		}
		return first, Bound{}, nil
	}
	if last, known := s.srv.cursors.get(cursor); known {
		for i := first; i <= twins; i++ {
			if files[i].name == last.File {
				return i, Bound{Key: last.Key, After: true}, nil
			}
		}
	}
	// Another node has given the cursor, or long ago: look for the key that it stands for. When that was deleted, the scan goes on with the
	// first key that it could have been: names may come twice, as SCAN allows, but none is left out.
	for i := first; i <= twins; i++ {
		start := prefixStart(prefix)
		for from, done := (Bound{Key: start}), false; !done; {
			var page []Scanned
			var err error
			page, done, err = s.page(ctx, files[i].name, from, scanPage)
			if err != nil {
				return 0, Bound{}, err
			}
			for _, r := range page {
				if keyPrefix(r.Key) != prefix {
					done = true
					break
				}
				if keySum(files[i].name, r.Key) == sum {
					return i, Bound{Key: r.Key, After: true}, nil
				}
				from = Bound{Key: r.Key, After: true}
			}
			done = done || len(page) == 0
		}
	}
	if first != twins { // which of them is not known
		return first, Bound{}, nil
	}
	return first, Bound{Key: prefixStart(prefix)}, nil
}

// ownKeys puts the steps of a scan together.
func ownKeys(s *session, args [][]byte) reply {
	if len(args[1]) > 8<<10 {
		return errSyntax
	}
	o := scanOptions{match: args[1], count: scanPage}
	all, seen := array{}, map[string]bool{}
	var weight int64
	for cursor, steps := uint64(0), 0; ; steps++ {
		if steps*scanPage > s.srv.o.Limits.Keys {
			return failure(fmt.Sprintf("ERR there are too many keys for KEYS (more than %d): use SCAN", s.srv.o.Limits.Keys))
		}
		r := s.scan(cursor, o)
		step, is := r.(array)
		if !is || len(step) != 2 {
			return r
		}
		next, _ := step[0].(bulk)
		names, _ := step[1].(array)
		for _, n := range names {
			b, _ := n.(bulk)
			if seen[string(b)] || bytes.Equal(b, nil) {
				continue
			}
			seen[string(b)] = true
			all = append(all, b)
			if weight += b.weight(); weight > s.srv.o.Limits.Reply {
				return errReplyTooLarge
			}
		}
		var valid bool
		if cursor, valid = cursorOf(next); !valid || cursor == 0 {
			return all
		}
	}
}

func ownDBSize(s *session, _ [][]byte) reply {
	ctx, cancel := context.WithTimeout(s.ctx, s.wait)
	defer cancel()
	n, err := s.srv.o.Store.Count(ctx)
	if err != nil {
		return told(err)
	}
	return integer(n)
}
