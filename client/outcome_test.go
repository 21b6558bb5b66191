package client

import (
	"errors"
	"fmt"
	"testing"
)

// Proves S4 for the public client: each error of a write belongs to exactly one class, and repeating it by itself is taken for
// safe only where surely nothing was done.
func TestEveryErrorHasAnOutcome(t *testing.T) {
	for code, want := range map[Code]string{
		CodeInvalid: OutcomeNotDone, CodeNotFound: OutcomeNotDone, CodeUnknownPath: OutcomeNotDone, CodeMethodNotAllowed: OutcomeNotDone,
		CodeUnknownGroup: OutcomeNotDone, CodeUnknownNode: OutcomeNotDone, CodeTooLarge: OutcomeNotDone, CodeExists: OutcomeNotDone,
		CodeBusy: OutcomeNotDone, CodePrecondition: OutcomeNotDone, CodeNotPrimary: OutcomeNotDone, CodeNoPrimary: OutcomeNotDone,
		CodeNoQuorum: OutcomeNotDone, CodeNoSync: OutcomeNotDone, CodeUnavailable: OutcomeNotDone, CodeStale: OutcomeNotDone,
		CodeStorageFull: OutcomeNotDone, CodeUnsupported: OutcomeNotDone,
		CodeUnknownOutcome: OutcomeUndecided, CodeInternal: OutcomeUndecided, CodeCorrupt: OutcomeUndecided,
		"of a newer version": OutcomeUndecided,
	} {
		for _, err := range []error{&Error{Code: code}, fmt.Errorf("put: %w", &Error{Code: code})} {
			if got := OutcomeOf(err); got != want {
				t.Errorf("%s: %s, want %s", code, got, want)
			}
		}
		if code.NotDone() && want != OutcomeNotDone {
			t.Errorf("%s is repeated although it may have been done", code)
		}
	}
	if OutcomeOf(nil) != OutcomeDone || OutcomeOf(errors.New("connection reset")) != OutcomeUndecided {
		t.Error("no error is done, one that nobody knows is undecided")
	}
}
