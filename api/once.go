package api

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/understudy-ha/understudy/client"
	"github.com/understudy-ha/understudy/internal/ident"
)

// WriteOptions qualify a write, as they were checked.
type WriteOptions struct {
	client.WriteOptions
	Request [sha256.Size]byte // with IdempotencyKey: tells requests apart
}

// checkOnce refuses an idempotency key that cannot be kept.
func checkOnce(rt route, h http.Header) error {
	keys := h.Values(client.HeaderIdempotencyKey)
	if len(keys) == 0 {
		return nil
	}
	if !rt.once {
		return &client.Error{Code: client.CodeUnsupported, Detail: "this path keeps no idempotency keys", Remedy: "leave the header " + client.HeaderIdempotencyKey + " out: writes of records, transactions and entries keep keys"}
	}
	remedy := fmt.Sprintf("give one, of 1 to %d printable ASCII characters, such as a UUID", client.MaxIdempotencyKey)
	if len(keys) > 1 {
		return invalid(fmt.Sprintf("header %s stands %d times", client.HeaderIdempotencyKey, len(keys)), remedy)
	}
	if keys[0] == "" || len(keys[0]) > client.MaxIdempotencyKey || strings.ContainsFunc(keys[0], func(c rune) bool { return c < ' ' || c > '~' }) {
		return invalid(fmt.Sprintf("header %s: %q cannot be kept", client.HeaderIdempotencyKey, shorten(keys[0])), remedy)
	}
	return nil
}

// writeOptions reads what qualifies a write, without conditions.
func (r *request) writeOptions() WriteOptions {
	o := WriteOptions{WriteOptions: client.WriteOptions{Wait: r.wait, IdempotencyKey: r.Header.Get(client.HeaderIdempotencyKey)}}
	if o.IdempotencyKey != "" {
		o.Request = r.digest()
	}
	return o
}

// digest tells requests apart: it covers all that says what is to be done, and nothing that changes from one node or one try to the
// next. When a record expires does: the first node makes a time of a ttl.
func (r *request) digest() (sum [sha256.Size]byte) {
	query := r.URL.Query()
	query.Del("wait")
	query.Del("ttl")
	parts := []string{r.Method, r.URL.EscapedPath(), query.Encode()}
	var headers []string
	for name, values := range r.Header {
		if name == "If-Match" || name == "If-None-Match" || strings.HasPrefix(name, "Understudy-") && name != headerHops && name != client.HeaderExpiry {
			headers = append(headers, name+": "+strings.Join(values, ", "))
		}
	}
	slices.Sort(headers)
	parts = append(parts, headers...)
	h := sha256.New()
	var n [8]byte
	for _, p := range append(parts, string(r.body)) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	h.Sum(sum[:0])
	return sum
}

// conditions reads the headers If-Match and If-None-Match of a write.
func (r *request) conditions(o *WriteOptions) error {
	match, none := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	switch {
	case len(match)+len(none) == 0:
		return nil
	case len(match)+len(none) > 1:
		return invalid("more than one of the headers If-Match and If-None-Match", "give one of them, once; POST /v1/transactions takes several conditions")
	case len(none) == 1 && none[0] != "*":
		return invalid(fmt.Sprintf("header If-None-Match: %s", shorten(none[0])), `write If-None-Match: *, which means that there must be no such record`)
	case len(none) == 1 && r.Method == http.MethodDelete:
		return invalid("header If-None-Match with DELETE", "what is not there cannot be deleted; use If-Match")
	case len(none) == 1:
		o.IfAbsent = true
	case match[0] == "*":
		o.IfExists = true
	default:
		o.IfPosition = strings.TrimSuffix(strings.TrimPrefix(match[0], `"`), `"`)
		if err := checkPosition("header If-Match", o.IfPosition); err != nil {
			return err
		}
	}
	return nil
}

// checkPosition refuses what is no position of a record's change.
func checkPosition(where, position string) *client.Error {
	if _, p, err := ident.ParsePosition(position); err != nil || p.IsZero() {
		return invalid(fmt.Sprintf("%s: %q is not the position of a change", where, shorten(position)), `take the position that a write answers with or a read has in Understudy-Position, such as "default@3.42"`)
	}
	return nil
}
