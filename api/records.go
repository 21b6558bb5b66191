package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Records per page.
const (
	usualRecords = 100
	mostRecords  = 1000
)

func (a *API) getRecord(r *request) (reply, error) {
	file, key, err := r.record()
	if err != nil {
		return nil, err
	}
	o := client.ReadOptions{Wait: r.wait}
	if o.Local, err = r.flag("local"); err != nil {
		return nil, err
	}
	if o.MaxLag, err = duration(r.query, "max_lag", 0); err != nil {
		return nil, err
	}
	if o.Group, err = r.localGroup(); err != nil {
		return nil, err
	}
	rec, err := a.o.Data.Get(r.Context(), file, key, o)
	if err != nil {
		return nil, err
	}
	return func(w http.ResponseWriter) {
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.Itoa(len(rec.Value)))
		h.Set(client.HeaderPosition, rec.Position)
		h.Set(client.HeaderApplied, rec.Applied)
		h.Set(client.HeaderAge, strconv.FormatFloat(rec.Age, 'f', 3, 64))
		setTime(h, client.HeaderTime, rec.Time)
		setTime(h, client.HeaderExpiry, rec.Expiry)
		if rec.Kind != client.KindBytes {
			h.Set(client.HeaderKind, strconv.Itoa(int(rec.Kind)))
		}
		if rec.Node != "" {
			h.Set(client.HeaderNode, rec.Node)
		}
		if rec.Local != "" {
			h.Del(client.HeaderAge) // there is no other copy that it could be older than
			h.Set(client.HeaderLocal, rec.Local)
		}
		_, _ = w.Write(rec.Value) // the client may be gone
	}, nil
}

func setTime(h http.Header, name string, t time.Time) {
	if !t.IsZero() {
		h.Set(name, t.UTC().Format(time.RFC3339Nano))
	}
}

func (a *API) putRecord(r *request) (reply, error) {
	file, key, err := r.record()
	if err != nil {
		return nil, err
	}
	o := r.writeOptions()
	if o.Expiry, err = r.expiry(a.o.Now); err != nil {
		return nil, err
	}
	if err := r.conditions(&o); err != nil {
		return nil, err
	}
	w, err := a.o.Data.Put(r.Context(), file, key, r.body, o)
	return written(w, err)
}

func (a *API) deleteRecord(r *request) (reply, error) {
	file, key, err := r.record()
	if err != nil {
		return nil, err
	}
	o := r.writeOptions()
	if o.Group, err = r.localGroup(); err != nil {
		return nil, err
	}
	if err := r.conditions(&o); err != nil {
		return nil, err
	}
	w, err := a.o.Data.Delete(r.Context(), file, key, o)
	w.Created = false
	return written(w, err)
}

// written answers with a receipt.
func written(w client.WriteResult, err error) (reply, error) {
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if w.Created {
		status = http.StatusCreated
	}
	return replayable(w.Replayed)(jsonReply(status, w, receiptHeaders(w.Position, w.Local)...))
}

func (a *API) listRecords(r *request) (reply, error) {
	file, err := r.file()
	if err != nil {
		return nil, err
	}
	o := client.ListOptions{Wait: r.wait, Prefix: []byte(r.query.Get("prefix")), From: []byte(r.query.Get("from"))}
	for name, key := range map[string][]byte{"prefix": o.Prefix, "from": o.From} {
		if err := checkKey(name, len(key)); err != nil {
			return nil, err
		}
	}
	if o.Limit, err = r.limit(usualRecords, mostRecords); err != nil {
		return nil, err
	}
	if o.Local, err = r.flag("local"); err != nil {
		return nil, err
	}
	if o.MaxLag, err = duration(r.query, "max_lag", 0); err != nil {
		return nil, err
	}
	if o.Group, err = r.listedGroup(); err != nil {
		return nil, err
	}
	page, err := a.o.Data.List(r.Context(), file, o)
	if err == nil && len(page.Records) > o.Limit {
		err = fmt.Errorf("a page has %d records where %d were asked for", len(page.Records), o.Limit)
	}
	if page.Records == nil {
		page.Records = []client.Record{}
	}
	if err == nil && page.Local != "" {
		return jsonReply(http.StatusOK, page, client.HeaderLocal, page.Local)
	}
	return answer(page, err)
}
