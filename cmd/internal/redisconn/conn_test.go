package redisconn

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// Proves BX-5: what a load reads as replies is what was sent, and what is none of them is an error.
func TestReplies(t *testing.T) {
	for sent, want := range map[string]string{
		"+OK\r\n": `"+OK"`, "-ERR no\r\n": `"-ERR no"`, ":42\r\n": "42", "$3\r\na\r\n\r\n": `"$a\r\n"`, "$-1\r\n": "none", "*-1\r\n": "none", "$0\r\n\r\n": `"$"`,
		"*3\r\n:1\r\n$-1\r\n*1\r\n+x\r\n": `[1 none ["+x"]]`, "*0\r\n": "[]",
	} {
		r, err := receive(t, sent)
		if err != nil || r.String() != want {
			t.Errorf("%q: %s, %v; want %s", sent, r, err, want)
		}
	}
	for _, sent := range []string{"", "\r\n", "x1\r\n", ":x\r\n", "$-2\r\n", "$9999999999\r\n", "*1001\r\n", "*1\r\n", "$5\r\nab", "+no end", strings.Repeat("*1\r\n", 9) + ":1\r\n", "+" + strings.Repeat("x", maxLine)} {
		if r, err := receive(t, sent); err == nil {
			t.Errorf("%.40q: %s", sent, r)
		}
	}
}

func receive(t *testing.T, sent string) (Reply, error) {
	here, there := net.Pipe()
	c := New(here)
	defer func() { _ = c.Close() }()
	go func() {
		_, _ = io.WriteString(there, sent) // the reader may have seen enough
		_ = there.Close()
	}()
	return c.Receive()
}

// Proves BX-5: commands are sent at once, as arrays of bulk strings.
func TestSend(t *testing.T) {
	here, there := net.Pipe()
	c := New(here)
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(there) // to the end, which comes
		got <- all
	}()
	for range 2 { // the buffer of the first is used again
		if err := c.Send([]string{"SET", "k", ""}, []string{"GET", "k"}); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	want := []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
	if all := <-got; !bytes.Equal(all, append(want, want...)) {
		t.Errorf("%q", all)
	}
}
