// Package resp is the Redis protocol of one node: RESP2 and RESP3, the commands of the table in table.go, and the Sentinel commands by
// which client libraries find and follow the primary. It is described for users in docs/redis.md.
//
// A data command becomes a program: a function over the records of one group that the Store runs at the primary, in order with everything
// else that is sequenced. What was read from a connection at once goes to the Store at once, so the writes of a pipeline share a deposit.
// A node that is not primary relays the programs' commands to the one that is, and answers on the client's own connection.
//
// The package knows no journal, no roles and no cluster: Store and Roles (backend.go) answer. It has a reader and a writer of its own;
// nothing that a client sends makes it allocate more than what arrived, within Limits.
package resp
