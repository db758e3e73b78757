package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/kv"
)

// Keys of the store: releasesPrefix with a service has the state of its release, leaderKey the
// lease of the leading controller, weightsPrefix the weights that every transport follows,
// localPrefix the binaries that the supervisor of package local runs.
const (
	releasesPrefix = "releases/"
	leaderKey      = "releases.leader"
	weightsPrefix  = "weights/"
	localPrefix    = "local/"
)

// maxTries bounds the retries of a change that conflicts with another one.
const maxTries = 10

// encode returns a release for the store. If it does not fit, the oldest intervals of a blue-green
// release's Baseline are dropped.
func encode(r Release) ([]byte, error) {
	for {
		text, err := json.Marshal(r)
		if err == nil && len(text) > kv.MaxValue && len(r.Baseline) > 0 {
			r.Baseline = r.Baseline[1:]
			continue
		}
		return text, err
	}
}

// decode reads what encode wrote, and refuses anything else.
func decode(text []byte) (r Release, err error) {
	if err = json.Unmarshal(text, &r); err == nil {
		r.Plan = r.Plan.WithDefaults()
		err = r.check()
	}
	if err != nil {
		return Release{}, fmt.Errorf("rollout: state of a release: %w", err)
	}
	return r, nil
}

func (r Release) check() error {
	phases := []Phase{Progressing, Paused, Healthy, Degraded}
	switch {
	case r.Service == "" || r.Stable == "" || (r.Canary == "") != (r.Phase == Healthy) || kv.Segment(r.Stable) == kv.Segment(r.Canary):
		return errors.New("expected a service and two versions")
	case !slices.Contains(phases, r.Phase) || (r.Phase == Paused) != (r.Reason != ""):
		return fmt.Errorf("phase %q with reason %q: expected one of %v, and a reason if Paused", r.Phase, r.Reason, phases)
	case r.Weight < 0 || r.Weight > 100 || r.Done() && r.Weight != 0:
		return fmt.Errorf("weight %d: expected 0 to 100, and 0 when it is over", r.Weight)
	case !r.Done() && r.Test == nil:
		return errors.New("expected a test")
	case r.Waited < 0 || r.Away < 0 || r.Wait < 0:
		return errors.New("expected durations from 0s")
	}
	if err := r.Plan.Check(); err != nil {
		return err
	}
	if n := len(r.Steps()); r.Step < 0 || r.Step > n || r.Step == n && !r.Done() {
		return fmt.Errorf("step %d: expected one of %d", r.Step, n)
	}
	return nil
}

// load returns the release of a service and its revision; or kv.ErrNotFound, wrapped.
func load(ctx context.Context, store kv.Store, service string) (Release, uint64, error) {
	e, err := store.Get(ctx, releasesPrefix+kv.Segment(service))
	if err != nil {
		return Release{}, 0, err
	}
	r, err := decode(e.Value)
	return r, e.Revision, err
}

// update changes the release of a service by f, which is called again after a conflict. It returns
// the release before and after. f gets a zero Release if there is none.
func update(ctx context.Context, store kv.Store, service string, f func(Release) (Release, error)) (before, after Release, err error) {
	for range maxTries {
		var revision uint64
		before, revision, err = load(ctx, store, service)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return before, before, err
		}
		if after, err = f(before); err != nil {
			return before, before, err
		}
		var text []byte
		if text, err = encode(after); err != nil {
			return before, before, err
		}
		if _, err = store.PutIf(ctx, releasesPrefix+kv.Segment(service), text, revision); !errors.Is(err, kv.ErrConflict) {
			return before, after, err
		}
	}
	return before, before, err
}

// apply writes the weights that follow from the release of a service, as far as they differ, and
// again if the release has changed meanwhile: the weights written here may then be the older ones.
func apply(ctx context.Context, store kv.Store, service string) error {
	for range maxTries {
		r, revision, err := load(ctx, store, service)
		if err != nil {
			return err
		}
		if err := write(ctx, store, r); err != nil {
			return err
		}
		if _, now, err := load(ctx, store, service); err != nil || now == revision {
			return err
		}
	}
	return fmt.Errorf("rollout: weights of %s: the release changes faster than they can be written", service)
}

// write writes the weights of r. Those that grow come first, so there is a positive weight at any
// moment, and no version gets more than the larger of its old and its new share.
func write(ctx context.Context, store kv.Store, r Release) error {
	prefix := weightsPrefix + kv.Segment(r.Service) + "/"
	old, err := values(ctx, store, prefix)
	if err != nil {
		return err
	}
	type change struct {
		key      string
		from, to int
	}
	var changes []change
	want := map[string]int{}
	for version, weight := range r.Weights() {
		want["version/"+kv.Segment(version)] = weight
	}
	for key, weight := range want {
		if from, err := strconv.Atoi(old[key]); err != nil || from != weight {
			changes = append(changes, change{key, from, weight})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(b.to-b.from, a.to-a.from) })
	for _, c := range changes {
		if _, err := store.Put(ctx, prefix+c.key, []byte(strconv.Itoa(c.to))); err != nil {
			return err
		}
	}
	for key := range old {
		if _, ok := want[key]; !ok && strings.HasPrefix(key, "version/") {
			if err := store.Delete(ctx, prefix+key); err != nil { // of a version that is no part of it any more
				return err
			}
		}
	}
	const events = "events"
	switch handler, ok := old[events]; {
	case r.Plan.Events == EventsShare && ok:
		return store.Delete(ctx, prefix+events)
	case r.Plan.Events == EventsStable && handler != r.Stable:
		_, err := store.Put(ctx, prefix+events, []byte(r.Stable))
		return err
	}
	return nil
}

// values returns the values under prefix, by key without it. A Watch waits for a store that is away
// as long as its context lasts.
func values(ctx context.Context, store kv.Store, prefix string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	var found map[string]string
	err := store.Watch(ctx, prefix, func(list []kv.Entry) {
		if found != nil {
			return
		}
		found = make(map[string]string, len(list))
		for _, e := range list {
			found[strings.TrimPrefix(e.Key, prefix)] = string(e.Value)
		}
		cancel()
	})
	if found == nil && err == nil {
		err = context.Cause(ctx)
	}
	if found != nil {
		err = nil
	}
	return found, err
}
