package replica

import (
	"sync"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/entry"
)

// overlay holds what the writes in flight will have made of the records they touch. The sequencer looks here first and in
// the store after, so that conditions and before-images see everything sequenced before. Readers never look here.
type overlay struct {
	mu      sync.Mutex
	pending map[recordKey]pendingRecord
}

type recordKey struct{ file, key string }

type pendingRecord struct {
	image    *entry.Image // nil: deleted
	position ident.Position
}

// get returns what the record will be, and whether a write in flight touches it.
func (o *overlay) get(k recordKey) (*entry.Image, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.pending[k]
	return p.image, ok
}

func (o *overlay) put(k recordKey, image *entry.Image, at ident.Position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending == nil {
		o.pending = make(map[recordKey]pendingRecord)
	}
	o.pending[k] = pendingRecord{image: image, position: at}
}

// touch is one entry of the overlay, kept with the flight that made it.
type touch struct {
	key recordKey
	at  ident.Position
}

// release forgets what is in the store now, unless a later write in flight touches the record again.
func (o *overlay) release(touched []touch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range touched {
		if o.pending[t.key].position == t.at {
			delete(o.pending, t.key)
		}
	}
}
