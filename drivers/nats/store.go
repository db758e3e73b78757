package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/kv"
)

const (
	checkEvery = 5 * time.Second // a watch notices within this time that the bucket was deleted

	// deletedTTL is how long the marker of a deleted key is kept, so that keys that come and go do
	// not fill the bucket.
	deletedTTL = time.Hour
)

var _ kv.Store = (*store)(nil)

// A store implements kv.Store for a backend. Its methods may be called
// concurrently.
type store struct {
	bucket *bucket
}

func newStore(conn *connection, set settings) *store {
	return &store{&bucket{conn: conn, cfg: bucketConfig{
		name: set.bucket, description: "kaptar values", replicas: set.replicas, check: checkEvery,
	}}}
}

// Get implements kv.Store.
func (s *store) Get(ctx context.Context, key string) (kv.Entry, error) {
	if err := kv.CheckKey(key); err != nil {
		return kv.Entry{}, err
	}
	var entry jetstream.KeyValueEntry
	err := s.bucket.do(ctx, true, func(ctx context.Context, c *opened) (err error) {
		// A busy server once did not find a key that others were writing.
		for range 3 {
			if entry, err = c.Get(ctx, key); !errors.Is(err, jetstream.ErrKeyNotFound) {
				break
			}
		}
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound): // also when it was deleted
		return kv.Entry{}, fmt.Errorf("nats: %w: key %q", kv.ErrNotFound, key)
	case err != nil:
		return kv.Entry{}, failed("get", key, err)
	}
	return kv.Entry{Key: key, Value: entry.Value(), Revision: entry.Revision()}, nil
}

// Put implements kv.Store.
func (s *store) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, key, value, true, func(ctx context.Context, c *opened) (uint64, error) { return c.Put(ctx, key, value) })
}

// PutIf implements kv.Store.
func (s *store) PutIf(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	after, err := s.write(ctx, key, value, false, func(ctx context.Context, c *opened) (uint64, error) {
		if revision == 0 {
			return c.Create(ctx, key, value)
		}
		return c.Update(ctx, key, value, revision)
	})
	if conflict(err) {
		return 0, fmt.Errorf("nats: %w: key %q does not have revision %d any more", kv.ErrConflict, key, revision)
	}
	return after, err
}

// write calls put through bucket.do.
func (s *store) write(
	ctx context.Context, key string, value []byte, again bool, put func(context.Context, *opened) (uint64, error),
) (revision uint64, err error) {
	if err := errors.Join(kv.CheckKey(key), kv.CheckValue(key, value)); err != nil {
		return 0, err
	}
	err = s.bucket.do(ctx, again, func(ctx context.Context, c *opened) (err error) {
		revision, err = put(ctx, c)
		return err
	})
	if err != nil {
		return 0, failed("put", key, err)
	}
	return revision, nil
}

// conflict checks the server's error codes, because for a key that was deleted and made again the
// client library returns a cluster's code as it is.
func conflict(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Delete implements kv.Store.
func (s *store) Delete(ctx context.Context, key string) error {
	if err := kv.CheckKey(key); err != nil {
		return err
	}
	err := s.bucket.do(ctx, true, func(ctx context.Context, c *opened) error {
		if _, err := c.Get(ctx, key); errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil // no marker for a key that is not there
		}
		if !c.ttl {
			return c.Delete(ctx, key)
		}
		return c.Purge(ctx, key, jetstream.PurgeTTL(deletedTTL))
	})
	if err != nil {
		return failed("delete", key, err)
	}
	return nil
}

// Watch implements kv.Store.
func (s *store) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	if err := kv.CheckPrefix(prefix); err != nil {
		return err
	}
	entries, tell := make(map[string]kv.Entry), kv.Changes(update)
	// A prefix may end within a token, and the server filters by whole tokens.
	err := s.bucket.follow(ctx, jetstream.AllKeys, func(changes []change, whole bool) {
		if whole {
			clear(entries)
		}
		for _, c := range changes {
			switch {
			case !strings.HasPrefix(c.key, prefix) || kv.CheckKey(c.key) != nil:
			case c.deleted || c.expired:
				delete(entries, c.key)
			default:
				entries[c.key] = kv.Entry{Key: c.key, Value: c.value, Revision: c.revision}
			}
		}
		if ctx.Err() == nil {
			tell(slices.Collect(maps.Values(entries)))
		}
	})
	if err != nil {
		return fmt.Errorf("nats: watch %q: %w", prefix, err)
	}
	return nil
}

func failed(verb, key string, err error) error {
	return fmt.Errorf("nats: %s %q: %w", verb, key, err)
}
