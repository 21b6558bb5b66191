package remote

import (
	"context"

	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/journal/remote/wire"
)

// recalled asks for what the target needs from below base, where this journal begins: nothing that it offered from there on
// matches. It tells whether that will be shipped another way.
func (p *shipment) recalled(ctx context.Context, offer wire.Offer, base ident.Sequence) bool {
	if p.s.o.Recall == nil {
		return false
	}
	for _, point := range offer.Points { // descending
		if point.Sequence < base {
			return p.s.o.Recall(ctx, point.Sequence+1) == nil
		}
	}
	return false
}
