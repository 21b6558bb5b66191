package resp

import "time"

const (
	discardStep  = 16 << 10
	discardLogin = 64 << 10 // of a client that is not authenticated
	discardPause = time.Second
)

// discard takes what the client still sends after the last reply, so that it reads that reply instead of a reset: a connection that is
// closed with unread bytes is reset, and the reset overtakes the reply. It is bounded in bytes, in time, and by a stop of the server.
func (s *session) discard() {
	half, can := s.conn.(interface{ CloseWrite() error })
	if !can || s.failed() || half.CloseWrite() != nil {
		return
	}
	s.rd.args, s.rd.part, s.rd.chunk, s.rd.buf = nil, nil, nil, nil // nothing is parsed any more
	s.srv.memory.give(s.held.Swap(0))
	l := &s.srv.o.Limits
	left, end := l.Command, time.Now().Add(l.Read)
	if s.rd.login {
		left, end = discardLogin, time.Now().Add(discardPause)
	}
	buf := make([]byte, discardStep)
	for left > 0 && s.waitFor(end) {
		n, err := s.conn.Read(buf[:min(left, discardStep)])
		if left -= int64(n); err != nil {
			return
		}
	}
}

// waitFor lets the next read wait until end, at most discardPause; false when the session has to leave now.
func (s *session) waitFor(end time.Time) bool {
	s.deadline.Lock()
	defer s.deadline.Unlock()
	now := time.Now()
	if s.deadline.leaving || !now.Before(end) {
		return false
	}
	if soon := now.Add(discardPause); soon.Before(end) {
		end = soon
	}
	return s.conn.SetReadDeadline(end) == nil
}
