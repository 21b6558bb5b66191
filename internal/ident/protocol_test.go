package ident

import (
	"strings"
	"testing"
)

// TestProtocolOfVersions: what builds before the number put into the fields that carry it now is no number.
func TestProtocolOfVersions(t *testing.T) {
	for v, want := range map[uint16]Protocol{0: 0, 1: 0, 2: 0, 3: 3, 4: 4, 255: 255, 256: 0, 65535: 0} {
		if got := Spoken(v); got != want {
			t.Errorf("version %d is protocol %d, want %d", v, got, want)
		}
	}
	for _, p := range []Protocol{CurrentProtocol, CurrentProtocol + 1, 255} {
		if Spoken(p.Version(2)) != p {
			t.Errorf("protocol %s does not survive", p)
		}
	}
	if v := Protocol(0).Version(2); v != 2 {
		t.Errorf("a build before the number says %d", v)
	}
}

func TestOtherProtocolErrorNamesBoth(t *testing.T) {
	text := (&OtherProtocolError{Node: "b", Theirs: 0, Ours: 7}).Error()
	for _, part := range []string{"node b", "protocol 0 (a build from before", "speaks 7", "stop all"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q lacks %q", text, part)
		}
	}
}
