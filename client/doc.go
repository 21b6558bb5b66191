// Package client is the public Go client of Understudy: the JSON types of the HTTP interface, typed errors, and a Client
// that speaks to any node of a cluster.
//
// A Client follows the primary by itself: nodes forward what only the primary can answer, and the client goes on to its
// next address when a node cannot be reached. It repeats a request only where that is safe, with pauses that grow, up to
// Options.Retry and never beyond the context:
//
//   - reads always;
//   - writes without an idempotency key only when surely nothing was done: Code.NotDone, or nothing was sent;
//   - writes with one (WriteOptions.IdempotencyKey, Options.ExactlyOnce) also when their outcome is unknown, with the same key.
//
// A write without a key whose fate is not known is reported as ErrUnknownOutcome and never repeated; Settle asks what became of it.
// OutcomeOf sorts errors of writes.
//
//	c := client.New("127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420")
//	defer c.Close()
//	w, err := c.Put(ctx, "orders", []byte("4711"), []byte("3 apples"), client.WriteOptions{})
//
// # Units
//
// Times are RFC 3339 with nanoseconds; zero times are left out. Fields that end in _seconds are seconds with fractions,
// in _bytes bytes, in _entries journal entries. Sequence numbers address entries of one journal. Positions are history
// positions, printed "group@epoch.h"; the empty string is the position before the first fact. Binary values (record
// contents, images, data of entries) are base64 in JSON.
//
// The package imports nothing else of this module, so it can be used by itself.
package client
