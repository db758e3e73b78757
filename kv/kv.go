// Package kv is a small watched key-value store: for values that a running system follows,
// such as the weights of a rollout, injected faults or live settings.
//
// Memory is one for a system in one process; package drivers links those of Consul and NATS.
// Whether a driver keeps what is written here is checked by package kvtest.
//
// It is made for hundreds of small values that change now and then and are read by watching. It
// is no database: there are no transactions over several keys, no history and no locks.
package kv

import (
	"context"
	"errors"
)

var (
	// ErrNotFound is wrapped by the error of Get for a key that does not exist.
	ErrNotFound = errors.New("kv: not found")
	// ErrConflict is wrapped by the error of PutIf when the key has another revision.
	ErrConflict = errors.New("kv: conflict")
	// ErrInvalid is wrapped by the errors about keys, prefixes, values and URLs that cannot be
	// used.
	ErrInvalid = errors.New("kv: invalid")
)

// An Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte // belongs to whom it was given; never more than MaxValue bytes
	// Revision is another one after every write of the key, also of the same bytes, and never one
	// that the key has had before, also not after it was deleted. 0 = the key does not exist.
	// Revisions of different stores, and of a store whose data were lost, have nothing in common.
	Revision uint64
}

// A Store holds entries. All methods may be called concurrently, also on one key. A failure other
// than ErrNotFound, ErrConflict and ErrInvalid leaves open whether a write has happened.
type Store interface {
	// Get returns the entry of a key; its error wraps ErrNotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// Put writes the value whatever was there and returns the key's new revision. It does not keep
	// value.
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// PutIf is Put on the condition that the key still has this revision, 0 = that it does not
	// exist. Else its error wraps ErrConflict. Of several writers that start from one revision, one
	// succeeds.
	PutIf(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes the key. One that does not exist is no error.
	Delete(ctx context.Context, key string) error
	// Watch calls update with all entries whose key begins with prefix (compared byte by byte, "" =
	// all) at once, also when there is none, and again after every change. Changes that come
	// quickly may be told together; the last one is never left out, and a list is not told twice in
	// a row. Lists are ordered by key and belong to update, which is not called concurrently and
	// not after Watch has returned. Watch blocks until ctx ends and then returns nil; any other
	// return is a failure, and the caller may watch again. A restart of the server is not one:
	// meanwhile the last list stands.
	Watch(ctx context.Context, prefix string, update func([]Entry)) error
}
