package natsconn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// attemptTimeout ends one try of a call that may be repeated: what was sent to the leader of a bucket while the cluster
	// elects another one is never answered.
	attemptTimeout = 2 * time.Second

	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// A BucketConfig says what a bucket gets when it is made. One that exists keeps its settings.
type BucketConfig struct {
	Name        string
	Description string
	Replicas    int
	Markers     time.Duration // how long the bucket keeps marks of entries whose time was over; 0: none are made
	Check       time.Duration // how often it is looked at while it is followed
}

// A Bucket is a key-value bucket with the last value of each key. It is made when it is first used, and made again when it was
// deleted. Make it with Conn.Bucket; all methods may be called concurrently.
type Bucket struct {
	conn *Conn
	cfg  BucketConfig

	mu      sync.Mutex
	opened  *opened // nil: to be looked for
	told    bool    // the log says that the bucket does not answer
	checked check
}

// opened is a bucket that was found.
type opened struct {
	jetstream.KeyValue
	created time.Time // tells a bucket from one of the same name that was made after its deletion
	ttl     bool      // takes entries with a time to live
}

// Bucket returns the bucket without talking to the server.
func (c *Conn) Bucket(cfg BucketConfig) *Bucket { return &Bucket{conn: c, cfg: cfg} }

// ValidBucket reports whether the server takes the name.
func ValidBucket(name string) bool {
	return name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// A Call is what Do hands to its function.
type Call struct {
	jetstream.KeyValue
	JS  jetstream.JetStream
	TTL bool // the bucket takes entries with a time to live
}

// Do calls f with the bucket, after waiting for a connection. It calls f again as long as the server has no answer or the bucket
// turns out to be gone, and if again is set also when no answer came to f in 2 s or the connection was lost under it; all within ctx
// or, without a deadline, 10 s.
func (b *Bucket) Do(ctx context.Context, again bool, f func(context.Context, Call) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	for wait := backoffMin; ; wait = min(2*wait, time.Second) {
		if err := b.conn.Wait(ctx); err != nil {
			return err
		}
		err := b.once(ctx, again, f)
		switch {
		case err == nil:
			return nil
		case missing(err):
			b.forget()
		case unavailable(err):
		case again && (errors.Is(err, ErrLost) || errors.Is(err, context.DeadlineExceeded)):
		default:
			return err
		}
		if !Sleep(ctx, rand.N(wait)) {
			return fmt.Errorf("bucket %s at %s: %w", b.cfg.Name, b.conn.URL, err)
		}
	}
}

func (b *Bucket) once(ctx context.Context, again bool, f func(context.Context, Call) error) error {
	ctx, cancel := b.conn.Bound(ctx)
	defer cancel()
	if again {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, attemptTimeout)
		defer stop()
	}
	o, err := b.open(ctx)
	if err == nil {
		err = f(ctx, Call{o.KeyValue, b.conn.JS, o.ttl})
	}
	if err != nil {
		return b.conn.Cause(ctx, err)
	}
	return nil
}

// missing reports whether a bucket that was found before may have been deleted.
func missing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// consumerNotMade is what the server says, among else, while it still deletes a consumer of the same name.
const consumerNotMade jetstream.ErrorCode = 10012

// unavailable reports whether the server, or the rest of its cluster, is not ready yet.
func unavailable(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.Code == 503 || api.ErrorCode == consumerNotMade)
}

func (b *Bucket) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = nil
}

// open finds the bucket or makes it.
func (b *Bucket) open(ctx context.Context) (*opened, error) {
	b.mu.Lock()
	o := b.opened
	b.mu.Unlock()
	if o != nil {
		return o, nil
	}
	stream, err := b.stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("bucket %s at %s: %w", b.cfg.Name, b.conn.URL, err)
	}
	kv, err := b.conn.JS.KeyValue(ctx, b.cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s at %s: %w", b.cfg.Name, b.conn.URL, err)
	}
	info := stream.CachedInfo()
	o = &opened{kv, info.Created, info.Config.AllowMsgTTL}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = o
	return o, nil
}

func (b *Bucket) stream(ctx context.Context) (jetstream.Stream, error) {
	name := "KV_" + b.cfg.Name
	stream, err := b.conn.JS.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.conn.JS.CreateStream(ctx, b.streamConfig(name))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another program was faster
			stream, err = b.conn.JS.Stream(ctx, name)
		}
	}
	if err != nil {
		return nil, err
	}
	config := stream.CachedInfo().Config
	if b.cfg.Markers == 0 || config.SubjectDeleteMarkerTTL > 0 {
		return stream, nil
	}
	if config.AllowMsgTTL, config.SubjectDeleteMarkerTTL = true, b.cfg.Markers; config.MaxMsgsPerSubject > 0 {
		stream, err = b.conn.JS.UpdateStream(ctx, config)
	}
	if err == nil && stream.CachedInfo().Config.SubjectDeleteMarkerTTL == 0 {
		err = fmt.Errorf("the server (%s) has no entries with a time to live: want NATS 2.11 or newer", b.conn.ConnectedServerVersion())
	}
	return stream, err
}

// streamConfig makes the stream behind the bucket as other clients do, but for AllowDirect: reads are answered by the leader
// only, so that whoever wrote a key reads what it wrote.
func (b *Bucket) streamConfig(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Description: b.cfg.Description, Subjects: []string{"$KV." + b.cfg.Name + ".>"},
		MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas, Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: b.cfg.Markers, // servers before 2.11 ignore both, and say so in their answer
	}
}

// trouble logs once that the bucket does not answer although there is a connection.
func (b *Bucket) trouble(err error) {
	b.mu.Lock()
	first := !b.told
	b.told = true
	b.mu.Unlock()
	if first {
		b.conn.logger().Warn("waiting for a bucket of NATS", "bucket", b.cfg.Name, "url", b.conn.URL, "error", err)
	}
}

func (b *Bucket) fine() {
	b.mu.Lock()
	told := b.told
	b.told = false
	b.mu.Unlock()
	if told {
		b.conn.logger().Info("the bucket of NATS is back", "bucket", b.cfg.Name, "url", b.conn.URL)
	}
}

// Insist calls f again when no answer comes in 2 s, or the cluster says that it is not ready, until ctx ends. f must be something
// that may be done twice.
func Insist(ctx context.Context, f func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := f(attempt)
		silent := errors.Is(err, context.DeadlineExceeded) && attempt.Err() != nil
		cancel()
		if !silent && !unavailable(err) || ctx.Err() != nil || !Sleep(ctx, rand.N(backoffMin)) {
			return err
		}
	}
}

// Sleep returns false if ctx ends before d is over.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
