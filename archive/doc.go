// Package archive keeps detached receivers outside the data directories: in a folder or an object storage. It knows no roles and
// deletes nothing of a journal; who may delete what is archived is decided above.
//
// An object is one receiver, its header and bundles as zstd, under a name that says what it holds:
//
//	<cluster>/<group>/<node>/<number>-<first>-<last>-<chain>.rcv.zst
//
// Node wrote the journal, first and last are sequences, chain is the one after the last bundle. Equal names mean equal bytes: so two
// nodes that archive their identical copies do not disturb each other, and the listing is the only index. A number can occur with
// several chains: the end of a journal may have been removed and written anew. Which of them counts is decided by who reads.
//
// An object counts once it was read back: decompressed, every checksum, the chain from the header to the name, J NR at the end.
// docs/formats/archive.md is the specification.
package archive
