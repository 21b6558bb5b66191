package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Healer gives out the bytes of receivers, and repairs those of this node. Errors are as in Data.
type Healer interface {
	// Content opens a receiver of what node wrote; codes unknown_node, not_found.
	Content(ctx context.Context, group, node string, number uint32) (ReceiverContent, error)
	// Repair checks a journal and repairs from other nodes' copies what is rotten. What stays rotten is in the result.
	Repair(ctx context.Context, group, node string) (client.Repair, error)
}

// ReceiverContent is the bytes of one receiver.
type ReceiverContent interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// content answers with the bytes of a receiver, or with the range of them that is asked for.
func (a *API) content(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	text, err := r.variable("number")
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 0 {
		return nil, invalid(fmt.Sprintf("%q is not the number of a receiver", shorten(text)), "list the receivers to see what is held")
	}
	c, err := a.o.Journals.Content(r.Context(), group, node, uint32(number))
	if err != nil {
		return nil, err
	}
	return func(w http.ResponseWriter) {
		defer c.Close() // only read from
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("%06d.rcv", number)))
		http.ServeContent(w, r.Request, "", time.Time{}, io.NewSectionReader(c, 0, c.Size()))
	}, nil
}

func (a *API) repair(r *request) (reply, error) {
	group, node, err := r.journal(a.o.Node)
	if err != nil {
		return nil, err
	}
	return answer(a.o.Journals.Repair(r.drain, group, node))
}
