package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"

	"github.com/understudy-ha/understudy/client"
)

// maxHops bounds the forwarding of one request.
const maxHops = 3

// request is a request that was read completely and checked against its route.
type request struct {
	*http.Request                 // its context carries the deadline
	far           context.Context // for another node's answer: a little longer
	drain         context.Context // ends also when the listener stops: for waits that are not worth finishing
	life          context.Context // drain without the deadline: for streams
	end           time.Time       // the request's deadline
	wait          time.Duration   // what ?wait= says, or the route's default
	route         route
	hops          int
	body          []byte
	query         url.Values
}

// writes tells whether the request may change something.
func (r *request) writes() bool {
	return r.route.method != http.MethodGet && !r.route.reads
}

func invalid(detail, remedy string) *client.Error {
	return &client.Error{Code: client.CodeInvalid, Detail: detail, Remedy: remedy}
}

// checkQuery parses the query and refuses what the route does not know, so that a mistyped parameter is never ignored.
func checkQuery(rt route, raw string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, invalid("the query cannot be read: "+err.Error(), "percent-encode the values")
	}
	for name, values := range q {
		if !slices.Contains(rt.params, name) {
			remedy := "this path takes no parameters"
			if len(rt.params) > 0 {
				remedy = "this path knows " + strings.Join(rt.params, ", ")
			}
			return nil, invalid(fmt.Sprintf("unknown parameter %q", shorten(name)), remedy)
		}
		if len(values) > 1 {
			return nil, invalid(fmt.Sprintf("parameter %q stands %d times", name, len(values)), "give it once")
		}
	}
	return q, nil
}

// readBody reads at most limit bytes of body.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	tooLarge := &client.Error{Code: client.CodeTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes", limit),
		Remedy: "split the content, or keep it elsewhere and store its address"}
	if limit == noBody {
		tooLarge.Detail, tooLarge.Remedy = "this path takes no body", "leave the body out"
	}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, invalid("the body could not be read to its end: "+err.Error(), "send the whole body within the time limit")
	}
	return body, nil
}

// decode reads the body as one JSON value; an empty body leaves v as it is. Unknown fields are refused, so that a mistyped
// option is never ignored.
func (r *request) decode(v any) error {
	switch string(bytes.TrimSpace(r.body)) {
	case "":
		return nil
	case "null":
		return invalid("the body is null", "send an object, such as {}, or no body at all")
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is more after the first value")
		}
	}
	if err != nil {
		return invalid("the body is not what this path takes: "+plainly(err), bodyRemedy(v))
	}
	return nil
}

// named refuses a field that is there but empty: what was meant by it cannot be guessed.
func (r *request) named(field string) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(r.body, &fields) != nil {
		return nil // decode says what is wrong
	}
	for name, value := range fields {
		if text := string(value); strings.EqualFold(name, field) && (text == `""` || text == "null") {
			return invalid(fmt.Sprintf("field %q is empty", field), "name a node, or leave the field out")
		}
	}
	return nil
}

// variable returns a part of the path, decoded.
func (r *request) variable(name string) (string, error) {
	v, err := url.PathUnescape(mux.Vars(r.Request)[name])
	if err != nil {
		return "", invalid("the path cannot be read: "+err.Error(), "percent-encode it")
	}
	return v, nil
}

// group returns the group in the path.
func (r *request) group() (string, error) { return r.variable("group") }

// file returns the file name in the path.
func (r *request) file() (string, error) {
	f, err := r.variable("file")
	if err != nil {
		return "", err
	}
	if err := checkFile(f); err != nil {
		return "", err
	}
	return f, nil
}

// checkFile refuses what cannot be the name of a user's file.
func checkFile(f string) *client.Error {
	switch {
	case f == "":
		return invalid("the file name is empty", "write /v1/files/FILE/records/KEY")
	case len(f) > client.MaxFileName:
		return &client.Error{Status: http.StatusRequestURITooLong, Code: client.CodeTooLarge,
			Detail: fmt.Sprintf("the file name has %d bytes, at most %d are possible", len(f), client.MaxFileName), Remedy: "choose a shorter name"}
	case !utf8.ValidString(f):
		return invalid("the file name is not valid UTF-8", "keys may hold any bytes, file names may not")
	case f[0] == 0:
		return invalid("the file name begins with a zero byte", "such names are the product's own; choose another one")
	}
	return nil
}

// key returns the key in the path, which may hold any bytes, slashes too.
func (r *request) key() ([]byte, error) {
	k, err := r.variable("key")
	switch {
	case err != nil:
		return nil, err
	case k == "":
		return nil, invalid("the key is empty", "write /v1/files/FILE/records/KEY, or leave the last slash out to list the records")
	}
	return []byte(k), checkKey("key", len(k))
}

func checkKey(what string, n int) error {
	if n > client.MaxKey {
		return &client.Error{Status: http.StatusRequestURITooLong, Code: client.CodeTooLarge,
			Detail: fmt.Sprintf("the %s has %d bytes, at most %d are possible", what, n, client.MaxKey), Remedy: "choose shorter keys, such as a hash"}
	}
	return nil
}

// record returns file and key in the path.
func (r *request) record() (string, []byte, error) {
	file, err := r.file()
	if err != nil {
		return "", nil, err
	}
	key, err := r.key()
	return file, key, err
}

// flag reads a parameter that is true or false; a bare name means true.
func (r *request) flag(name string) (bool, error) {
	if !r.query.Has(name) {
		return false, nil
	}
	switch v := r.query.Get(name); v {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, invalid(fmt.Sprintf("%s=%s is neither true nor false", name, shorten(v)), "write "+name+"=true or "+name+"=false")
	}
}

// number reads a parameter that is a whole number; 0 when it is missing.
func (r *request) number(name string) (uint64, error) {
	v := r.query.Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, invalid(fmt.Sprintf("%s=%s is not a whole number", name, shorten(v)), "want one that is not negative, such as "+name+"=10")
	}
	return n, nil
}

// limit reads the parameter limit.
func (r *request) limit(usual, most int) (int, error) {
	n, err := r.number("limit")
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return usual, nil
	case n > uint64(most):
		return 0, invalid(fmt.Sprintf("limit=%d is too large", n), fmt.Sprintf("at most %d; ask for the next page", most))
	}
	return int(n), nil
}

// duration reads a parameter that is a time span; otherwise when it is missing.
func duration(q url.Values, name string, otherwise time.Duration) (time.Duration, error) {
	v := q.Get(name)
	if v == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(v)
	if err == nil && d < 0 {
		return 0, invalid(fmt.Sprintf("%s=%s is negative", name, shorten(v)), "want a duration of 0s or more, such as 5s")
	}
	if err != nil {
		return 0, notSpan(name, v, "5s or 500ms")
	}
	return d, nil
}

// instant reads a parameter that is a time; zero when it is missing.
func (r *request) instant(name string) (time.Time, error) {
	v := r.query.Get(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return time.Time{}, invalid(fmt.Sprintf("%s=%s is not a time", name, shorten(v)), "want a time as in RFC 3339, such as 2026-11-22T15:04:05Z (write + as %2B)")
	}
	return t, nil
}

// choice reads a parameter that has few values; the first one when it is missing.
func (r *request) choice(name string, values ...string) (string, error) {
	v := r.query.Get(name)
	if v == "" {
		return values[0], nil
	}
	if !slices.Contains(values, v) {
		return "", invalid(fmt.Sprintf("%s=%s is not possible", name, shorten(v)), "want "+orList(slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })))
	}
	return v, nil
}
