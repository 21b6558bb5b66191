package client

import (
	"crypto/rand"
	"encoding/hex"
)

// Headers of requests that are done at most once.
const (
	HeaderIdempotencyKey = "Idempotency-Key"      // 1 to 255 bytes, printable ASCII
	HeaderReplayed       = "Idempotency-Replayed" // of an answer: "true" when it was given before
)

// MaxIdempotencyKey is how many bytes an idempotency key may have.
const MaxIdempotencyKey = 255

// NewIdempotencyKey returns a random key for one write and all its repetitions.
func NewIdempotencyKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// once gives the exchange a key, so that it may be repeated whatever happened to an earlier try. Without one, and unless the
// client makes keys by itself, it stays as it is.
func (c *Client) once(x *exchange, key string) {
	if key == "" && c.exactlyOnce {
		key = NewIdempotencyKey()
	}
	if key != "" {
		x.once = true
		x.set(HeaderIdempotencyKey, key)
	}
}

// decided tells whether a refusal is kept with the key of a request, so that it is the outcome of every try.
func (c Code) decided() bool {
	switch c {
	case CodePrecondition, CodeNotFound, CodeKeyReused:
		return true
	}
	return false
}
