package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/discovery"
	api "github.com/kaptar/kaptar/drivers/consul/internal/client"
)

const (
	// look is how often the agent is asked whether it still knows an instance.
	look = 2 * time.Second
	// patience is how long the agent may take to tell the catalog before it is told again. Without
	// a leader it tries by itself only every 15 s or so.
	patience = time.Second
	// farewell bounds Deregister, so that a program ends in time when Consul is away.
	farewell = 2 * time.Second
)

// slot orders what happens to one id of a service.
type slot struct {
	turn  chan struct{} // holds a value while somebody works on it
	users int           // who works on it or waits, and one for a keeper

	mu   sync.Mutex
	keep context.CancelFunc // ends the keeper; nil = there is none
	kept chan struct{}      // closed when it has ended
}

// stop ends the keeper, if there is one, and waits for it.
func (s *slot) stop() (stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep == nil {
		return false
	}
	s.keep()
	<-s.kept
	s.keep = nil
	return true
}

// take waits until no other call works on the id. The caller must call give.
func (r *Registry) take(ctx context.Context, id string) (*slot, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, errClosed
	}
	s := r.slots[id]
	if s == nil {
		s = &slot{turn: make(chan struct{}, 1)}
		r.slots[id] = s
	}
	s.users++
	r.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
		return s, nil
	case <-ctx.Done():
		r.leave(id, s)
		return nil, fmt.Errorf("drivers/consul: %s: %w", id, context.Cause(ctx))
	}
}

func (r *Registry) give(id string, s *slot) {
	<-s.turn
	r.leave(id, s)
}

// leave forgets a slot that nobody uses.
func (r *Registry) leave(id string, s *slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(r.slots, id)
	}
}

// Register implements discovery.Registrar. It returns once the agent and the catalog show the instance. While the agent
// is away or has no leader it tries for as long as ctx lives; what Consul refuses (a missing right, say) fails at once.
// Until Deregister or Close the instance is registered again whenever the agent does not know it any more.
// After an error nothing keeps the instance, and it may be listed.
func (r *Registry) Register(ctx context.Context, in discovery.Instance) error {
	def, err := registration(in, r.client.Settings())
	if err != nil {
		return err
	}
	s, err := r.take(ctx, def.ID)
	if err != nil {
		return err
	}
	defer r.give(def.ID, s)
	if s.stop() {
		r.leave(def.ID, s)
	}
	if err := r.enter(ctx, def); err != nil {
		return fmt.Errorf("drivers/consul: register %s of %s: %w", in.ID, in.Service, err)
	}
	return r.startKeeper(s, def)
}

// Deregister implements discovery.Registrar. It returns once the agent has removed the instance, which tells the
// catalog. While the agent is away it tries for 2 s, if ctx lives that long.
func (r *Registry) Deregister(ctx context.Context, in discovery.Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	if err := checkName("id", in.ID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	s, err := r.take(ctx, in.ID)
	if err != nil {
		return err
	}
	defer r.give(in.ID, s)
	if s.stop() {
		r.leave(in.ID, s)
	}
	err = r.retry(ctx, func() error {
		listed, err := r.known(ctx, in.ID)
		if err != nil || listed != in.Service { // not there, or somebody else's
			return err
		}
		err = r.client.Call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(in.ID), nil, nil, nil)
		if api.HasCode(err, http.StatusNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drivers/consul: deregister %s of %s: %w", in.ID, in.Service, err)
	}
	return nil
}

// retry calls f until it succeeds, fails for good or ctx ends.
func (r *Registry) retry(ctx context.Context, f func() error) error {
	var backoff api.Backoff
	defer r.client.GaveUp(&backoff)
	var last error
	for {
		err := f()
		switch {
		case err == nil:
			r.client.Worked(&backoff)
			return nil
		case ctx.Err() != nil:
			if last == nil || errors.Is(err, errNotShown) {
				last = err // else err says only that ctx has ended
			}
			return fmt.Errorf("%w (%w)", last, context.Cause(ctx))
		case !api.Temporary(err) && !errors.Is(err, errNotShown):
			return err
		}
		last = err
		r.client.Failed(&backoff, err)
		backoff.Wait(ctx)
	}
}

// known returns the name of the service that the agent has under this id; "" = none.
func (r *Registry) known(ctx context.Context, id string) (name string, err error) {
	var s service
	err = r.client.Call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, nil, &s)
	if api.HasCode(err, http.StatusNotFound) {
		return "", nil
	}
	return s.Service, err
}

var errNotShown = errors.New("the agent took it, the catalog does not show it (may the token of DISCOVERY_URL read the service?)")

// enter registers at the agent and waits for the catalog.
func (r *Registry) enter(ctx context.Context, def service) error {
	return r.retry(ctx, func() error {
		name, err := r.known(ctx, def.ID)
		if err != nil {
			return err
		}
		if name != "" && name != def.Name {
			return fmt.Errorf("%w instance %s: the agent has this id for service %s", discovery.ErrInvalid, def.ID, name)
		}
		query := url.Values{"replace-existing-checks": {"true"}}
		if err := r.client.Call(ctx, http.MethodPut, "/v1/agent/service/register", query, def, nil); err != nil {
			return err
		}
		return r.shown(ctx, def)
	})
}

// shown waits until the catalog has what was registered, for patience at most.
func (r *Registry) shown(ctx context.Context, def service) error {
	begun := time.Now()
	var gap time.Duration
	for {
		var list []listed
		if _, err := r.client.Read(ctx, healthPath(def.Name), nil, &list); err != nil {
			return err
		}
		want := instance(listed{Service: service{
			ID: def.ID, Service: def.Name, Tags: def.Tags, Meta: def.Meta, Address: def.Address, Port: def.Port,
		}})
		if slices.ContainsFunc(list, func(l listed) bool { return equal(instance(l), want) }) {
			return nil
		}
		if time.Since(begun) > patience || ctx.Err() != nil {
			return errNotShown
		}
		gap = min(2*gap+5*time.Millisecond, 100*time.Millisecond)
		api.Sleep(ctx, gap)
	}
}

// startKeeper keeps def registered until s.stop.
func (r *Registry) startKeeper(s *slot, def service) error {
	ctx, cancel := context.WithCancel(context.Background())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		cancel()
		return errClosed
	}
	s.users++
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := make(chan struct{})
	s.keep, s.kept = cancel, ended
	go func() {
		defer close(ended)
		r.keeper(ctx, def)
	}()
	return nil
}

// keeper looks whether the agent knows def, and registers it again when it does not.
func (r *Registry) keeper(ctx context.Context, def service) {
	pause := look
	if def.Check != nil && def.Check.TTL != "" {
		pause = min(look, r.client.Settings().TTL/3)
	}
	var backoff api.Backoff
	defer r.client.GaveUp(&backoff)
	for api.Sleep(ctx, pause/2+rand.N(pause)); ctx.Err() == nil; api.Sleep(ctx, pause/2+rand.N(pause)) {
		there, err := r.beat(ctx, def)
		if err == nil && !there {
			if err = r.enter(ctx, def); err == nil {
				r.client.Log().Info("registered again: the agent did not know the instance", "id", def.ID, "of", def.Name)
			}
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.client.Failed(&backoff, err)
		default:
			r.client.Worked(&backoff)
		}
	}
}

// beat asks whether the agent knows def, and keeps a TTL check green with the question.
func (r *Registry) beat(ctx context.Context, def service) (there bool, err error) {
	if def.Check == nil || def.Check.TTL == "" {
		name, err := r.known(ctx, def.ID)
		return name == def.Name, err
	}
	path := "/v1/agent/check/update/" + url.PathEscape(def.Check.CheckID)
	err = r.client.Call(ctx, http.MethodPut, path, nil, map[string]string{"Status": "passing"}, nil)
	if api.HasCode(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}
