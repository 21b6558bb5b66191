package ident

import (
	"errors"
	"fmt"
	"slices"
)

// HistoryRow says where an epoch begins: its U SW entry has position (Epoch, SW) and stands in Node's journal at First.
type HistoryRow struct {
	Epoch Epoch    `json:"epoch"`
	Node  NodeID   `json:"node"`
	SW    History  `json:"sw"`
	First Sequence `json:"first_sequence"` // 0: not known
}

// HistoryTable is the history of a group as Raft records it: a row per opened epoch, ascending by epoch. A fact that lies
// beyond the point where a later row begins is outside the history: kept and shipped, never applied.
type HistoryTable []HistoryRow

// Contains tells whether the fact at p lies in the history. The zero position always does. The newest epoch is open-ended:
// whether its facts exist is for the journals to say. Facts of an epoch without a row are not in the history.
func (t HistoryTable) Contains(p Position) bool {
	if p.IsZero() {
		return true
	}
	row, ok := t.Row(p.Epoch)
	if !ok || p.History < row.SW {
		return false
	}
	for i := len(t) - 1; i >= 0 && t[i].Epoch > p.Epoch; i-- {
		if p.History >= t[i].SW {
			return false
		}
	}
	return true
}

// Row returns the row of epoch e.
func (t HistoryTable) Row(e Epoch) (HistoryRow, bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].Epoch == e {
			return t[i], true
		}
	}
	return HistoryRow{}, false
}

// Last returns the newest row; the zero row when the table is empty.
func (t HistoryTable) Last() HistoryRow {
	if len(t) == 0 {
		return HistoryRow{}
	}
	return t[len(t)-1]
}

// EpochAt returns the epoch in which the fact h of the history was first sequenced; 0 when h is 0 or before the first row.
func (t HistoryTable) EpochAt(h History) Epoch {
	for i := len(t) - 1; h != 0 && i >= 0; i-- {
		if h >= t[i].SW {
			return t[i].Epoch
		}
	}
	return 0
}

// Fork returns the highest position of the history that the branch ending at p can share with it: p itself when it is
// contained. When p's epoch has a row the answer is exact. Without a row the table does not say where p's epoch left the
// history, and the answer is an upper bound; the exact fork is then the first contained position met on the way down p's
// own branch.
func (t HistoryTable) Fork(p Position) Position {
	if p.History == 0 {
		return Position{}
	}
	if t.Contains(p) {
		return p
	}
	h := p.History
	if row, ok := t.Row(p.Epoch); !ok || h < row.SW {
		h-- // p is no earlier than the SW of its epoch, which is not in the history
	}
	for _, row := range t {
		if row.Epoch > p.Epoch {
			h = min(h, row.SW-1)
			break
		}
	}
	e := t.EpochAt(h)
	if e == 0 {
		return Position{} // below the first row
	}
	return Position{Epoch: e, History: h}
}

// Opened returns the table after an epoch was opened: rows at or above the SW of the first new row that are not among
// the new rows are gone, since the new branch does not contain them. The new rows are ascending by epoch and by SW; a row
// of an epoch that t knows must begin where t says. The receiver is not changed.
func (t HistoryTable) Opened(rows []HistoryRow) (HistoryTable, error) {
	if len(rows) == 0 {
		return nil, errors.New("no history row")
	}
	keep := 0
	for keep < len(t) && t[keep].SW < rows[0].SW {
		keep++
	}
	out := append(slices.Clip(slices.Clone(t[:keep])), rows...)
	for i := range out {
		row := &out[i]
		if row.Epoch == 0 || row.SW == 0 || row.Node == "" {
			return nil, fmt.Errorf("history row %+v is incomplete", *row)
		}
		if i > 0 && (row.Epoch <= out[i-1].Epoch || row.SW <= out[i-1].SW) {
			return nil, fmt.Errorf("history row of epoch %s at %s does not follow the row of epoch %s at %s", row.Epoch, row.SW, out[i-1].Epoch, out[i-1].SW)
		}
		old, ok := t.Row(row.Epoch)
		if ok && (old.SW != row.SW || old.Node != row.Node) {
			return nil, fmt.Errorf("epoch %s begins at %s by %s, not at %s by %s", row.Epoch, old.SW, old.Node, row.SW, row.Node)
		}
		if row.First == 0 {
			row.First = old.First
		}
	}
	return out, nil
}

// Since returns the table without the rows that nobody needs who looks at facts of epoch e and later ones only: from the row of e, or the one
// before it, on. Two rows stay in any case, so that it is known what lies before the last one. The receiver is not changed.
func (t HistoryTable) Since(e Epoch) HistoryTable {
	from := 0
	for from+2 < len(t) && t[from+1].Epoch <= e {
		from++
	}
	return t[from:len(t):len(t)]
}

// Forgot tells whether the table cannot say if the fact at p is in the history, since the row of its epoch may have been left out by Since.
func (t HistoryTable) Forgot(p Position) bool {
	return len(t) > 0 && t[0].SW > 1 && p.Epoch < t[0].Epoch && p.History < t[0].SW && !p.IsZero()
}

// WithFirst returns the table with the first sequence of an epoch's row filled in. The receiver is not changed.
func (t HistoryTable) WithFirst(e Epoch, first Sequence) HistoryTable {
	out := slices.Clone(t)
	for i := range out {
		if out[i].Epoch == e {
			out[i].First = first
		}
	}
	return out
}
