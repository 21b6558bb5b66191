package api

import (
	"context"
	"time"

	"github.com/understudy-ha/understudy/internal/ident"
)

// receipt tells what has become of the write at a position.
func (a *API) receipt(r *request) (reply, error) {
	text, err := r.variable("position")
	if err != nil {
		return nil, err
	}
	group, at, err := ident.ParsePosition(text)
	if err != nil || group == "" || at.Epoch == 0 || at.History == 0 {
		return nil, invalid("position "+shorten(text)+" cannot be read", "want GROUP@EPOCH.H, such as orders@3.42: what the error said whose outcome is unknown")
	}
	ctx, cancel := context.WithDeadline(r.drain, r.end)
	defer cancel()
	// The wait is for the decision; what comes on top of it is for a primary to appear.
	return answer(a.o.Data.Receipt(ctx, group, at, max(0, time.Until(r.end.Add(-a.o.Limits.Wait)))))
}
