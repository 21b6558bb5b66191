package replica

import (
	"bytes"
	"context"
	"fmt"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
	"github.com/understudy-ha/understudy/replica/store"
)

// Name names a record.
type Name = store.Name

// ReadSeveral returns the named records as they are at one position of the history, which it returns, too; nil stands for one that does
// not exist. The rules are those of Read. ErrTooLarge: they are larger than an answer may be, store.MaxPageBytes.
func (r *Replica) ReadSeveral(ctx context.Context, names []Name, local bool) ([]*entry.Image, ident.Position, error) {
	for i := range names {
		if err := validateRecord(names[i].File, names[i].Key); err != nil {
			return nil, ident.Position{}, err
		}
	}
	var images []*entry.Image
	at, err := r.read(ctx, local, func() (at ident.Position, err error) {
		if images, at, err = r.data.Several(names); err == nil && len(images) < len(names) {
			err = fmt.Errorf("%w: %d records together have more than %d bytes: read fewer at once", ErrTooLarge, len(names), store.MaxPageBytes)
		}
		return at, err
	}, func(now int64) (due []store.Expiring) {
		for i, image := range images {
			if image != nil && expired(image, now) {
				due = append(due, store.Expiring{File: names[i].File, Key: bytes.Clone(names[i].Key), Expiry: image.Expiry})
			}
		}
		return due
	})
	if err != nil {
		return nil, at, err
	}
	return images, at, nil
}
