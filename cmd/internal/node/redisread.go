package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/understudy-ha/understudy/api/resp"
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica"
)

const (
	maxLooks     = 64  // how often a program is run to learn what it reads
	readTogether = 256 // records that programs of one batch read together, at one position and under one check of the lease
)

// Read runs programs that only read. Those of a batch that come one after the other see all records at one position; what a program
// reads beyond its keys is read, and it is run, again.
func (s records) Read(ctx context.Context, group string, local bool, batch []resp.Program) []resp.Outcome {
	rep, err := s.replica(group)
	if err != nil {
		return allFailed(make([]resp.Outcome, len(batch)), err)
	}
	return s.readFrom(ctx, rep, ident.GroupName(group), local, batch)
}

// several reads records at one position.
type several interface {
	ReadSeveral(ctx context.Context, names []replica.Name, local bool) ([]*entry.Image, ident.Position, error)
}

func (s records) readFrom(ctx context.Context, rep several, group ident.GroupName, local bool, batch []resp.Program) []resp.Outcome {
	out := make([]resp.Outcome, len(batch))
	local = s.n.local.reads(group, local)
	most := readTogether
	for i := 0; i < len(batch); {
		n, tooLarge := s.readTogether(ctx, rep, batch[i:], out[i:], local, most)
		if tooLarge { // what was read of them is read again: that must not happen for each of them
			most /= 2
			continue
		}
		if n == 0 { // alone it may be too large as well, and then says so
			n = 1
			out[i].Position, out[i].Err = s.look(ctx, rep, &batch[i], local)
		}
		for k := i; k < i+n; k++ {
			var program *replica.ProgramError
			switch err := out[k].Err; {
			case err == nil:
			case errors.As(err, &program):
				out[k].Err = program.Err
			default:
				out[k].Err = s.explain(group, err)
				if errors.As(out[k].Err, new(*resp.Elsewhere)) {
					allFailed(out[k:], out[k].Err)
					return out
				}
			}
		}
		i += n
	}
	return out
}

// readTogether reads the records of the first programs at once, most of them at most, and runs them. It returns how many were run; none when
// that is no use, or when the records are too large together.
func (s records) readTogether(ctx context.Context, rep several, batch []resp.Program, out []resp.Outcome, local bool, most int) (n int, tooLarge bool) {
	size := 0
	for n < len(batch) && size+len(batch[n].Keys) <= most {
		size += len(batch[n].Keys)
		n++
	}
	if n < 2 {
		return 0, false
	}
	names := make([]replica.Name, 0, size)
	for i := range batch[:n] {
		for _, k := range batch[i].Keys {
			names = append(names, replica.Name(k))
		}
	}
	images, at, err := rep.ReadSeveral(ctx, names, local)
	if err != nil {
		return 0, errors.Is(err, replica.ErrTooLarge) // of any other error each of them is told by itself
	}
	now := s.n.host.Clock.Now().UnixNano()
	for i, from := 0, 0; i < n; i++ {
		to := from + len(batch[i].Keys)
		v := &seen{now: now, at: at, names: names[from:to], images: images[from:to]}
		from = to
		err := batch[i].Run(v)
		switch {
		case len(v.missing) > 0:
			at, err := s.look(ctx, rep, &batch[i], local)
			out[i] = resp.Outcome{Position: at, Err: err}
			return i + 1, false // those behind it must not see less than it did
		case err != nil:
			out[i] = resp.Outcome{Position: at, Err: &replica.ProgramError{Err: err}}
		default:
			out[i] = resp.Outcome{Position: at}
		}
	}
	return n, false
}

// look runs one program over committed records.
func (s records) look(ctx context.Context, rep several, p *resp.Program, local bool) (ident.Position, error) {
	names := make([]replica.Name, len(p.Keys))
	for i, k := range p.Keys {
		names[i] = replica.Name(k)
	}
	for range maxLooks {
		images, at, err := rep.ReadSeveral(ctx, names, local)
		if err != nil {
			return at, err
		}
		v := &seen{now: s.n.host.Clock.Now().UnixNano(), at: at, names: names, images: images}
		err = p.Run(v)
		if len(v.missing) > 0 {
			names = append(names, v.missing...)
			continue
		}
		if err != nil {
			return at, &replica.ProgramError{Err: err}
		}
		return at, nil
	}
	return ident.Position{}, fmt.Errorf("%w: a command that reads more and more records", replica.ErrInvalid)
}

// fewNames are found by looking at all of them; more are indexed.
const fewNames = 8

// seen is the view of a program over committed records.
type seen struct {
	now     int64
	at      ident.Position
	names   []replica.Name
	images  []*entry.Image
	index   map[name]int   // of names, when they are many; nil: not made yet
	missing []replica.Name // asked for, and not read yet
}

type name struct{ file, key string }

var errNotRead = errors.New("the record is read first")

func (s *seen) Now() int64 { return s.now }

func (s *seen) End() ident.Position { return s.at }

// Deleted is not known to who reads the store: it may have been just now.
func (s *seen) Deleted(string, []byte) ident.History { return math.MaxUint64 }

// find returns where a record stands; -1: it was not read.
func (s *seen) find(file string, key []byte) int {
	if len(s.names) <= fewNames {
		for i := range s.names {
			if s.names[i].File == file && bytes.Equal(s.names[i].Key, key) {
				return i
			}
		}
		return -1
	}
	if s.index == nil {
		s.index = make(map[name]int, len(s.names))
		for i, n := range s.names {
			s.index[name{n.File, string(n.Key)}] = i
		}
	}
	if i, ok := s.index[name{file, string(key)}]; ok {
		return i
	}
	return -1
}

func (s *seen) Get(file string, key []byte) (*resp.Record, error) {
	i := s.find(file, key)
	if i < 0 {
		s.missing = append(s.missing, replica.Name{File: file, Key: bytes.Clone(key)})
		return nil, errNotRead
	}
	image := s.images[i]
	if image != nil && image.Expiry != 0 && image.Expiry <= s.now {
		return nil, nil
	}
	return recordOf(image), nil
}

var errReadsOnly = errors.New("the command was said to change nothing")

func (s *seen) Put(string, []byte, resp.Record) error { return errReadsOnly }

func (s *seen) Delete(string, []byte) (bool, error) { return false, errReadsOnly }
