package wire

import "fmt"

// Code is the numbered reason why a session ended. The numbers are part of the format; zero is invalid.
type Code uint16

// The reasons.
const (
	CodeVersion    Code = 1  // the peer speaks another version of the format
	CodeCluster    Code = 2  // the peer belongs to another cluster
	CodeNode       Code = 3  // the session was meant for another node
	CodeGroup      Code = 4  // the target has no such group (yet)
	CodeFenced     Code = 5  // the target promised a higher epoch
	CodeEpoch      Code = 6  // the target does not know this epoch yet: retry
	CodeSuperseded Code = 7  // a newer session of the same source was admitted
	CodeDiverged   Code = 8  // the chains differ and the target may remove nothing before Open: retry
	CodeCorrupt    Code = 9  // bytes that arrived, or the target's copy, are corrupt
	CodeStopping   Code = 10 // the node is shutting down
	CodeBusy       Code = 11 // too many sessions
	CodeMalformed  Code = 12 // a frame could not be read, or came at the wrong time
	CodeGap        Code = 13 // the stream does not continue the target's copy: match again
	CodePriming    Code = 14 // the source no longer has what the target lacks: the target needs re-priming
	CodeFailed     Code = 15 // the journal's disk failed on the node that says so
	CodeNotSource  Code = 16 // the sender is not the one that may ship this journal in this epoch
	CodeSilent     Code = 17 // nothing was heard from the peer for too long
	CodeRematch    Code = 18 // the source's journal changed under the session: it will match again
	CodeFull       Code = 19 // the target's copy has no room: retry; it goes on once there is some
	CodeFed        Code = 20 // the backup that the group names feeds this copy: the primary tries again in case it stops
)

var codeNames = [...]string{
	CodeVersion: "wrong_version", CodeCluster: "wrong_cluster", CodeNode: "wrong_node", CodeGroup: "unknown_group",
	CodeFenced: "fenced", CodeEpoch: "epoch_not_known", CodeSuperseded: "superseded", CodeDiverged: "diverged_waits_for_open",
	CodeCorrupt: "corrupt", CodeStopping: "stopping", CodeBusy: "busy", CodeMalformed: "malformed", CodeGap: "gap",
	CodePriming: "needs_priming", CodeFailed: "journal_failed", CodeNotSource: "not_the_source", CodeSilent: "silent",
	CodeRematch: "rematch", CodeFull: "journal_full", CodeFed: "fed",
}

// String returns the stable name of c, such as "fenced".
func (c Code) String() string {
	if c > 0 && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code_%d", uint16(c))
}
