package natskv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/nats/internal/conn"
	"github.com/kaptar/kaptar/internal/redact"
)

const (
	pkg        = "drivers/nats/registry"
	bucketName = "kaptar-instances"

	defaultTTL = 15 * time.Second
	minTTL     = 2 * time.Second // the server counts in seconds

	// markTTL is how long the bucket keeps the mark of an instance that is gone, for watchers that are away just now.
	markTTL = time.Minute

	closeTimeout = 2 * time.Second
)

var errDeregistered = errors.New("it was deregistered meanwhile")

var _ discovery.Registry = (*Registry)(nil)

// Healthy says whether the server can be reached.
func (r *Registry) Healthy() error { return r.conn.Healthy() }

// Options configure a Registry. The zero value is ready to use; parameters in the URL come before.
type Options struct {
	TTL      time.Duration // how long an instance stays without a sign of life; default 15 s
	Replicas int           // copies of a new bucket in a cluster; default 1

	// Connect are more options for the connection, for example nats.UserCredentials or nats.RootCAs. They are applied before
	// the package's own.
	Connect []nats.Option
}

// A Registry implements discovery.Registry with one connection to a NATS server or cluster. Make it with [Open]; all methods may
// be called concurrently.
type Registry struct {
	conn   *natsconn.Conn
	bucket *natsconn.Bucket
	ttl    time.Duration

	mu     sync.Mutex
	closed bool
	kept   map[string]*registration // by key
	busy   sync.WaitGroup           // refreshers
}

// Open connects to the servers of a URL as described at the package. nil options are the zero Options. A server that does not
// answer is no error; one that refuses the credentials is. Errors about the URL wrap discovery.ErrInvalid.
func Open(ctx context.Context, rawURL string, opts *Options) (*Registry, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	servers, params, err := natsconn.Split(rawURL)
	if err == nil {
		err = o.take(params)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w url %s: %w", pkg, discovery.ErrInvalid, redact.URL(servers), err)
	}
	r := &Registry{ttl: o.TTL, kept: make(map[string]*registration)}
	r.conn, err = natsconn.Connect(ctx, natsconn.Config{
		Package: pkg, Servers: servers, Patient: true, Options: o.Connect, Reconnected: r.refreshAll,
	})
	if err != nil {
		if errors.Is(err, natsconn.ErrURL) {
			err = fmt.Errorf("%w: %w", discovery.ErrInvalid, err)
		}
		return nil, err
	}
	r.bucket = r.conn.Bucket(natsconn.BucketConfig{
		Name: bucketName, Description: "kaptar instances", Replicas: o.Replicas, Markers: markTTL, Check: r.ttl / 3,
	})
	return r, nil
}

// take applies the parameters of a URL and the defaults.
func (o *Options) take(params url.Values) (err error) {
	if text := params.Get("ttl"); text != "" {
		if o.TTL, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("parameter ttl=%s: want a duration such as 15s", text)
		}
	}
	if text := params.Get("replicas"); text != "" {
		if o.Replicas, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("parameter replicas=%s: want a number from 1 to 5", text)
		}
	}
	if o.TTL == 0 {
		o.TTL = defaultTTL
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	switch {
	case o.TTL < minTTL:
		return fmt.Errorf("parameter ttl=%v: want %v or more", o.TTL, minTTL)
	case o.Replicas < 1 || o.Replicas > 5:
		return fmt.Errorf("parameter replicas=%d: want a number from 1 to 5", o.Replicas)
	}
	return nil
}

// SetLogger says where it is logged that the registry waits for the server, and that the server is back, once each; at first
// nowhere.
func (r *Registry) SetLogger(log *slog.Logger) { r.conn.SetLogger(log) }

// A registration is an instance that this registry keeps alive. Its writes go one after the other, so that none comes after
// the mark that it is gone.
type registration struct {
	key  string
	wake chan struct{}   // holds one word that the entry is to be written now
	ctx  context.Context // ends when somebody waits to deregister
	stop context.CancelFunc

	mu   sync.Mutex // held while the entry is written
	gone bool       // deregistered
	data []byte
}

// Register implements discovery.Registrar. It tries until ctx ends, then the instance is not registered.
func (r *Registry) Register(ctx context.Context, in discovery.Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	data, err := json.Marshal(newRecord(in, r.ttl))
	if err != nil {
		return fmt.Errorf("%s: register %s: %w", pkg, in.ID, err)
	}
	reg, fresh, err := r.claim(keyOf(in))
	if err != nil {
		return fmt.Errorf("%s: register %s: %w", pkg, in.ID, err)
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
		if ctx.Err() != nil || errors.Is(err, natsconn.ErrClosed) || !natsconn.Sleep(ctx, rand.N(time.Second)) {
			break
		}
	}
	if fresh {
		r.drop(reg)
	}
	return fmt.Errorf("%s: register %s: %w", pkg, in.ID, err)
}

// claim returns the registration of a key, locked, made if there is none.
func (r *Registry) claim(key string) (reg *registration, fresh bool, err error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, false, natsconn.ErrClosed
		}
		reg = r.kept[key]
		if fresh = reg == nil; fresh {
			reg = &registration{key: key, wake: make(chan struct{}, 1)}
			reg.ctx, reg.stop = context.WithCancel(context.Background())
			r.kept[key] = reg
			r.busy.Go(func() { r.keep(reg) })
		}
		r.mu.Unlock()
		reg.mu.Lock()
		if !reg.gone && reg.ctx.Err() == nil {
			return reg, fresh, nil
		}
		reg.mu.Unlock() // who deregisters it has the lock next, or had it
	}
}

// drop forgets a registration. The caller holds reg.mu.
func (r *Registry) drop(reg *registration) {
	reg.gone = true
	reg.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept[reg.key] == reg {
		delete(r.kept, reg.key)
	}
}

// Deregister implements discovery.Registrar. When it fails the instance is not refreshed any more all the same, and is gone when its
// time is over.
func (r *Registry) Deregister(ctx context.Context, in discovery.Instance) error {
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
		return fmt.Errorf("%s: deregister %s: %w", pkg, in.ID, err)
	}
	return nil
}

// keep writes the entry of a registration again and again.
func (r *Registry) keep(reg *registration) {
	timer := time.NewTimer(r.pause())
	defer timer.Stop()
	for wait := time.Duration(0); ; {
		select {
		case <-timer.C:
		case <-reg.wake:
		case <-reg.ctx.Done():
			return
		}
		err := r.refresh(reg)
		if err == nil {
			wait = 0
			timer.Reset(r.pause())
			continue
		}
		wait = min(max(2*wait, 100*time.Millisecond), r.ttl/6) // soon enough to come before the time is over
		timer.Reset(rand.N(wait))
	}
}

// pause is a third of the time to live, give or take a tenth, so that the instances of a system do not all write at once.
func (r *Registry) pause() time.Duration {
	third := r.ttl / 3
	return third - third/10 + rand.N(third/5)
}

func (r *Registry) refresh(reg *registration) error {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if reg.gone || reg.data == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(reg.ctx, r.ttl/3)
	defer cancel()
	return r.write(ctx, reg.key, reg.data)
}

// refreshAll has all entries written now: the server may have lost them.
func (r *Registry) refreshAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reg := range r.kept {
		select {
		case reg.wake <- struct{}{}:
		default:
		}
	}
}

func (r *Registry) write(ctx context.Context, key string, data []byte) error {
	return r.publish(ctx, &nats.Msg{Subject: subject(key), Data: data, Header: nats.Header{
		jetstream.MsgTTLHeader: {seconds(r.ttl)},
	}})
}

// mark says that an entry was deleted. The mark has a time to live too, else marks of all instances that ever were would stay.
func (r *Registry) mark(ctx context.Context, key string) error {
	return r.publish(ctx, &nats.Msg{Subject: subject(key), Header: nats.Header{
		"KV-Operation": {"DEL"}, jetstream.MsgTTLHeader: {seconds(markTTL)},
	}})
}

func (r *Registry) publish(ctx context.Context, msg *nats.Msg) error {
	return r.bucket.Do(ctx, true, func(ctx context.Context, c natsconn.Call) error {
		_, err := c.JS.PublishMsg(ctx, msg)
		return err
	})
}

// seconds writes a duration for the server, which counts whole ones.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10) + "s"
}

// Close takes the instances that are still registered off the list, within 2 s, and ends the connection. Watch calls then return
// an error. A second call does nothing.
func (r *Registry) Close() error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	var left []*registration
	for _, reg := range r.kept {
		left = append(left, reg)
	}
	r.mu.Unlock()
	if !first {
		return nil
	}
	var err error
	if len(left) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		for _, reg := range left {
			reg.stop()
			reg.mu.Lock()
			r.drop(reg)
			err = errors.Join(err, r.mark(ctx, reg.key))
			reg.mu.Unlock()
		}
	}
	r.conn.Close()
	r.busy.Wait()
	if err != nil {
		return fmt.Errorf("%s: close: instances that are still listed go when their time is over: %w", pkg, err)
	}
	return nil
}
