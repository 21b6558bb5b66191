package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-ha/understudy/internal/ident"
)

// Import takes a receiver that was saved elsewhere: the one before the oldest held, like Recall; one that continues the journal,
// or what is missing of the attached one, like BeginReceiver and AppendRaw; any into an empty journal. It returns once all is on
// disk, and how many entries were new. What is held already is compared by the chain where it ends. *GapError: receivers between are missing.
func (j *Journal) Import(content io.Reader) (added uint64, err error) {
	in := bufio.NewReaderSize(content, chunk)
	raw, err := in.Peek(HeaderSize)
	if err != nil {
		return 0, fmt.Errorf("read receiver header: %w", whole(err))
	}
	h, err := DecodeReceiverHeader(raw)
	if err != nil {
		return 0, err
	}
	if oldest := j.oldest(); oldest != nil && h.Number < oldest.header.Number {
		info, err := j.Recall(in)
		if err != nil {
			return 0, err
		}
		return uint64(info.Last-info.First) + 1, nil
	}
	s, err := NewStream(in)
	if err != nil {
		return 0, err
	}
	before, _ := j.View()
	if before.First == 0 || h.First == before.Last+1 {
		if err := j.BeginReceiver(s.Raw()); err != nil {
			return 0, err
		}
		before, _ = j.View()
	}
	for {
		b, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if b.Last() <= before.Last {
			if s.Last() == before.Last || s.Closed() {
				if err := j.same(s); err != nil {
					return 0, err
				}
			}
			continue
		}
		if _, err := j.AppendRaw(b.Raw); err != nil {
			return 0, err
		}
		added += uint64(b.Count)
	}
	return added, j.do(func(*writer) error { return nil }) // everything appended is on disk then
}

// same compares what was read of a receiver with what is held up to there.
func (j *Journal) same(s *Stream) error {
	chain, ok, err := j.ChainAt(s.Last())
	if err == nil && (!ok || chain != s.Chain()) {
		err = &CorruptionError{Receiver: s.Header().Number, Offset: s.Bytes(), Err: fmt.Errorf("%w: what is held up to sequence %s is not the same", errChain, ident.Sequence(s.Last()))}
	}
	return err
}
