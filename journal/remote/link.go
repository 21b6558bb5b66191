package remote

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// writePiece is the most that goes out under one write deadline, so that a slow link is told from a dead one.
const writePiece = 256 << 10

// Times a session takes to end.
const (
	farewell = 200 * time.Millisecond // to write the reason
	linger   = 300 * time.Millisecond // for the peer to read it before the connection is torn down
)

// link is a connection that gives up on a silent peer: every read and every piece of a write has a deadline. One
// goroutine reads, one writes, any may hang up.
type link struct {
	conn    net.Conn
	silence time.Duration

	mu    sync.Mutex
	until time.Time // no read lasts longer; zero: no such bound
	hung  bool
}

func newLink(conn net.Conn, silence time.Duration) *link { return &link{conn: conn, silence: silence} }

// bound limits all reads until it is called again; the zero time lifts the limit.
func (l *link) bound(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = until
}

// Read reads from the connection.
func (l *link) Read(b []byte) (int, error) {
	if err := l.arm(true); err != nil {
		return 0, err
	}
	n, err := l.conn.Read(b)
	if err != nil && l.hungUp() {
		err = errHungUp // whatever it says, it is our own doing
	}
	return n, err
}

func (l *link) hungUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hung
}

// Write writes all of b.
func (l *link) Write(b []byte) (int, error) {
	done := 0
	for {
		piece := b[done:min(len(b), done+writePiece)]
		if err := l.arm(false); err != nil {
			return done, err
		}
		n, err := l.conn.Write(piece)
		done += n
		if err != nil || done == len(b) {
			return done, err
		}
	}
}

// sendFile writes the next n bytes of file. A TCP connection has the kernel do it; room is for those that cannot.
func (l *link) sendFile(file *os.File, n int64, room func() []byte) error {
	direct, ok := l.conn.(io.ReaderFrom)
	for n > 0 {
		piece := io.LimitReader(file, min(n, writePiece))
		if !ok {
			b := room()[:min(n, writePiece)]
			if _, err := io.ReadFull(piece, b); err != nil {
				return err
			}
			if _, err := l.Write(b); err != nil {
				return err
			}
			n -= int64(len(b))
			continue
		}
		if err := l.arm(false); err != nil {
			return err
		}
		done, err := direct.ReadFrom(piece)
		n -= done
		if err == nil && done == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// arm sets the deadline of the next read or write. After hangUp a write keeps the deadline that was set there.
func (l *link) arm(read bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	deadline := time.Now().Add(l.silence)
	switch {
	case read && l.hung:
		return errHungUp
	case read:
		if !l.until.IsZero() && l.until.Before(deadline) {
			deadline = l.until
		}
		return l.conn.SetReadDeadline(deadline)
	case l.hung:
		return nil
	}
	return l.conn.SetWriteDeadline(deadline)
}

// hangUp ends reading at once and writing soon: there is time for one last frame.
func (l *link) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hung {
		return
	}
	l.hung = true
	now := time.Now()
	_ = l.conn.SetReadDeadline(now)                // fails only on a closed connection, where nothing waits
	_ = l.conn.SetWriteDeadline(now.Add(farewell)) // as above
}

// close ends the connection. With a last word under way it first waits a moment for the peer to hang up, since closing
// with unread bytes makes the kernel drop what the peer has not read yet.
func (l *link) close(lastWord bool) {
	l.hangUp()
	if half, ok := l.conn.(interface{ CloseWrite() error }); ok && lastWord && half.CloseWrite() == nil {
		if l.conn.SetReadDeadline(time.Now().Add(linger)) == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(l.conn, 64<<20)) // only the end of the stream matters
		}
	}
	_ = l.conn.Close() // the session is over either way
}
