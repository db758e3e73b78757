package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	// attemptTimeout ends one attempt of a call that may be repeated: a request to a leader that
	// the cluster is replacing is never answered.
	attemptTimeout = 2 * time.Second

	minWait = 100 * time.Millisecond // between two tries
	maxWait = 5 * time.Second
)

// A bucketConfig says what a bucket gets when it is made. One that exists keeps its settings.
type bucketConfig struct {
	name        string
	description string
	replicas    int
	markers     time.Duration // how long the bucket keeps markers of expired entries; 0: none are made
	check       time.Duration // how often a follower checks the bucket
}

// A bucket is a key-value bucket with the last value of each key. It is made when it is first used,
// and made again when it was deleted. All methods may be called concurrently.
type bucket struct {
	conn *connection
	cfg  bucketConfig

	health steady.Health // of the followers, while there is a connection

	mu      sync.Mutex
	opened  *opened // nil: to be found or made
	checked check
}

// opened is a bucket that was found.
type opened struct {
	jetstream.KeyValue
	created time.Time // tells a bucket from one of the same name that was made after its deletion
	ttl     bool      // takes entries with a time to live
}

// do waits for a connection and calls f with the bucket. It calls f again while the server is not
// ready or the bucket turns out to be gone. With again set it also does so when f got no answer in
// 2 s or the connection broke. All this is within ctx or, if that has no deadline, 10 s.
func (b *bucket) do(ctx context.Context, again bool, f func(context.Context, *opened) error) error {
	ctx, cancel := steady.Bound(ctx, callTimeout)
	defer cancel()
	backoff := steady.Backoff{First: minWait, Max: time.Second}
	for {
		if err := b.conn.wait(ctx); err != nil {
			return err
		}
		err := b.try(ctx, again, f)
		switch {
		case err == nil:
			return nil
		case missing(err):
			b.forget()
		case unavailable(err):
		case again && (errors.Is(err, errLost) || errors.Is(err, context.DeadlineExceeded)):
		default:
			return err
		}
		if !steady.Sleep(ctx, backoff.Next()) {
			return fmt.Errorf("bucket %s at %s: %w", b.cfg.name, b.conn.url, err)
		}
	}
}

func (b *bucket) try(ctx context.Context, again bool, f func(context.Context, *opened) error) error {
	ctx, cancel := b.conn.bound(ctx)
	defer cancel()
	if again {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, attemptTimeout)
		defer stop()
	}
	o, err := b.open(ctx)
	if err == nil {
		err = f(ctx, o)
	}
	if err != nil {
		return b.conn.cause(ctx, err)
	}
	return nil
}

// missing reports whether a bucket that was found before may have been deleted.
func missing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// consumerNotMade says that the server cannot read the consumer's file. It also comes while a
// consumer of the same name is still being deleted.
const consumerNotMade jetstream.ErrorCode = 10012

// unavailable reports whether the server, or the rest of its cluster, is not ready yet.
func unavailable(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.Code == 503 || api.ErrorCode == consumerNotMade)
}

func (b *bucket) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = nil
}

// open finds the bucket or makes it.
func (b *bucket) open(ctx context.Context) (*opened, error) {
	b.mu.Lock()
	o := b.opened
	b.mu.Unlock()
	if o != nil {
		return o, nil
	}
	stream, err := b.stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("bucket %s at %s: %w", b.cfg.name, b.conn.url, err)
	}
	kv, err := b.conn.js.KeyValue(ctx, b.cfg.name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s at %s: %w", b.cfg.name, b.conn.url, err)
	}
	info := stream.CachedInfo()
	o = &opened{kv, info.Created, info.Config.AllowMsgTTL}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = o
	return o, nil
}

func (b *bucket) stream(ctx context.Context) (jetstream.Stream, error) {
	stream, err := b.conn.stream(ctx, b.streamConfig())
	if err != nil {
		return nil, err
	}
	config := stream.CachedInfo().Config
	if b.cfg.markers == 0 || config.SubjectDeleteMarkerTTL > 0 {
		return stream, nil
	}
	if config.AllowMsgTTL, config.SubjectDeleteMarkerTTL = true, b.cfg.markers; config.MaxMsgsPerSubject > 0 {
		stream, err = b.conn.js.UpdateStream(ctx, config)
	}
	if err == nil && stream.CachedInfo().Config.SubjectDeleteMarkerTTL == 0 {
		err = fmt.Errorf("the server (%s) has no entries with a time to live: expected NATS 2.11 or newer", b.conn.ConnectedServerVersion())
	}
	return stream, err
}

// streamConfig makes the stream behind the bucket as other clients do, but for AllowDirect: reads
// are answered by the leader only, so that whoever wrote a key reads what it wrote.
func (b *bucket) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "KV_" + b.cfg.name, Description: b.cfg.description, Subjects: []string{"$KV." + b.cfg.name + ".>"},
		MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage, Replicas: b.cfg.replicas, Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: b.cfg.markers, // servers before 2.11 ignore both, and say so in their answer
	}
}

// insist calls f again when no answer comes in 2 s, or the cluster is not ready, until ctx ends. Then
// it returns what the server said last, if it ever did. f must be repeatable.
func insist(ctx context.Context, f func(context.Context) error) error {
	backoff := steady.Backoff{First: minWait, Max: time.Second}
	var said error
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := f(attempt)
		silent := errors.Is(err, context.DeadlineExceeded) && attempt.Err() != nil
		cancel()
		switch {
		case unavailable(err):
			said = err
		case !silent:
			return err
		}
		if !steady.Sleep(ctx, backoff.Next()) {
			return cmp.Or(said, err)
		}
	}
}
