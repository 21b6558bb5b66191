package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
	"github.com/understudy-ha/understudy/journal/entry"
)

// source is one receiver, wherever it is.
type source struct {
	where string // for people
	open  func(context.Context) (io.ReadCloser, error)
	whole bool // a detached one: anything wrong with it is damage. Else it may end in the middle of a write

	header journal.ReceiverHeader
	last   ident.Sequence
	after  ident.Position
	chain  ident.Chain // after last
}

// sources lists the receivers of the group, by journal and number. The same receiver may occur several times.
func (o *Options) sources(ctx context.Context) ([]*source, error) {
	var all []*source
	if o.Archive != nil {
		if err := o.chooseCluster(ctx); err != nil {
			return nil, err
		}
		names, err := o.Archive.List(ctx, o.Cluster, ident.JournalID{Group: o.Group})
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			all = append(all, &source{where: "archived receiver " + n.String(), whole: true,
				open: func(ctx context.Context) (io.ReadCloser, error) { return o.Archive.Fetch(ctx, n) }})
		}
	}
	for _, dir := range o.Data {
		found, err := dataSources(o.FS, dir, o.Group)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w of group %s", ErrNothing, o.Group)
	}
	return all, nil
}

// chooseCluster finds out whose receivers the archive holds, when that is not said.
func (o *Options) chooseCluster(ctx context.Context) error {
	if o.Cluster != "" {
		return nil
	}
	clusters, err := o.Archive.Clusters(ctx)
	if err != nil {
		return err
	}
	if len(clusters) > 1 {
		return fmt.Errorf("the archive holds receivers of several clusters, %v: say which one", clusters)
	}
	if len(clusters) == 1 {
		o.Cluster = clusters[0]
	}
	return nil
}

// dataSources lists the receivers below a data directory. Nothing is changed there.
func dataSources(fs vfs.FS, data string, group ident.GroupName) ([]*source, error) {
	top := fs.PathJoin(data, "journals", string(group))
	nodes, err := fs.List(top)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w of group %s", data, ErrNothing, group)
	}
	if err != nil {
		return nil, fmt.Errorf("list journals in %s: %w", data, err)
	}
	slices.Sort(nodes)
	var all []*source
	for _, node := range nodes {
		dir := fs.PathJoin(top, node)
		files, err := fs.List(dir)
		if err != nil {
			continue // no directory
		}
		files = slices.DeleteFunc(files, func(f string) bool { return !strings.HasSuffix(f, ".rcv") })
		slices.Sort(files)
		for i, f := range files {
			path := fs.PathJoin(dir, f)
			all = append(all, &source{where: "receiver " + path, whole: i < len(files)-1,
				open: func(context.Context) (io.ReadCloser, error) {
					file, err := fs.Open(path)
					if err != nil {
						return nil, err
					}
					info, err := file.Stat()
					if err != nil {
						return nil, errors.Join(err, file.Close())
					}
					return struct {
						io.Reader
						io.Closer
					}{io.NewSectionReader(file, 0, info.Size()), file}, nil
				}})
		}
	}
	return all, nil
}

// read hands the bundles of the receiver to each, until that returns false or the receiver ends.
func (s *source) read(ctx context.Context, each func(entry.Bundle) bool) (_ *journal.Stream, err error) {
	in, err := s.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.where, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	stream, err := journal.NewStream(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.where, err)
	}
	for {
		b, err := stream.Next()
		var damaged *journal.CorruptionError
		switch {
		case err == io.EOF, errors.As(err, &damaged) && !s.whole:
			return stream, nil // the end, or what a crash left of it
		case err != nil:
			return nil, fmt.Errorf("%s: %w", s.where, err)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !each(b):
			return stream, nil
		}
	}
}
