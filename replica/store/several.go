package store

import (
	"bytes"
	"errors"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// Name names a record.
type Name struct {
	File string
	Key  []byte
}

// Several returns the named records with their attributes, whether expired or not, all of them at the one position that it
// returns; nil for one that does not exist. The caller owns them. It stops after the first one that brings their values above
// MaxPageBytes and returns only those up to there.
func (g *Group) Several(names []Name) ([]*entry.Image, ident.Position, error) {
	leave, err := g.store.enter()
	if err != nil {
		return nil, ident.Position{}, err
	}
	defer leave()
	v, err := g.open(g.store.db)
	if err != nil {
		return nil, ident.Position{}, err
	}
	images, err := g.several(v, names)
	return images, v.position, g.store.readError(errors.Join(err, v.close()))
}

func (g *Group) several(v *view, names []Name) ([]*entry.Image, error) {
	v.iter.SetBounds(g.prefix, after(g.prefix))
	images := make([]*entry.Image, 0, len(names))
	var k []byte
	for size := 0; len(images) < len(names) && size < MaxPageBytes; {
		n := &names[len(images)]
		k = append(g.appendFile(k[:0], n.File), n.Key...)
		if !v.iter.SeekPrefixGE(k) || !bytes.Equal(v.iter.Key(), k) { // a prefix is the whole key here, so this looks at the filters
			if err := v.iter.Error(); err != nil {
				return nil, err
			}
			images = append(images, nil)
			continue
		}
		value, err := v.iter.ValueAndErr()
		if err != nil {
			return nil, err
		}
		image, err := decodeRecord(value)
		if err != nil {
			return nil, &CorruptionError{Key: bytes.Clone(k), Err: err}
		}
		images = append(images, &image)
		size += len(image.Value)
	}
	return images, nil
}
