package testcluster

import (
	"testing"

	"go.uber.org/goleak"
)

// A probe of memberlist that runs while the list is shut down ends by itself, some probe intervals later: the library joins none.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}
