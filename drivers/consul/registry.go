package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	// look is how often the agent is asked whether it still has an instance.
	look = 2 * time.Second
	// catalogTimeout is how long the agent may take to update the catalog before the registration
	// is sent again. Without a leader the agent itself retries only about every 15 s.
	catalogTimeout = time.Second
	// deregisterTimeout bounds Deregister, so that a program ends in time when Consul is away.
	deregisterTimeout = 2 * time.Second
)

var errClosed = errors.New("consul: the registry is closed")

// A registry is the side of a backend for discovery: it implements discovery.Registry. Its methods
// may be called concurrently.
type registry struct {
	client *client
	log    *slog.Logger
	ctx    context.Context // ends with close
	end    context.CancelFunc

	mu      sync.Mutex
	slots   map[string]*slot // by Consul's id of the service
	keepers sync.WaitGroup
}

var _ discovery.Registry = (*registry)(nil)

func newRegistry(client *client, log *slog.Logger) *registry {
	r := &registry{client: client, log: log, slots: map[string]*slot{}}
	r.ctx, r.end = context.WithCancel(context.Background())
	return r
}

func (r *registry) close() {
	r.mu.Lock()
	r.end()
	r.mu.Unlock()
	r.keepers.Wait()
}

// slot serialises the calls for one service id.
type slot struct {
	turn chan struct{} // full while a call works on the id
	stop func()        // ends the keeper and waits for it
}

// take waits until no other call works on the id, and ends its keeper. The caller must call give.
func (r *registry) take(ctx context.Context, id string) (*slot, error) {
	if r.ctx.Err() != nil {
		return nil, errClosed
	}
	r.mu.Lock()
	s := r.slots[id]
	if s == nil {
		s = &slot{turn: make(chan struct{}, 1), stop: func() {}}
		r.slots[id] = s
	}
	r.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
		s.stop()
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("consul: %s: %w", id, context.Cause(ctx))
	}
}

func (s *slot) give() { <-s.turn }

// Register implements discovery.Registrar. It returns once the agent and the catalog have the
// instance. While the agent is away or has no leader it retries until ctx ends; what Consul
// refuses, such as a missing permission, fails at once. Until Deregister or Close the instance is
// registered again whenever the agent has lost it. After an error nothing keeps the instance
// registered, but it may be listed.
func (r *registry) Register(ctx context.Context, in discovery.Instance) error {
	if err := r.registerAndKeep(ctx, in); err != nil {
		return err
	}
	if err := r.takeOver(ctx, in); err != nil {
		return fmt.Errorf("consul: register %s of %s: instances at the same address: %w", in.ID, in.Service, errors.Join(err, r.Deregister(ctx, in)))
	}
	return nil
}

// takeOver deregisters the instances that in replaces. Their processes are gone, but their checks
// reach in's address, so Consul would list them for ever.
func (r *registry) takeOver(ctx context.Context, in discovery.Instance) error {
	if in.HTTP == "" && in.GRPC == "" {
		return nil
	}
	var have map[string]service
	err := r.retry(ctx, func() error {
		query := url.Values{"filter": {"Service == " + strconv.Quote(in.Service)}}
		return r.client.call(ctx, http.MethodGet, "/v1/agent/services", query, nil, &have)
	})
	for _, s := range have {
		if o := instance(listed{Service: s}); in.Replaces(o) {
			err = errors.Join(err, r.Deregister(ctx, o))
		}
	}
	return err
}

func (r *registry) registerAndKeep(ctx context.Context, in discovery.Instance) error {
	def, err := registration(in, r.client.set)
	if err != nil {
		return err
	}
	s, err := r.take(ctx, def.ID)
	if err != nil {
		return err
	}
	defer s.give()
	if err := r.enter(ctx, def); err != nil {
		return fmt.Errorf("consul: register %s of %s: %w", in.ID, in.Service, err)
	}
	return r.startKeeper(s, def)
}

// Deregister implements discovery.Registrar. It returns once the agent has removed the instance,
// which tells the catalog. While the agent is away it tries for 2 s, if ctx lives that long.
func (r *registry) Deregister(ctx context.Context, in discovery.Instance) error {
	if err := validate(in); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deregisterTimeout)
	defer cancel()
	s, err := r.take(ctx, in.ID)
	if err != nil {
		return err
	}
	defer s.give()
	err = r.retry(ctx, func() error {
		listed, err := r.known(ctx, in.ID)
		if err != nil || listed != in.Service { // not there, or somebody else's
			return err
		}
		path := "/v1/agent/service/deregister/" + url.PathEscape(in.ID)
		return r.client.call(ctx, http.MethodPut, path, nil, nil, nil, http.StatusNotFound)
	})
	if err != nil {
		return fmt.Errorf("consul: deregister %s of %s: %w", in.ID, in.Service, err)
	}
	return nil
}

// retry calls f until it succeeds, fails for good or ctx ends.
func (r *registry) retry(ctx context.Context, f func() error) error {
	backoff := &steady.Backoff{Max: 5 * time.Second}
	defer r.client.health.Note(backoff, nil)
	var last error
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			if last == nil || errors.Is(err, errNotShown) {
				last = err // else err says only that ctx has ended
			}
			return fmt.Errorf("%w (%w)", last, context.Cause(ctx))
		case !temporary(err) && !errors.Is(err, errNotShown):
			return err
		}
		last = err
		r.client.health.Note(backoff, err)
		steady.Sleep(ctx, backoff.Next())
	}
}

// known returns the name of the service that the agent has under this id; "" = none.
func (r *registry) known(ctx context.Context, id string) (name string, err error) {
	var s service
	err = r.client.call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, nil, &s)
	if hasCode(err, http.StatusNotFound) {
		return "", nil
	}
	return s.Service, err
}

var errNotShown = errors.New("the agent took it, the catalog does not show it (may the token of the URL read the service?)")

// enter registers at the agent and waits for the catalog.
func (r *registry) enter(ctx context.Context, def service) error {
	return r.retry(ctx, func() error {
		name, err := r.known(ctx, def.ID)
		if err != nil {
			return err
		}
		if name != "" && name != def.Name {
			return fmt.Errorf("%w instance %s: the agent has this id for service %s", discovery.ErrInvalid, def.ID, name)
		}
		query := url.Values{"replace-existing-checks": {"true"}}
		if err := r.client.call(ctx, http.MethodPut, "/v1/agent/service/register", query, def, nil); err != nil {
			return err
		}
		return r.shown(ctx, def)
	})
}

// shown waits until the catalog has what was registered, for catalogTimeout at most.
func (r *registry) shown(ctx context.Context, def service) error {
	begun := time.Now()
	var gap time.Duration
	for {
		var list []listed
		if _, err := r.client.read(ctx, healthPath(def.Name), nil, &list); err != nil {
			return err
		}
		want := instance(listed{Service: service{
			ID: def.ID, Service: def.Name, Tags: def.Tags, Meta: def.Meta, Address: def.Address, Port: def.Port,
		}})
		if slices.ContainsFunc(list, func(l listed) bool { return instance(l).Equal(want) }) {
			return nil
		}
		if time.Since(begun) > catalogTimeout || ctx.Err() != nil {
			return errNotShown
		}
		gap = min(2*gap+5*time.Millisecond, 100*time.Millisecond)
		steady.Sleep(ctx, gap)
	}
}

// startKeeper keeps def registered until s.stop is called.
func (r *registry) startKeeper(s *slot, def service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return errClosed
	}
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	s.stop = func() {
		cancel()
		<-ended
	}
	r.keepers.Go(func() {
		defer close(ended)
		r.keeper(ctx, def)
	})
	return nil
}

// keeper registers def again whenever the agent has lost it.
func (r *registry) keeper(ctx context.Context, def service) {
	pause := look
	if def.Check != nil && def.Check.TTL != "" {
		pause = min(look, r.client.set.ttl/3)
	}
	defer r.client.health.Note(&pause, nil)
	for steady.Sleep(ctx, pause/2+rand.N(pause)) {
		there, err := r.beat(ctx, def)
		if err == nil && !there {
			if err = r.enter(ctx, def); err == nil {
				r.log.Info("registered again: the agent did not know the instance", "id", def.ID, "of", def.Name)
			}
		}
		if ctx.Err() == nil {
			r.client.health.Note(&pause, err)
		}
	}
}

// beat asks whether the agent has def. The question also keeps a TTL check passing.
func (r *registry) beat(ctx context.Context, def service) (there bool, err error) {
	if def.Check == nil || def.Check.TTL == "" {
		name, err := r.known(ctx, def.ID)
		return name == def.Name, err
	}
	path := "/v1/agent/check/update/" + url.PathEscape(def.Check.CheckID)
	err = r.client.call(ctx, http.MethodPut, path, nil, map[string]string{"Status": "passing"}, nil)
	if hasCode(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Watch implements discovery.Resolver with blocking queries. It fails only for an invalid name.
//
// While Consul does not answer, the last list stands. Afterwards, instances that Consul has lost
// stay on the list for about 10 s: a restarted agent takes HTTP checks for critical until it has
// made them, and the instances register again within seconds at one that has lost its data.
func (r *registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if err := checkName("service", service); err != nil {
		return err
	}
	settings := r.client.set
	query := settings.query()
	if settings.passing {
		query.Set("passing", "true")
	}
	v := view{hold: 6*time.Second + 2*settings.interval, tell: discovery.Changes(update)}
	path := healthPath(service)
	r.client.follow(ctx, path, query, func(body []byte, after bool) (time.Duration, error) {
		var list []listed
		if err := r.client.decode(path, body, &list); err != nil {
			return 0, err
		}
		return v.see(instances(list), after, time.Now()), nil
	})
	return nil
}

func healthPath(service string) string { return "/v1/health/service/" + url.PathEscape(service) }

// view is the list of one Watch.
type view struct {
	hold time.Duration // how long instances that are missing after an outage stay listed
	tell func([]discovery.Instance)

	last  []discovery.Instance // told; nil: none yet
	until time.Time            // end of the hold
}

// see passes a new list on, and returns when to look again; 0 = at the next change.
func (v *view) see(list []discovery.Instance, afterOutage bool, now time.Time) (again time.Duration) {
	if afterOutage && v.last != nil {
		v.until = now.Add(v.hold)
	}
	if now.Before(v.until) {
		for _, old := range v.last {
			if _, found := slices.BinarySearchFunc(list, old, byID); !found {
				list = append(list, old)
				slices.SortFunc(list, byID)
				again = v.until.Sub(now)
			}
		}
	}
	v.last = list
	v.tell(list)
	return again
}
