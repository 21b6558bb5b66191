package resp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func (srv *Server) baseForTest() context.Context { return context.Background() }

// readAll takes commands until the stream or the protocol ends, and checks that no more memory is taken than has arrived, twice.
func readAll(t testing.TB, src io.Reader, arrived int) (all [][][]byte, err error) {
	limits := DefaultLimits()
	limits.Arguments, limits.Bulk, limits.Inline = 64, 1<<20, 1<<10
	var taken int64
	rd := newReader(src, &limits, func(n int64) bool { taken += n; return true }, func(n int64) { taken -= n })
	for {
		q, complete, err := rd.next()
		if err != nil {
			return all, err
		}
		if complete {
			all = append(all, q.args)
			taken -= q.size
			continue
		}
		if err := rd.fill(); err != nil {
			return all, err
		}
		if most := int64(2*arrived + 64*argCost + lastBuffer); taken > most {
			t.Fatalf("%d bytes taken of %d that arrived", taken, arrived)
		}
	}
}

// FuzzReader: whatever arrives, and however it is cut, the commands are the same.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n", "set \"a b\" 'c'\r\n", "*1\r\n$9223372036854775807\r\n", "*-1\r\n*0\r\n\r\n", "*1\r\n$10\r\nab"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err1 := readAll(t, bytes.NewReader(data), len(data))
		pieces, err2 := readAll(t, iotest.OneByteReader(bytes.NewReader(data)), len(data))
		if len(whole) != len(pieces) || (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Fatalf("at once: %d commands, %v; in pieces: %d commands, %v", len(whole), err1, len(pieces), err2)
		}
		for i := range whole {
			if !equalArgs(whole[i], pieces[i]) {
				t.Fatalf("command %d: %q, %q", i, whole[i], pieces[i])
			}
		}
	})
}

func equalArgs(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// FuzzServer: nothing that a client sends ends the server or stays in its memory.
func FuzzServer(f *testing.F) {
	for _, s := range []string{frame("MULTI") + frame("SET", "k", "v") + frame("EXEC"), frame("HELLO", "3") + frame("SUBSCRIBE", "a") + frame("RESET"), "*1\r\n$9223372036854775807\r\n",
		frame("SCAN", "18446744073709551615"), frame("UNDERSTUDY", "WATCHED", "k", "default@1.1") + frame("MULTI") + frame("EXEC"), frame("INCRBYFLOAT", "k", "1e-999999999")} {
		f.Add([]byte(s))
	}
	w := newWorld(f, 1)
	s := w.nodes[0].server
	f.Fuzz(func(t *testing.T, data []byte) {
		pipeOf(s, data)
		if n := s.memory.used.Load(); n != 0 {
			t.Fatalf("%d bytes are still counted", n)
		}
	})
}

// Proves BX-5: commands come out as they were sent, cut anywhere.
func TestReaderReadsWhatIsSent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sent := rapid.SliceOf(rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 20_000), 1, 8)).Draw(rt, "commands")
		var raw []byte
		for _, args := range sent {
			raw = wire(raw, args...)
		}
		got, err := readAll(t, iotest.HalfReader(bytes.NewReader(raw)), len(raw))
		if !errors.Is(err, io.EOF) || len(got) != len(sent) {
			rt.Fatalf("%d of %d commands: %v", len(got), len(sent), err)
		}
		for i := range sent {
			if !equalArgs(got[i], sent[i]) {
				rt.Fatalf("command %d: %q, sent %q", i, got[i], sent[i])
			}
		}
	})
}

// Proves BX-5: replies are read by the other node as they were written.
func TestRepliesSurviveARelay(t *testing.T) {
	all := []reply{ok, failure("ERR x"), integer(-5), bulk(""), bulk("a\r\nb"), null{}, array{}, array{integer(1), array{bulk("x")}}, pairs{bulk("k"), integer(1)}, set{bulk("x")},
		push{bulk("x")}, double(1.5), boolean(true), verbatim("text")}
	for _, r := range all {
		raw := r.render(nil, 3)
		back, err := readReply(bufio.NewReader(bytes.NewReader(raw)), 1<<20)
		if err != nil || !bytes.Equal(back.render(nil, 3), raw) || !bytes.Equal(back.render(nil, 2), r.render(nil, 2)) {
			t.Errorf("%q: %v %v", raw, back, err)
		}
		for cut := range raw {
			if _, err := readReply(bufio.NewReader(bytes.NewReader(raw[:cut])), 1<<20); err == nil {
				t.Errorf("%q is read of %q", raw[:cut], raw)
			}
		}
	}
	for _, raw := range []string{"*9223372036854775807\r\n", "$99999999999\r\n", "%4611686018427387904\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "?\r\n", "$-5\r\n", "=1\r\nx\r\n"} {
		if r, err := readReply(bufio.NewReader(bytes.NewReader([]byte(raw))), 1<<20); err == nil {
			t.Errorf("%q: %v", raw, r)
		}
	}
}

// Proves BX-5: the encoding of a hash is canonical, and damage is seen.
func TestHashEncoding(t *testing.T) {
	if got := (hash{{[]byte("a"), []byte("1")}, {[]byte("b"), nil}}).encode(); string(got) != "\x01\x01a\x011\x01b\x00" {
		t.Errorf("the format changed: %q", got)
	}
	rapid.Check(t, func(rt *rapid.T) {
		model := rapid.MapOf(rapid.String(), rapid.String()).Draw(rt, "first")
		more := rapid.MapOf(rapid.String(), rapid.String()).Draw(rt, "more")
		var h, changes hash
		for k, v := range model {
			h, _ = h.merge(hash{{[]byte(k), []byte(v)}})
		}
		added := 0
		for k, v := range more {
			changes = append(changes, field{[]byte(k), []byte("other")}, field{[]byte(k), []byte(v)}) // the last one counts
			if _, old := model[k]; !old {
				added++
			}
			model[k] = v
		}
		h, n := h.merge(changes)
		if n != added || len(h) != len(model) {
			rt.Fatalf("%d added, want %d; %d fields, want %d", n, added, len(h), len(model))
		}
		raw := h.encode()
		back, err := decodeHash(raw)
		if err != nil || len(raw) != h.size() || !bytes.Equal(back.encode(), raw) {
			rt.Fatalf("%v: %v", back, err)
		}
		for k, v := range model {
			if got, found := back.get([]byte(k)); !found || string(got) != v {
				rt.Fatalf("field %q: %q", k, got)
			}
		}
		if len(raw) > 1 {
			cut := rapid.IntRange(0, len(raw)-1).Draw(rt, "cut")
			if c, err := decodeHash(raw[:cut]); err == nil && len(c) == len(back) {
				rt.Fatal("a piece was taken for the whole")
			}
		}
	})
}
