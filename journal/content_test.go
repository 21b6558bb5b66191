package journal

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-ha/understudy/internal/ident"
)

// The content of a receiver is its file as far as it is durable, also of one that was not read since the journal was opened.
func TestContentIsTheDurableFile(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	j := active(t, o)
	for i := range 60 {
		deposit(t, j, 1, 1+i%3, 100*i)
	}
	v := flush(t, j)
	j = reopen(t, j, o)
	for n := ident.ReceiverNumber(1); n <= v.Attached; n++ {
		c, err := j.Content(n)
		must(t, err)
		have, err := io.ReadAll(c.Section())
		must(t, err)
		must(t, c.Close())
		file := readFile(t, fs, receiverPath(n))
		if int64(len(have)) != c.Size() || !bytes.HasPrefix(file, have) || len(bytes.Trim(file[len(have):], "\x00")) > 0 || c.Info.Number != n || c.Info.Attached != (n == v.Attached) {
			t.Errorf("receiver %s: %d bytes of %d, %+v", n, len(have), len(file), c.Info)
		}
	}
	for _, n := range []ident.ReceiverNumber{0, v.Attached + 1} {
		if _, err := j.Content(n); !errors.Is(err, ErrNotHeld) {
			t.Errorf("receiver %s: %v", n, err)
		}
	}
}
