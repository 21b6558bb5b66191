package core

import (
	"github.com/understudy-ha/understudy/internal/ident"
	"github.com/understudy-ha/understudy/internal/mutant"
)

// Known is what one life of a node has learned to be committed. It starts empty in every life: durable marks of an earlier
// one prove nothing about the present history.
type Known struct {
	epoch ident.Epoch    // of the session that said it; only counts while it is the newest row's
	end   ident.Position // committed end
}

// Learn records what a session of epoch e said; the caller has made sure that it Trusts it. It tells whether that is news.
func (k *Known) Learn(e ident.Epoch, end ident.Position) (news bool) {
	switch {
	case e > k.epoch:
		k.epoch, k.end = e, end
		return true
	case e == k.epoch && end.Compare(k.end) > 0:
		k.end = end
		return true
	}
	return false
}

// ApplyLimit returns up to where a backup applies: what it knows to be committed, whatever it holds beyond.
func ApplyLimit(committed ident.Position, held func() ident.Position) ident.Position {
	if mutant.On(mutant.ApplyReceived) {
		return held()
	}
	return committed
}

// Epoch is the epoch of the session that was believed last.
func (k *Known) Epoch() ident.Epoch { return k.epoch }

// Committed returns the highest position known to be committed under the table: what a session of the newest row's epoch
// said, but at least everything before that row's SW.
func (k *Known) Committed(t ident.HistoryTable) ident.Position {
	p := BeforeRow(t)
	if mutant.On(mutant.TrustBeforeOpen) && k.end.History > p.History {
		return k.end
	}
	if k.epoch == t.Last().Epoch && t.Contains(k.end) && k.end.History > p.History {
		p = k.end
	}
	return p
}
