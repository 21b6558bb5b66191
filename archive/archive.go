package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal"
)

// window bounds the memory of a decoder. Part of the format: no writer uses a larger one.
const window = 8 << 20

// ErrNotArchived means that there is no such object.
var ErrNotArchived = errors.New("not in the archive")

// DamagedError says that an object is not what its name says. It does not count, and the next Save replaces it.
type DamagedError struct {
	Name Name
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("archived receiver %s is damaged: %v; delete it, or archive it again from a node that has it", e.Name, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Options of an archive.
type Options struct {
	Rate  int64                        // bytes of receivers read or written per second; 0: not limited
	Sleep func(context.Context, int64) // waits for that many nanoseconds; nil: the machine's clock
	Find  bool                         // a folder that is missing is an error, and is not made
}

// Archive is a folder or a bucket with archived receivers. All methods may be called from any goroutine.
type Archive struct {
	bucket *blob.Bucket
	settle func(key string) error // makes a finished object durable; nil: the storage does so by itself
	pace   *pace

	mu     sync.Mutex
	closed bool
}

// New returns an archive in a bucket, which it closes.
func New(bucket *blob.Bucket, o Options) *Archive {
	return &Archive{bucket: bucket, pace: newPace(o)}
}

// Close closes the bucket. It is idempotent.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	return a.bucket.Close()
}

// Save archives the receiver that content yields, header first, unless it is there already, and reads it back. It returns nil only
// when a whole object was found there by this call. written tells whether it had to be written. The content is checked on the way: what is
// damaged or is not what name says never becomes an object.
func (a *Archive) Save(ctx context.Context, name Name, content func() io.Reader) (written bool, err error) {
	err = a.Verify(ctx, name)
	if err == nil {
		return false, a.settled(name) // whoever wrote it may have died before it did that
	}
	var damaged *DamagedError
	if !errors.Is(err, ErrNotArchived) && !errors.As(err, &damaged) {
		return false, err
	}
	if err := a.write(ctx, name, content()); err != nil {
		return false, fmt.Errorf("archive receiver %s of journal %s: %w", name.Number, name.Journal, err)
	}
	if err := a.settled(name); err != nil {
		return true, err
	}
	return true, a.Verify(ctx, name)
}

func (a *Archive) settled(name Name) error {
	if a.settle == nil {
		return nil
	}
	if err := a.settle(name.String()); err != nil {
		return fmt.Errorf("archive receiver %s of journal %s: %w", name.Number, name.Journal, err)
	}
	return nil
}

// write compresses the receiver into its object. The object appears when all of it is there: a storage makes it visible at Close,
// and Close is not reached with the context alive unless the content was whole.
func (a *Archive) write(ctx context.Context, name Name, content io.Reader) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := a.bucket.NewWriter(ctx, name.String(), &blob.WriterOptions{ContentType: "application/zstd", DisableContentTypeDetection: true})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			cancel() // then Close gives up what was written
		}
		err = errors.Join(err, w.Close())
	}()
	// One goroutine and fixed options: every node makes the same bytes of the same receiver.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	s, err := journal.NewStream(a.pace.reader(ctx, content))
	if err != nil {
		return errors.Join(err, z.Close())
	}
	_, err = z.Write(s.Raw())
	for err == nil {
		b, next := s.Next()
		if next == io.EOF {
			err = name.check(s)
			break
		}
		if err = next; err == nil {
			_, err = z.Write(b.Raw)
		}
	}
	return errors.Join(err, z.Close())
}

// check tells whether the stream, read to its end, is what the name says.
func (n Name) check(s *journal.Stream) error {
	h := s.Header()
	have := Name{Cluster: h.Cluster, Journal: h.ID, Number: h.Number, First: h.First, Last: s.Last(), Chain: s.Chain()}
	switch {
	case have != n:
		return fmt.Errorf("it is receiver %s, not %s", have, n)
	case !s.Closed():
		return errors.New("it does not end with J NR: it is not detached, or not whole")
	}
	return nil
}

// Verify reads the object back and checks all of it. ErrNotArchived: there is none. *DamagedError: it is not whole.
func (a *Archive) Verify(ctx context.Context, name Name) error {
	in, err := a.Fetch(ctx, name)
	if err != nil {
		return err
	}
	s, err := journal.NewStream(in)
	if err == nil {
		err = s.Drain()
	}
	if err == nil {
		err = name.check(s)
	}
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case in.(*receiver).failed != nil: // the storage, not the bytes
		return fmt.Errorf("read back %s: %w", name, err)
	}
	return &DamagedError{Name: name, Err: err}
}

// Fetch opens an archived receiver: its header and bundles. What it yields is not checked. It must be closed.
func (a *Archive) Fetch(ctx context.Context, name Name) (io.ReadCloser, error) {
	in, err := a.bucket.NewReader(ctx, name.String(), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("receiver %s: %w", name, ErrNotArchived)
	}
	if err != nil {
		return nil, fmt.Errorf("open archived receiver %s: %w", name, err)
	}
	r := &receiver{raw: in}
	if r.z, err = zstd.NewReader(r.source(a.pace, ctx), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window)); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return r, nil
}

// receiver is an archived receiver that is read.
type receiver struct {
	raw    *blob.Reader
	z      *zstd.Decoder
	failed error // of the storage
}

// Read tells what failed. It is not wrapped where the storage broke off: an end in the middle would be taken for the receiver's.
func (r *receiver) Read(p []byte) (int, error) {
	n, err := r.z.Read(p)
	if err != nil && err != io.EOF && errors.Is(r.failed, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the storage broke off: %v", r.failed)
	}
	return n, err
}

func (r *receiver) Close() error {
	r.z.Close()
	return r.raw.Close()
}

// source yields the compressed bytes and notes when the storage fails.
func (r *receiver) source(p *pace, ctx context.Context) io.Reader {
	return p.reader(ctx, readerFunc(func(b []byte) (int, error) {
		n, err := r.raw.Read(b)
		if err != nil && err != io.EOF {
			r.failed = err
		}
		return n, err
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// List returns what the archive holds of a group, or of one journal when id names a node, ordered by journal and number. A name
// alone is no proof that the object is whole.
func (a *Archive) List(ctx context.Context, cluster ident.ClusterID, id ident.JournalID) ([]Name, error) {
	objects, err := a.Objects(ctx, cluster, id)
	names := make([]Name, len(objects))
	for i := range objects {
		names[i] = objects[i].Name
	}
	return names, err
}

// Object is what a listing says of an archived receiver.
type Object struct {
	Name    Name
	Bytes   int64     // compressed, as it stands there
	Written time.Time // the last time
}

// Objects is List with what else the storage knows.
func (a *Archive) Objects(ctx context.Context, cluster ident.ClusterID, id ident.JournalID) ([]Object, error) {
	prefix := fmt.Sprintf("%s/%s/", cluster, id.Group)
	if id.Node != "" {
		prefix = prefixOf(cluster, id)
	}
	var out []Object
	for all := a.bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		o, err := all.Next(ctx)
		if err == io.EOF {
			slices.SortFunc(out, func(a, b Object) int { return order(a.Name, b.Name) })
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list archive %s: %w", prefix, err)
		}
		if n, ok := ParseName(o.Key); ok {
			out = append(out, Object{Name: n, Bytes: o.Size, Written: o.ModTime})
		}
	}
}

// Header reads the header of an archived receiver, and nothing else of it. ErrNotArchived: there is none. *DamagedError: it is not that receiver's.
func (a *Archive) Header(ctx context.Context, name Name) (journal.ReceiverHeader, error) {
	in, err := a.Fetch(ctx, name)
	if err != nil {
		return journal.ReceiverHeader{}, err
	}
	raw := make([]byte, journal.HeaderSize)
	_, err = io.ReadFull(in, raw)
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	switch {
	case err == nil:
	case context.Cause(ctx) != nil || in.(*receiver).failed != nil:
		return journal.ReceiverHeader{}, fmt.Errorf("read header of %s: %w", name, err)
	default:
		return journal.ReceiverHeader{}, &DamagedError{Name: name, Err: err}
	}
	h, err := journal.DecodeReceiverHeader(raw)
	if err == nil && (h.Cluster != name.Cluster || h.ID != name.Journal || h.Number != name.Number || h.First != name.First) {
		err = fmt.Errorf("its header is that of receiver %s of journal %s", h.Number, h.ID)
	}
	if err != nil {
		return journal.ReceiverHeader{}, &DamagedError{Name: name, Err: err}
	}
	return h, nil
}

// Before tells whether n is listed before other.
func (n Name) Before(other Name) bool { return order(n, other) < 0 }

// Clusters lists the clusters that have something in the archive.
func (a *Archive) Clusters(ctx context.Context) ([]ident.ClusterID, error) {
	var out []ident.ClusterID
	for all := a.bucket.List(&blob.ListOptions{Delimiter: "/"}); ; {
		o, err := all.Next(ctx)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list archive: %w", err)
		}
		if o.IsDir {
			out = append(out, ident.ClusterID(o.Key[:len(o.Key)-1]))
		}
	}
}
