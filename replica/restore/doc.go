// Package restore rebuilds the content of a group at a point in time, offline, from receivers: archived ones, and those of data
// directories. No cluster has to run, and nothing is asked of Raft.
//
// Which facts are the history is found in the receivers. Every bundle names the position that it continues, so all facts form a
// tree, and equal positions mean equal content, in whichever journal they stand. What is committed lies on one path from the root.
// A bundle says what was committed at its source when it was sealed; that proves something of the facts of the same session only:
// further down the journal there may be an earlier turn of the node whose end was undone. The highest position so proven is the end
// of the known history, and the way down from it is the history. What lies beyond was perhaps never acknowledged, and is taken
// only when asked for.
package restore
