package store

import (
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
// returns; nil for one that does not exist. Their values must not be changed. It stops after the first one that brings them above
// MaxPageBytes and returns only those up to there.
func (g *Group) Several(names []Name) ([]*entry.Image, ident.Position, error) {
	leave, err := g.store.enter()
	if err != nil {
		return nil, ident.Position{}, err
	}
	defer leave()
	s := g.selection(names)
	position, since, all := s.recent(g)
	if all {
		return s.images, position, nil
	}
	v, err := g.open(g.store.db)
	if err != nil {
		return nil, ident.Position{}, err
	}
	err = s.read(g, v, since)
	return s.images, v.position, g.store.readError(errors.Join(err, v.close()))
}

// selection are records being read together.
type selection struct {
	keys   []byte
	ends   []int
	images []*entry.Image
}

func (g *Group) selection(names []Name) *selection {
	size := 0
	for i := range names {
		size += len(g.prefix) + len(names[i].File) + len(names[i].Key) + 8
	}
	s := &selection{keys: make([]byte, 0, size), ends: make([]int, len(names)), images: make([]*entry.Image, 0, len(names))}
	for i := range names {
		s.keys = append(g.appendFile(s.keys, names[i].File), names[i].Key...)
		s.ends[i] = len(s.keys)
	}
	return s
}

func (s *selection) key(i int) []byte {
	if i == 0 {
		return s.keys[:s.ends[0]]
	}
	return s.keys[s.ends[i-1]:s.ends[i]]
}

// recent answers from what was looked at lately, if all of it was. What is known at one moment is so at the store's position of that moment.
func (s *selection) recent(g *Group) (at ident.Position, since uint64, all bool) {
	c := g.store.recent
	c.mu.Lock()
	defer c.mu.Unlock()
	for size := 0; len(s.images) < len(s.ends) && size < MaxPageBytes; {
		r, known := c.find(s.key(len(s.images)))
		if !known {
			return at, c.since(g), false
		}
		s.images = append(s.images, r.image)
		size += sizeOf(r.image)
	}
	return g.Position(), 0, true
}

// read reads the records in a view that was made after since.
func (s *selection) read(g *Group, v *view, since uint64) error {
	c := g.store.recent
	known := make([]*row, len(s.ends))
	images := make([]*entry.Image, len(s.ends))
	c.mu.Lock()
	for i := range s.ends {
		k := s.key(i)
		if r, ok := c.find(k); ok && c.last[placeOf(k)] <= since { // it was the same from before the view until now
			known[i], images[i] = r, r.image
		}
	}
	c.mu.Unlock()
	v.iter.SetBounds(g.prefix, after(g.prefix))
	s.images = s.images[:0]
	for size := 0; len(s.images) < len(s.ends) && size < MaxPageBytes; {
		i := len(s.images)
		if known[i] == nil {
			k := s.key(i)
			image, err := recordAt(v.iter, k)
			if err != nil {
				s.images = nil
				return err
			}
			c.keep(k, since, image)
			images[i] = image
		}
		s.images = append(s.images, images[i])
		size += sizeOf(images[i])
	}
	return nil
}

func sizeOf(image *entry.Image) int {
	if image == nil {
		return 0
	}
	return len(image.Value)
}
