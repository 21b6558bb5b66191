package entry

import "github.com/understudy-ha/understudy/internal/ident"

// Run is a maximal contiguous sequence of facts of one history epoch: h From..To, continuing Before, standing in bundles
// First..Last. A run whose beginning was deleted with its receivers begins with what is held; its First is then the first
// sequence held.
type Run struct {
	Epoch       ident.Epoch
	From, To    ident.History
	Before      ident.Position
	First, Last ident.Sequence
}

// End returns the history position of the run's last fact.
func (r Run) End() ident.Position { return ident.Position{Epoch: r.Epoch, History: r.To} }
