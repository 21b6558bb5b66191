// Package mutant lists deliberately broken variants of the rules that safety rests on. Each stands in the line where its rule
// lives, as `if mutant.On(mutant.X)`. With the build tag "mutant" a test can choose one of them for the whole process; the
// tests of the simulator have to notice it. Without the tag On is a constant false, and the compiler removes the line.
package mutant

// Variant is one broken rule. None is the rule as it should be.
type Variant uint8

// The variants, each with the rule it breaks.
const (
	None Variant = iota
	AckBeforeDurable
	DropTail
	ApplyReceived
	EarlyPromise
	LocalShrink
	ServeBeforeOpen
	GrowWithoutWaiting
	GrowOverHole
	CountBeforeUndo
	ReleaseAnyLife
	HandoverAfterReopen
	SetOfPromoted
	SecondLifeServes
	TrimFreely
	PromoteNonMember
	IgnoreCommitted
	LeaseBeforePromote
	HandoverUncovered
	CutBeforeOpen
	PromiseUnsynced
	CheckBeforeWork
	LeaseFromReply
	SkipCoverGrace
	StaleSet
	TrustBeforeOpen
	OpenUnheld
	ForgetProposedGrowth
	FreeWhileGrowing
	AdmitFenced
	HandoverUnheld
	FenceEndsCover
	CommitAboveFloor
	UndoUnguarded
	DeleteNeeded
	LateLifeRenews
	DropMember
	DropUnasked
	DroppedJoins
	PromoteDropped
	ReadmitIntoSet
	IgnoreHolds
	HoldsByNumber
	EndHoldsEarly
	KeepSetAcrossDelivery
	GrowAcrossDelivery
	AheadNextEpoch
	AheadGoesOn
	count
)

// Mutant describes a variant.
type Mutant struct {
	Variant  Variant
	Name     string
	Breaks   string
	Violates string // the invariants of the reliability tests that it must be caught by
}

// All returns every variant, in order.
func All() []Mutant {
	return []Mutant{
		{AckBeforeDurable, "ack before durable", "a commit does not wait for the primary's own disk", "S2 S3 S15"},
		{DropTail, "drop the tail", "a takeover goes on from what is surely committed and discards what it received beyond", "S3 S11 S16"},
		{ApplyReceived, "backups apply what they received", "a backup applies beyond the committed end", "S3 S5 (I5)"},
		{EarlyPromise, "early promise", "a node promises although the old lease may still last", "S6 S20"},
		{LocalShrink, "local shrink", "the primary stops waiting for a member that went away before Raft has removed it", "S2 S9"},
		{ServeBeforeOpen, "serve before Open", "a chosen primary serves as soon as it was promoted", "S5 S6"},
		{GrowWithoutWaiting, "grow without waiting", "commits do not wait for a node whose growth is under way", "S9"},
		{GrowOverHole, "grow over a hole", "a node says it holds a position although something below is missing", "S2 S8"},
		{CountBeforeUndo, "count before the undo", "a node says it holds a position that its store has to be taken back for first", "S2 S8"},
		{ReleaseAnyLife, "release without compare-and-set", "the release of a life that is over ends the lease of the next one", "S6 S20"},
		{HandoverAfterReopen, "reopen by the own clock", "the old primary serves again when a switch-over takes long, with its Handover under way", "S2 S6"},
		{SetOfPromoted, "the set of the promoted", "Promote makes the set the promoted node alone", "S24 S8"},
		{SecondLifeServes, "a second life serves", "a restarted primary goes on in the epoch of its earlier life", "S1 S10"},
		{TrimFreely, "trim freely", "a copy's tail is removed without looking for another copy of it", "S3 S8 S11"},
		{PromoteNonMember, "promote a non-member", "who is not in the in-sync set may be promoted", "S8"},
		{IgnoreCommitted, "ignore what is committed", "a candidate below a known committed end may be promoted", "S8 S24"},
		{LeaseBeforePromote, "lease from before Promote", "a renewal counts for groups that it did not list", "S6 S20"},
		{HandoverUncovered, "a handover without a cover", "the new holder has a lease by the Handover, which others do not count", "S6 S20"},
		{CutBeforeOpen, "cut before Open", "a copy is cut for a primary that has not opened", "S3 S8 S11"},
		{PromiseUnsynced, "promise not synced", "a promise is given before it is on disk", "S7"},
		{CheckBeforeWork, "check before the work", "the lease is looked at before a read, not after it", "S5 S6"},
		{LeaseFromReply, "lease from the reply", "the holder counts from when the renewal came back", "S20"},
		{SkipCoverGrace, "skip the grace", "a node that starts, or gets a snapshot, takes groups for not covered", "S6 S20"},
		{StaleSet, "stale set", "a commit waits for the set in force when the epoch began", "S2 S9"},
		{TrustBeforeOpen, "trust before Open", "a committed end is believed before the own state shows the epoch opened", "S5 S10"},
		{OpenUnheld, "open with who lacks SW", "Open names nodes that do not hold SW", "S2 S8"},
		{ForgetProposedGrowth, "forget a proposed growth", "a node is not waited for any more although its growth may be applied", "S9 S2"},
		{FreeWhileGrowing, "free while growing", "a node that is waited for is told that nobody waits for it, which is not remembered", "S2 S9"},
		{AdmitFenced, "admit the fenced", "a session of an epoch below the promise is taken", "S7"},
		{HandoverUnheld, "hand over unheld", "a Handover is proposed although the target does not hold everything", "S8 S22"},
		{FenceEndsCover, "a fence ends the cover", "nodes promise as soon as they see a fence, the holder may not know of it", "S6 S20"},
		{CommitAboveFloor, "SW of a handover is committed", "a handed-over primary takes its SW for committed without an acknowledgement", "S2 S9"},
		{UndoUnguarded, "undo unguarded", "what the store may still have to undo is removed", "S12"},
		{DeleteNeeded, "delete what others need", "receivers are deleted although another node has not flushed them", "S14"},
		{LateLifeRenews, "a late life renews", "a renewal of an earlier life, late on its way, is taken for one of a new life", "S6 S20 S24"},
		{DropMember, "drop a member", "a member of the in-sync set is dropped for a full journal", "S8 S14"},
		{DropUnasked, "drop unasked", "an absent node is dropped where journal_full says stall", "S14"},
		{DroppedJoins, "a dropped node joins", "who was dropped may grow into the set, or be named by Open", "S8"},
		{PromoteDropped, "promote the dropped", "a failover that allows loss and names nobody may choose a dropped node", "S8"},
		{ReadmitIntoSet, "readmit into the set", "a readmission makes the node a member at once", "S9"},
		{IgnoreHolds, "ignore holds", "receivers go although a consumer holds them", "S14"},
		{HoldsByNumber, "holds by number", "a hold outside the history keeps what lies beyond its number, not beyond the fork", "S14"},
		{EndHoldsEarly, "end holds early", "the manager removes a hold before it is over", "S14"},
		{KeepSetAcrossDelivery, "keep the set across a delivery", "the set stays what it was when the delivery changes", "S2 S8"},
		{GrowAcrossDelivery, "grow across a delivery", "a growth that began under the other delivery goes on", "S9 S2"},
		{AheadNextEpoch, "bring ahead as the next epoch", "the target of a switch-over has the primary promise the next epoch before the Handover", "S1 S7 S24"},
		{AheadGoesOn, "go on bringing ahead", "the session that brought the target's journal ahead goes on when the role is the target's", "S7"},
	}
}

// String returns the name.
func (v Variant) String() string {
	for _, m := range All() {
		if m.Variant == v {
			return m.Name
		}
	}
	return "none"
}
