package api

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/understudy-ha/understudy/client"
)

// reply writes a successful answer. It is called once, after the handler has returned without an error.
type reply func(w http.ResponseWriter)

// jsonReply answers with v. It is encoded here, before anything is written, so that an error still becomes a problem.
func jsonReply(status int, v any, headers ...string) (reply, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the content type and nosniff keep browsers from reading it as HTML
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return func(w http.ResponseWriter) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write(b.Bytes()) // the client may be gone
	}, nil
}

// answer replies 200 with v, unless there was an error. Its form lets a handler return it around a call.
func answer[T any](v T, err error) (reply, error) {
	if err != nil {
		return nil, err
	}
	return jsonReply(http.StatusOK, v)
}

// items is answer for a list, which is never null.
func items[T any](v []T, err error) (reply, error) {
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = []T{}
	}
	return jsonReply(http.StatusOK, client.Items[T]{Items: v})
}

// done replies 204, unless there was an error.
func done(err error) (reply, error) {
	if err != nil {
		return nil, err
	}
	return func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, nil
}
