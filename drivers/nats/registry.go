package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	instancesBucket = "kaptar-instances"

	// markTTL is how long the bucket keeps the marker of a deregistered instance, for watchers that
	// are disconnected.
	markTTL = time.Minute

	closeTimeout = 2 * time.Second
)

var errDeregistered = errors.New("it was deregistered meanwhile")

var _ discovery.Registry = (*registry)(nil)

// A registry is the side of a backend for discovery: it implements discovery.Registry. Its methods
// may be called concurrently.
type registry struct {
	bucket *bucket
	ttl    time.Duration

	mu     sync.Mutex
	closed bool
	kept   map[string]*registration // by key
	busy   sync.WaitGroup           // refreshers
}

func newRegistry(conn *connection, set settings) *registry {
	return &registry{ttl: set.ttl, kept: make(map[string]*registration), bucket: &bucket{conn: conn, cfg: bucketConfig{
		name: instancesBucket, description: "kaptar instances", replicas: set.replicas, markers: markTTL, check: set.ttl / 3,
	}}}
}

// A registration is an instance that this registry keeps alive. Its writes are serialised, so that
// none comes after the marker of its deregistration.
type registration struct {
	key  string
	wake chan struct{}   // holds at most one request to write the entry now
	ctx  context.Context // ends when a deregistration begins
	stop context.CancelFunc

	mu   sync.Mutex // held while the entry is written
	data []byte     // nil: not written yet
}

// Register implements discovery.Registrar. It tries until ctx ends. An error means not registered.
func (r *registry) Register(ctx context.Context, in discovery.Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	if err := r.enter(ctx, in); err != nil {
		return err
	}
	if err := r.takeOver(ctx, in); err != nil {
		return fmt.Errorf("nats: register %s: instances at the same address: %w", in.ID, errors.Join(err, r.Deregister(ctx, in)))
	}
	return nil
}

// takeOver deregisters the instances that in replaces. They would expire, but until then callers
// would see several instances at one address.
func (r *registry) takeOver(ctx context.Context, in discovery.Instance) error {
	if in.HTTP == "" && in.GRPC == "" {
		return nil
	}
	var replaced []discovery.Instance
	err := r.bucket.do(ctx, true, func(ctx context.Context, c *opened) error {
		keys, err := c.ListKeysFiltered(ctx, escape(in.Service)+".*")
		if err != nil {
			return err
		}
		replaced = nil
		for key := range keys.Keys() {
			entry, err := c.Get(ctx, key)
			if errors.Is(err, jetstream.ErrKeyNotFound) {
				continue // gone meanwhile
			}
			if err != nil {
				return err
			}
			if o, ok := parseRecord(entry.Value(), in.Service, key); ok && in.Replaces(o.instance()) {
				replaced = append(replaced, o.instance())
			}
		}
		return nil
	})
	for _, o := range replaced {
		err = errors.Join(err, r.Deregister(ctx, o))
	}
	return err
}

// enter writes in, and keep writes it again from then on.
func (r *registry) enter(ctx context.Context, in discovery.Instance) error {
	data, err := json.Marshal(newRecord(in, r.ttl))
	if err != nil {
		return fmt.Errorf("nats: register %s: %w", in.ID, err)
	}
	reg, err := r.lock(keyOf(in))
	if err != nil {
		return fmt.Errorf("nats: register %s: %w", in.ID, err)
	}
	defer reg.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(reg.ctx, func() { cancel(errDeregistered) })()
	for {
		if err = r.write(ctx, reg.key, data); err == nil {
			reg.data = data
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, errClosed) || !steady.Sleep(ctx, steady.Delay(0, time.Second, 0)) {
			break
		}
	}
	if reg.data == nil {
		r.drop(reg)
	}
	return fmt.Errorf("nats: register %s: %w", in.ID, err)
}

// lock returns the registration of a key, locked, made if there is none.
func (r *registry) lock(key string) (*registration, error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, errClosed
		}
		reg := r.kept[key]
		if reg == nil {
			reg = &registration{key: key, wake: make(chan struct{}, 1)}
			reg.ctx, reg.stop = context.WithCancel(context.Background())
			r.kept[key] = reg
			r.busy.Go(func() { r.keep(reg) })
		}
		r.mu.Unlock()
		reg.mu.Lock()
		if reg.ctx.Err() == nil {
			return reg, nil
		}
		reg.mu.Unlock() // it is being deregistered
	}
}

// drop forgets a registration. The caller holds reg.mu.
func (r *registry) drop(reg *registration) {
	reg.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept[reg.key] == reg {
		delete(r.kept, reg.key)
	}
}

// Deregister implements discovery.Registrar. Even if it fails the instance is no longer refreshed,
// and it disappears when its time to live is over.
func (r *registry) Deregister(ctx context.Context, in discovery.Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	key := keyOf(in)
	r.mu.Lock()
	reg := r.kept[key]
	r.mu.Unlock()
	if reg != nil {
		reg.stop() // ends a write that waits for the server
		reg.mu.Lock()
		r.drop(reg)
		defer reg.mu.Unlock()
	}
	if err := r.mark(ctx, key); err != nil {
		return fmt.Errorf("nats: deregister %s: %w", in.ID, err)
	}
	return nil
}

// keep writes the entry of a registration at intervals.
func (r *registry) keep(reg *registration) {
	backoff := steady.Backoff{Max: r.ttl / 6} // soon enough to succeed within the time to live
	for wait := r.pause(); ; {
		select {
		case <-time.After(wait):
		case <-reg.wake:
		case <-reg.ctx.Done():
			return
		}
		if r.refresh(reg) == nil {
			backoff.Reset()
			wait = r.pause()
		} else {
			wait = backoff.Next()
		}
	}
}

// pause is a third of the time to live ±10 %, so that instances do not write at once.
func (r *registry) pause() time.Duration {
	third := r.ttl / 3
	return third - third/10 + rand.N(third/5)
}

func (r *registry) refresh(reg *registration) error {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if reg.ctx.Err() != nil || reg.data == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(reg.ctx, r.ttl/3)
	defer cancel()
	return r.write(ctx, reg.key, reg.data)
}

// refreshAll writes all entries now, because the server may have lost them.
func (r *registry) refreshAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reg := range r.kept {
		steady.Signal(reg.wake)
	}
}

func (r *registry) write(ctx context.Context, key string, data []byte) error {
	return r.publish(ctx, key, data, nats.Header{jetstream.MsgTTLHeader: {seconds(r.ttl)}})
}

// mark writes the marker of a deleted entry. The marker has a time to live too, or those of all
// instances would stay for ever.
func (r *registry) mark(ctx context.Context, key string) error {
	return r.publish(ctx, key, nil, nats.Header{"KV-Operation": {"DEL"}, jetstream.MsgTTLHeader: {seconds(markTTL)}})
}

func (r *registry) publish(ctx context.Context, key string, data []byte, header nats.Header) error {
	msg := &nats.Msg{Subject: "$KV." + instancesBucket + "." + key, Data: data, Header: header}
	return r.bucket.do(ctx, true, func(ctx context.Context, _ *opened) error {
		_, err := r.bucket.conn.js.PublishMsg(ctx, msg)
		return err
	})
}

// seconds formats a duration for the server, in whole seconds.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10) + "s"
}

// close deregisters the instances that are still registered, within 2 s and ctx.
func (r *registry) close(ctx context.Context) (err error) {
	r.mu.Lock()
	r.closed = true
	left := slices.Collect(maps.Values(r.kept))
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	for _, reg := range left {
		reg.stop()
		reg.mu.Lock()
		r.drop(reg)
		err = errors.Join(err, r.mark(ctx, reg.key))
		reg.mu.Unlock()
	}
	r.busy.Wait()
	if err != nil {
		return fmt.Errorf("nats: close: instances that are still listed go when their time is over: %w", err)
	}
	return nil
}

// A record is an instance as the bucket stores it.
type record struct {
	ID      string            `json:"id"`
	Service string            `json:"service"`
	Version string            `json:"version,omitempty"`
	HTTP    string            `json:"http,omitempty"`
	GRPC    string            `json:"grpc,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	TTL     float64           `json:"ttl"` // in seconds
}

func newRecord(in discovery.Instance, ttl time.Duration) record {
	return record{in.ID, in.Service, in.Version, in.HTTP, in.GRPC, in.Tags, in.Meta, ttl.Seconds()}
}

func (r record) instance() discovery.Instance {
	return discovery.Instance{ID: r.ID, Service: r.Service, Version: r.Version, HTTP: r.HTTP, GRPC: r.GRPC, Tags: r.Tags, Meta: r.Meta}
}

// parseRecord reads an entry of a service. ok is false if another program wrote it.
func parseRecord(data []byte, service, key string) (r record, ok bool) {
	err := json.Unmarshal(data, &r)
	return r, err == nil && r.Service == service && keyOf(r.instance()) == key
}

// ttl returns the registrant's time to live, or other if that makes no sense.
func (r record) ttl(other time.Duration) time.Duration {
	if d := time.Duration(r.TTL * float64(time.Second)); d >= time.Second && d < 24*time.Hour {
		return d
	}
	return other
}

// keyOf is the key of an instance. The keys of a service share their first token.
func keyOf(in discovery.Instance) string { return escape(in.Service) + "." + escape(in.ID) }

// escape makes one token of a subject that the server takes as a key: letters, digits, '-' and '_'
// stay; other bytes become '=' and two hexadecimal digits.
func escape(s string) string {
	return escapeBytes(s, '=', 0, func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
	})
}
