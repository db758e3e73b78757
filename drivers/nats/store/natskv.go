// Package natsstore keeps the values of package kv in a JetStream bucket. Importing it makes the URL scheme "nats" known:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats/store"
//
//	DISCOVERY_URL=nats://user:password@host1:4222,host2:4222?bucket=kaptar
//
// # URL
//
// The URL may be the one that BROKER_URL has: parameters of the other drivers are left alone. The first credentials count for all servers.
//
//	bucket=kaptar   the bucket; default kaptar
//	replicas=1      copies of the bucket in a cluster, when it is made; 1, 3 or 5; default 1
//
// # What lives where
//
// Keys are those of package kv as they are: "nats kv put kaptar weights/order-service …" writes what Get("weights/order-service")
// reads. Keys of other programs that package kv does not allow are not seen. The bucket is made when it is first needed,
// with file storage and the last value of each key. Reads are answered by its leader, never by a copy that
// lags behind; a bucket that was made by another program may allow that.
//
// # When the server is away
//
// Open succeeds. Get, Put and Delete wait for the server until their context ends, without a deadline for 10 s. Watch waits for
// ever and keeps its last list; a bucket that was lost is made again, empty. A PutIf whose connection broke is not
// repeated, since it would take its own success for a conflict.
package natsstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats/internal/conn"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/kv"
)

const (
	pkg = "drivers/nats/store"

	checkEvery = 5 * time.Second // how soon a watch learns that the bucket was deleted

	// deletedTTL is how long the mark of a deleted key is kept, so that keys that come and go do not fill the bucket.
	deletedTTL = time.Hour
)

var _ kv.Store = (*Store)(nil)

// Options configure a Store. The zero value is ready to use; parameters in the URL come before.
type Options struct {
	Bucket   string // default "kaptar"
	Replicas int    // copies of a new bucket in a cluster; default 1

	// Connect are more options for the connection, for example nats.UserCredentials or nats.RootCAs. They are applied before
	// the package's own.
	Connect []nats.Option
}

// A Store implements kv.Store with one connection to a NATS server or cluster. Make it with [Open]; all methods may be called
// concurrently.
type Store struct {
	conn   *natsconn.Conn
	bucket *natsconn.Bucket
}

// Open connects to the servers of a URL as described at the package. nil options are the zero Options. A server that does not
// answer is no error; one that refuses the credentials is. Errors about the URL wrap kv.ErrInvalid.
func Open(ctx context.Context, rawURL string, opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	servers, params, err := natsconn.Split(rawURL)
	if err == nil {
		err = o.take(params)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w url %s: %w", pkg, kv.ErrInvalid, redact.URL(servers), err)
	}
	conn, err := natsconn.Connect(ctx, natsconn.Config{Package: pkg, Servers: servers, Patient: true, Options: o.Connect})
	if err != nil {
		if errors.Is(err, natsconn.ErrURL) {
			err = fmt.Errorf("%w: %w", kv.ErrInvalid, err)
		}
		return nil, err
	}
	return &Store{conn: conn, bucket: conn.Bucket(natsconn.BucketConfig{
		Name: o.Bucket, Description: "kaptar values", Replicas: o.Replicas, Check: checkEvery,
	})}, nil
}

// take applies the parameters of a URL and the defaults.
func (o *Options) take(params url.Values) (err error) {
	if name := params.Get("bucket"); name != "" {
		o.Bucket = name
	}
	if text := params.Get("replicas"); text != "" {
		if o.Replicas, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("parameter replicas=%s: want a number from 1 to 5", text)
		}
	}
	if o.Bucket == "" {
		o.Bucket = "kaptar"
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	switch {
	case !natsconn.ValidBucket(o.Bucket):
		return fmt.Errorf("parameter bucket=%s: want letters, digits, - and _", o.Bucket)
	case o.Replicas < 1 || o.Replicas > 5:
		return fmt.Errorf("parameter replicas=%d: want a number from 1 to 5", o.Replicas)
	}
	return nil
}

// SetLogger says where it is logged that the store waits for the server, and that the server is back, once each; at first nowhere.
func (s *Store) SetLogger(log *slog.Logger) { s.conn.SetLogger(log) }

// Close ends the connection. Watch calls then return an error. A second call does nothing.
func (s *Store) Close() error {
	s.conn.Close()
	return nil
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Entry, error) {
	if err := kv.CheckKey(key); err != nil {
		return kv.Entry{}, err
	}
	var entry jetstream.KeyValueEntry
	err := s.bucket.Do(ctx, true, func(ctx context.Context, c natsconn.Call) (err error) {
		entry, err = c.Get(ctx, key)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound): // also when it was deleted
		return kv.Entry{}, fmt.Errorf("%s: %w: key %q", pkg, kv.ErrNotFound, key)
	case err != nil:
		return kv.Entry{}, failed("get", key, err)
	}
	return kv.Entry{Key: key, Value: entry.Value(), Revision: entry.Revision()}, nil
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	if err := errors.Join(kv.CheckKey(key), kv.CheckValue(key, value)); err != nil {
		return 0, err
	}
	err = s.bucket.Do(ctx, true, func(ctx context.Context, c natsconn.Call) (err error) {
		revision, err = c.Put(ctx, key, value)
		return err
	})
	if err != nil {
		return 0, failed("put", key, err)
	}
	return revision, nil
}

// PutIf implements kv.Store.
func (s *Store) PutIf(ctx context.Context, key string, value []byte, revision uint64) (after uint64, err error) {
	if err := errors.Join(kv.CheckKey(key), kv.CheckValue(key, value)); err != nil {
		return 0, err
	}
	err = s.bucket.Do(ctx, false, func(ctx context.Context, c natsconn.Call) (err error) {
		if revision == 0 {
			after, err = c.Create(ctx, key, value)
		} else {
			after, err = c.Update(ctx, key, value, revision)
		}
		return err
	})
	switch {
	case conflict(err):
		return 0, fmt.Errorf("%s: %w: key %q does not have revision %d any more", pkg, kv.ErrConflict, key, revision)
	case err != nil:
		return 0, failed("put", key, err)
	}
	return after, nil
}

// conflict looks at the server's codes: of a key that was deleted and made again meanwhile the client library tells a cluster's
// code without saying what it means.
func conflict(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := kv.CheckKey(key); err != nil {
		return err
	}
	err := s.bucket.Do(ctx, true, func(ctx context.Context, c natsconn.Call) error {
		if _, err := c.Get(ctx, key); errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil // no mark for what is not there
		}
		if !c.TTL {
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
func (s *Store) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	if err := kv.CheckPrefix(prefix); err != nil {
		return err
	}
	entries := make(map[string]kv.Entry)
	told := false
	// A prefix ends anywhere in a word, and a filter of the server only between dots: the whole bucket comes.
	err := s.bucket.Follow(ctx, "", func(changes []natsconn.Change, whole bool) {
		before := maps.Clone(entries)
		if whole {
			clear(entries)
		}
		for _, c := range changes {
			switch {
			case !strings.HasPrefix(c.Key, prefix) || kv.CheckKey(c.Key) != nil:
			case c.Deleted || c.Expired:
				delete(entries, c.Key)
			default:
				entries[c.Key] = kv.Entry{Key: c.Key, Value: c.Value, Revision: c.Revision}
			}
		}
		same := maps.EqualFunc(before, entries, func(a, b kv.Entry) bool { return a.Revision == b.Revision && bytes.Equal(a.Value, b.Value) })
		if told && same || ctx.Err() != nil {
			return
		}
		told = true
		update(list(entries))
	})
	if err != nil {
		return fmt.Errorf("%s: watch %q: %w", pkg, prefix, err)
	}
	return nil
}

// list returns copies of the entries in the order of their keys.
func list(entries map[string]kv.Entry) []kv.Entry {
	out := make([]kv.Entry, 0, len(entries))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		e.Value = bytes.Clone(e.Value)
		out = append(out, e)
	}
	return out
}

func failed(verb, key string, err error) error {
	return fmt.Errorf("%s: %s %q: %w", pkg, verb, key, err)
}
