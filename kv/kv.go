// Package kv is a small key-value store that can be watched, for values that a running system
// follows: weights of a rollout, injected faults, live settings.
//
// [Memory] is a store for one process; the backends for Consul and NATS (see package drivers) have
// others. Package kvtest checks that a store behaves as described here.
//
// It is made for hundreds of small values that change now and then. It is not a database: there are
// no transactions over several keys, no history and no locks.
package kv

import (
	"bytes"
	"context"
	"errors"
)

var (
	// ErrNotFound is wrapped by the error of Get for a key that does not exist.
	ErrNotFound = errors.New("kv: not found")
	// ErrConflict is wrapped by the error of PutIf when the key has another revision.
	ErrConflict = errors.New("kv: conflict")
	// ErrInvalid is wrapped by the errors about unusable keys, prefixes, values and URLs.
	ErrInvalid = errors.New("kv: invalid")
)

// An Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte // at most MaxValue bytes; the receiver may change it
	// Revision changes with every write of the key, even of the same bytes, and never takes a value
	// that the key had before, not even after a Delete. 0 means that the key does not exist.
	// Revisions of different stores, or of a store that lost its data, cannot be compared.
	Revision uint64
}

// Equal reports whether e and o are the same in all fields.
func (e Entry) Equal(o Entry) bool {
	return e.Key == o.Key && e.Revision == o.Revision && bytes.Equal(e.Value, o.Value)
}

// A Store holds entries. All methods may be called concurrently. After an error other than
// ErrNotFound, ErrConflict and ErrInvalid a write may or may not have happened.
type Store interface {
	// Get returns the entry of a key; its error wraps ErrNotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// Put writes the value and returns the key's new revision. It does not keep the slice.
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// PutIf is Put on the condition that the key still has this revision; 0 means that it does not
	// exist. Otherwise the error wraps ErrConflict. Of several writers that start from one revision,
	// one succeeds.
	PutIf(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes the key. One that does not exist is no error.
	Delete(ctx context.Context, key string) error
	// Watch calls update with all entries whose key begins with prefix, even if there are none, and
	// again after each change. An empty prefix is all keys. Changes in quick succession may come as
	// one list, but the last state always comes, and the same list does not come twice in a row.
	// Lists are ordered by key; update may keep and change them. It is not called concurrently, and
	// not after Watch has returned.
	//
	// Watch blocks until ctx ends and then returns nil. Any other return is a failure, after which
	// the caller may watch again. A restart of the server is not a failure: the last list stands
	// until it is back.
	Watch(ctx context.Context, prefix string, update func([]Entry)) error
}
