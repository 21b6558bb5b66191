package api

import (
	"fmt"
	"math"
	"time"

	"github.com/understudy-ha/understudy/client"
)

// Expiries that a record can have: it is kept in nanoseconds since 1970, and zero means none.
var (
	firstExpiry = time.Unix(0, 1)
	lastExpiry  = time.Unix(0, math.MaxInt64)
)

// expiry returns when the record that the request writes expires; zero: never. A time to live becomes a time at the node that takes
// the request first, once: a request that is tried again, or forwarded, carries the time.
func (r *request) expiry(now func() time.Time) (time.Time, error) {
	headers := r.Header.Values(client.HeaderExpiry)
	ttl := r.query.Get("ttl")
	remedy := "give either the header, a time as in RFC 3339 such as 2026-11-22T15:04:05Z, or ttl, a duration such as 30s"
	switch {
	case len(headers) > 1:
		return time.Time{}, invalid(fmt.Sprintf("header %s stands %d times", client.HeaderExpiry, len(headers)), "give it once")
	case len(headers) == 1 && r.query.Has("ttl"):
		return time.Time{}, invalid(fmt.Sprintf("both header %s and ttl say when the record expires", client.HeaderExpiry), remedy)
	case len(headers) == 1:
		t, err := time.Parse(time.RFC3339Nano, headers[0])
		if err != nil {
			return time.Time{}, invalid(fmt.Sprintf("header %s: %s", client.HeaderExpiry, shorten(headers[0])), remedy)
		}
		return t, possible(t)
	case !r.query.Has("ttl"):
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(ttl)
	if err != nil || d <= 0 {
		if err == nil {
			return time.Time{}, invalid(fmt.Sprintf("ttl=%s is not more than 0s", shorten(ttl)), "want how long the record is to live, such as 30s or 1h; DELETE removes it now")
		}
		return time.Time{}, notSpan("ttl", ttl, "30s or 1h")
	}
	t := now().Add(d)
	if err := possible(t); err != nil {
		return time.Time{}, err
	}
	r.query.Del("ttl")
	setTime(r.Header, client.HeaderExpiry, t)
	return t, nil
}

// possible refuses times that a record cannot have. One that is past is possible: such a record is due at once.
func possible(t time.Time) error {
	if t.Before(firstExpiry) || t.After(lastExpiry) {
		return invalid("the record would expire at "+t.UTC().Format(time.RFC3339), fmt.Sprintf("want a time between 1970 and %s", lastExpiry.UTC().Format(time.RFC3339)))
	}
	return nil
}
